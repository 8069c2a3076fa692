//! Implements the codec's [`Shaped`] for every message, from the shapes that build.rs generates out
//! of `abi.proto`. It lives here because `abi` and `codec` do not depend on each other.

use crate::abi::{
    CommandRequest, CommandResponse, Hdel, Hello, Hexist, Hget, Hgetall, Hmdel, Hmexist, Hmget,
    Hmset, Hscan, Hset, Info, Kvpair, PSubscribe, PUnsubscribe, Ping, Publish, Subscribe,
    Unsubscribe, Value,
};
use crate::codec::{Shape, Shaped};

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
