//! A server on its own thread that answers each request as a test says, for real clients and
//! programs.

use std::iter;
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
    answering_all(move |request| iter::once(answer(request)))
}

/// The same for a server that sends any number of responses after each request.
pub(crate) fn answering_all<All>(
    answers: impl Fn(CommandRequest) -> All + Send + Sync + 'static,
) -> String
where
    All: IntoIterator<Item = CommandResponse, IntoIter: Send>,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers = Arc::new(answers);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answers = Arc::clone(&answers);
                tokio::spawn(async move {
                    let codec =
                        ProstCodec::<CommandRequest, CommandResponse>::new(CodecConfig::default());
                    let mut framed = Framed::new(stream, codec);
                    while let Some(Ok(request)) = framed.next().await {
                        for answer in answers(request) {
                            // The client may be done and gone.
                            if framed.send(answer).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
    });
    address
}
