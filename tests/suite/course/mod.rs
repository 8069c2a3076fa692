//! Programs shaped like those in the Geektime Rust course that builds a `kv`, ported to this
//! library.
//!
//! They stay as a reader of the course would write them, so that a name or a signature that departs
//! from the course breaks here. docs/from-the-course.md explains the differences.

mod client;
mod dummy_server;
mod hooks;
mod pubsub;
mod storage;
#[cfg(feature = "tls")]
mod tls;

use std::error::Error;
use std::net::SocketAddr;

use kv::{CommandResponse, Kvpair, ProstServerStream, Service, Storage, Value};
use tokio::net::TcpListener;

/// The result of a program's `main`.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Accepts connections and serves each in its own task, until the test ends.
async fn start_server<S: Storage>(service: Service<S>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = ProstServerStream::new(stream, service.clone());
            tokio::spawn(stream.process());
        }
    });
    Ok(address)
}

fn assert_res_ok(res: &CommandResponse, values: &[Value], pairs: &[Kvpair]) {
    let mut sorted_pairs = res.pairs.clone();
    sorted_pairs.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(res.status, 200);
    assert_eq!(res.message, "");
    assert_eq!(res.values, values);
    assert_eq!(sorted_pairs, pairs);
}
