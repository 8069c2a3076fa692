//! Reads a table larger than any answer in parts, through a server, with various limits.

use kv::abi::{CommandRequest, Kvpair, Value};
use kv::{CodecConfig, MemTable, ServerConfig, Service, Storage, ValueRef};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::support::KIB;
use crate::support::server::{ClientCodec, Server, ask};

/// Reads every pair of the table "t" in parts. Returns the pairs and the number of parts.
async fn read(client: &mut Framed<TcpStream, ClientCodec>) -> (Vec<Kvpair>, usize) {
    let (mut pairs, mut parts, mut from) = (Vec::new(), 0, String::new());
    loop {
        let part = ask(client, CommandRequest::new_hscan("t", &from, 0)).await;
        assert_eq!((part.status, part.message.as_str()), (200, ""));
        let Some(last) = part.pairs.last() else {
            return (pairs, parts);
        };
        from = format!("{}\0", last.key);
        pairs.extend(part.pairs);
        parts += 1;
    }
}

#[tokio::test]
async fn reads_a_table_larger_than_any_answer_in_parts() {
    // Values of every size, from empty to the longest that a message can hold.
    let value = |i: usize| match i % 40 {
        39 => Value::binary(vec![i as u8; 8 * KIB - 40]),
        len if len % 2 == 0 => Value::from("v".repeat(len * len)),
        _ => Value::from(-1),
    };
    let stored: Vec<_> = (0..2000)
        .map(|i| Kvpair::new(format!("{i:04}"), value(i)))
        .collect();
    let storage = MemTable::new();
    for pair in &stored {
        let value = ValueRef::new(pair.value.as_ref().unwrap()).unwrap();
        storage.set("t", &pair.key, value).await.unwrap();
    }
    let service = Service::new(storage);
    let small = CodecConfig::default().with_max_message_len(8 * KIB);
    let few = CodecConfig::default().with_max_elements(100);
    let framed = CodecConfig::default().with_max_frame_len(8 * KIB);
    for (codec, least) in [(small, 100), (few, 20), (framed, 100)] {
        let config = ServerConfig::default().with_codec(codec);
        let server = Server::start(service.clone(), config).await;
        let mut client = server.connect().await;
        let all = ask(&mut client, CommandRequest::new_hgetall("t")).await;
        assert_eq!(all.status, 413);
        let (pairs, parts) = read(&mut client).await;
        assert_eq!(pairs, stored);
        assert!(parts >= least, "{parts} parts");
        server.stop().await;
    }
}
