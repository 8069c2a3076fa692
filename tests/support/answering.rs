//! A server on its own thread that answers each request as a test says, for real clients and
//! programs.

use std::sync::Arc;
use std::thread;

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse};
use kv::{CodecConfig, ProstCodec};
use tokio_util::codec::Framed;

/// Starts the server on a free port, and returns its address. It serves until the tests end.
pub(crate) fn answering(
    answer: impl Fn(CommandRequest) -> CommandResponse + Send + Sync + 'static,
) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let codec =
                        ProstCodec::<CommandRequest, CommandResponse>::new(CodecConfig::default());
                    let mut framed = Framed::new(stream, codec);
                    while let Some(Ok(request)) = framed.next().await {
                        // The client may be done and gone.
                        if framed.send(answer(request)).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    address
}
