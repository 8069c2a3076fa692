//! Where the messages meet the codec, neither of which knows the other: the shape of every message, as
//! build.rs found it in `abi.proto`.

use crate::abi::{
    CommandRequest, CommandResponse, Hdel, Hello, Hexist, Hget, Hgetall, Hmdel, Hmexist, Hmget,
    Hmset, Hscan, Hset, Info, Kvpair, PSubscribe, PUnsubscribe, Ping, Publish, Subscribe,
    Unsubscribe, Value,
};
use crate::codec::{Shape, Shaped};

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
