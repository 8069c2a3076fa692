//! Connections that move from one runtime to another, when it is the test that says so.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::codec::{Encoder, Framed};

use super::scheduling::Runtimes;
use super::*;
use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::{CodecConfig, ProstCodec};
use crate::storage::MemTable;
use crate::{ProstClientStream, listen};

type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;

/// A server on runtimes whose threads are called one, two and three, and which of them served requests.
struct Site {
    address: String,
    in_use: Arc<Runtimes>,
    /// While the first is set, no request is answered; the second tells that one has come.
    halted: Arc<[AtomicBool; 2]>,
    served: Arc<Mutex<Vec<String>>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), KvError>>,
    runtimes: Vec<tokio::runtime::Runtime>,
}

impl Site {
    async fn start(with: impl FnOnce(TcpListener) -> Endpoint, config: ServerConfig) -> Self {
        let served = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&served);
        let halted = Arc::<[AtomicBool; 2]>::default();
        let halts = Arc::clone(&halted);
        let service = Service::builder(MemTable::new())
            .on_received(move |_| {
                while halts[0].load(Relaxed) {
                    halts[1].store(true, Relaxed);
                    std::thread::yield_now();
                }
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                seen.lock().unwrap().push(name);
            })
            .build();
        let runtimes = ["one", "two", "three"].map(|name| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let builder = builder.worker_threads(1).thread_name(name).enable_all();
            builder.build().unwrap()
        });
        let handles = runtimes.each_ref().map(|runtime| runtime.handle().clone());
        let listener = listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let endpoint = with(listener);
        let sessions = Sessions::new(&endpoint, service, config);
        let mut server = Server::new(&handles, sessions);
        let in_use = server.layout.decide();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            server.accept(endpoint.listener, stopped.map(drop)).await;
            server.stop().await
        });
        Self {
            address,
            in_use,
            halted,
            served,
            stop,
            server,
            runtimes: runtimes.into(),
        }
    }

    /// How many requests each of the runtimes was given since this was asked last.
    fn served(&self) -> [usize; 3] {
        let served = std::mem::take(&mut *self.served.lock().unwrap());
        ["one", "two", "three"].map(|name| served.iter().filter(|served| *served == name).count())
    }

    async fn end_first_runtime(&mut self) {
        let runtime = self.runtimes.remove(0);
        let ended = tokio::task::spawn_blocking(|| drop(runtime));
        ended.await.unwrap();
    }

    async fn stop(self) {
        drop(self.stop);
        self.halted[0].store(false, Relaxed);
        self.server.await.unwrap().unwrap();
        for runtime in self.runtimes {
            runtime.shutdown_background();
        }
    }
}

/// Has each client ask for something.
async fn ask<IO>(clients: &mut [ProstClientStream<IO>])
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    for client in clients {
        let request = CommandRequest::new_hset("t", "k", 1.into());
        assert_eq!(client.execute(request).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn connections_move_with_their_next_request() {
    let site = Site::start(Endpoint::from, ServerConfig::default()).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(ProstClientStream::connect(&site.address).await.unwrap());
    }
    ask(&mut clients).await;
    assert_eq!(site.served(), [6, 0, 0]);
    for (active, served) in [(2, [3, 3, 0]), (3, [2, 2, 2]), (1, [6, 0, 0])] {
        site.in_use.activate(active);
        // Where they are, unless they look right now where they should be.
        ask(&mut clients).await;
        site.served();
        ask(&mut clients).await;
        assert_eq!(site.served(), served);
    }
    site.stop().await;
}

#[tokio::test]
async fn a_connection_takes_everything_along() {
    // So that there is a timer.
    let config = ServerConfig::default().with_idle_timeout(Some(Duration::from_secs(3600)));
    let mut site = Site::start(Endpoint::from, config).await;
    let stream = TcpStream::connect(&site.address).await.unwrap();
    let mut client = Framed::new(stream, ClientCodec::new(CodecConfig::default()));
    let mut request = BytesMut::new();
    let codec = client.codec_mut();
    codec
        .encode(CommandRequest::new_hset("t", "k", 1.into()), &mut request)
        .unwrap();
    let (begin, rest) = request.split_at(9);

    client
        .get_mut()
        .write_all(&[&request, begin].concat())
        .await
        .unwrap();
    assert_eq!(client.next().await.unwrap().unwrap().status, 200);
    site.in_use.activate(2);
    client
        .get_mut()
        .write_all(&[rest, begin].concat())
        .await
        .unwrap();
    assert_eq!(client.next().await.unwrap().unwrap().status, 200);
    site.served();
    client.get_mut().write_all(rest).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap().status, 200);
    assert_eq!(site.served(), [0, 1, 0]);

    // Nothing of it is left where it comes from.
    site.end_first_runtime().await;
    for _ in 0..3 {
        client
            .send(CommandRequest::new_subscribe("a"))
            .await
            .unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 200);
        client
            .send(CommandRequest::new_publish("a", ["b".into()]))
            .await
            .unwrap();
        // The message and the answer.
        for _ in 0..2 {
            assert_eq!(client.next().await.unwrap().unwrap().status, 200);
        }
    }
    site.stop().await;
}

#[tokio::test]
async fn what_moves_when_the_server_stops_is_answered() {
    // More than are answered at once.
    const REQUESTS: usize = 1500;
    let site = Site::start(Endpoint::from, ServerConfig::default()).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let stream = TcpStream::connect(&site.address).await.unwrap();
        let mut client = Framed::new(stream, ClientCodec::new(CodecConfig::default()));
        client
            .send(CommandRequest::new_hset("t", "k", 1.into()))
            .await
            .unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 200);
        clients.push(client);
    }
    site.served();
    site.halted[0].store(true, Relaxed);
    for client in &mut clients {
        for _ in 0..REQUESTS {
            let request = CommandRequest::new_hset("t", "k", 1.into());
            client.feed(request).await.unwrap();
        }
        client.flush().await.unwrap();
        while !site.halted[1].load(Relaxed) {
            tokio::task::yield_now().await;
        }
    }
    site.in_use.activate(3);
    let served = Arc::clone(&site.served);
    site.stop().await;
    for client in clients {
        let answered = client.filter(|answer| {
            let is_good = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            std::future::ready(is_good)
        });
        assert_eq!(answered.count().await, REQUESTS);
    }
    let served = served.lock().unwrap();
    // The first, where it is next between two batches.
    assert!(served.iter().any(|served| served == "two"));
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_moves_too() {
    use crate::tls::{TlsClientConnector, TlsIdentity, TlsRoots, TlsServerAcceptor};

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let acceptor = TlsServerAcceptor::new(identity, None).unwrap();
    let roots = TlsRoots::from_pem(certificate.as_bytes()).unwrap();
    let connector = TlsClientConnector::new(roots, None).unwrap();
    let endpoint = |listener| Endpoint::tls(listener, acceptor);
    let mut site = Site::start(endpoint, ServerConfig::default()).await;
    let connecting = ProstClientStream::connect_tls(&site.address, &connector);
    let mut clients = [connecting.await.unwrap()];
    ask(&mut clients).await;
    assert_eq!(site.served(), [1, 0, 0]);
    site.in_use.activate(2);
    ask(&mut clients).await;
    site.served();
    ask(&mut clients).await;
    assert_eq!(site.served(), [0, 1, 0]);
    site.end_first_runtime().await;
    ask(&mut clients).await;
    assert_eq!(site.served(), [0, 1, 0]);
    site.stop().await;
}
