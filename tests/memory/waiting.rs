//! The memory of published messages that wait for a client which reads nothing.

use allocation_counter::measure;
use kv::abi::CommandRequest;
use kv::{MemTable, ProstServerStream, ServerConfig, Service};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Builder;
use tokio::task::yield_now;

/// `Subscribe` to the topic `t`, as a frame.
const SUBSCRIBE: &[u8] = b"\0\0\0\x05\x52\x03\x0a\x01t";

const LIMIT: usize = 1024 * 1024;

#[test]
fn waiting_messages_take_no_more_memory_than_subscriber_buffer() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    // Short messages, for which the rest matters, and long ones.
    for (len, messages) in [(30, 20_000), (3000, 2000), (100_000, 50)] {
        let value = "x".repeat(len);
        let service = Service::new(MemTable::new());
        let (mut client, connection) = runtime.block_on(async {
            let (mut client, theirs) = tokio::io::duplex(64);
            let config = ServerConfig::default().with_subscriber_buffer(LIMIT);
            let connection = ProstServerStream::with_config(theirs, service.clone(), config);
            let connection = tokio::spawn(connection.process());
            client.write_all(SUBSCRIBE).await.unwrap();
            yield_now().await;
            (client, connection)
        });
        let publish = || CommandRequest::new_publish("t", [value.as_str().into()]);
        let answer = runtime.block_on(service.execute(publish()));
        assert_eq!(answer.values, [1.into()]);
        let info = measure(|| {
            runtime.block_on(async {
                for _ in 0..messages {
                    service.execute(publish()).await;
                }
            });
        });
        let (held, limit) = (info.bytes_current, LIMIT as i64);
        assert!(held <= limit, "{held} bytes for messages of {len} bytes");
        assert!(
            held >= limit / 2,
            "{held} bytes for messages of {len} bytes"
        );
        connection.abort();
        runtime.block_on(async { client.shutdown().await.unwrap() });
    }
}
