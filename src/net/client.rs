//! The plain client end of a connection: send one, get one.
//!
//! Answers carry no number: they are told apart by their order alone. So a request whose answer was not read
//! makes the connection useless, and the client says so instead of giving that answer to the next request.

use std::fmt::Display;
use std::future::poll_fn;

use futures::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_util::codec::Framed;

use super::reading;
use crate::abi::{CommandRequest, CommandResponse};
#[cfg(feature = "tls")]
use crate::codec::DecodeError;
use crate::codec::{CodecConfig, ProstCodec};
use crate::error::KvError;
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsClientConnector, TlsClientStream, TlsError};

/// A client of one connection, over any stream of bytes.
///
/// ```no_run
/// use kv::ProstClientStream;
/// use kv::abi::CommandRequest;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = ProstClientStream::connect("127.0.0.1:9527").await?;
/// client.execute(CommandRequest::new_hset("users", "alice", 42)).await?;
/// let mut response = client.execute(CommandRequest::new_hget("users", "alice")).await?;
/// let age: i64 = response.values.remove(0).try_into()?;
/// assert_eq!(age, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ProstClientStream<IO> {
    framed: Framed<IO, ProstCodec<CommandResponse, CommandRequest>>,
    /// Whether a request was sent whose answer has not been read.
    awaiting: bool,
}

impl ProstClientStream<TcpStream> {
    /// Connects to a server, with the default settings.
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached.
    pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<Self, KvError> {
        Ok(Self::new(tcp(address).await?, CodecConfig::default()))
    }
}

#[cfg(feature = "tls")]
impl ProstClientStream<TlsClientStream<TcpStream>> {
    /// Connects to a server that speaks TLS, with the default settings. Unless the connector has a name of its
    /// own, the host in the address is the name that is looked for in the server's certificate. It takes as long
    /// as the server does: give it a deadline.
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached, and [`KvError::Tls`] where there is
    /// no TLS. What the server thinks of the client's certificate comes with the first answer.
    pub async fn connect_tls(
        address: impl ToSocketAddrs + Display,
        connector: &TlsClientConnector,
    ) -> Result<Self, KvError> {
        let text = address.to_string();
        let host = text.rsplit_once(':').map_or(&*text, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Before anybody is connected to.
        let name = connector.name_for(host)?;
        let stream = connector.connect_as(name, tcp(address).await?).await?;
        Ok(Self::new(stream, CodecConfig::default()))
    }
}

/// A connection that sends small requests at once.
async fn tcp(address: impl ToSocketAddrs + Display) -> Result<TcpStream, KvError> {
    let failed = |source| KvError::Socket {
        action: format!("connect to {address}"),
        source,
    };
    let stream = TcpStream::connect(&address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ProstClientStream<IO> {
    /// A client over `io`.
    pub fn new(io: IO, config: CodecConfig) -> Self {
        Self {
            framed: Framed::new(io, ProstCodec::new(config)),
            awaiting: false,
        }
    }

    /// Sends a request and returns the answer to it, whatever its status.
    ///
    /// Where sending fails because the server has closed the connection, an answer that it gave before
    /// is returned, which says why.
    ///
    /// # Errors
    ///
    /// [`KvError::Encode`] for a request over a limit, which costs nothing: the next may be sent. After
    /// any other error, or when this future was dropped before it was ready, the connection is of no
    /// more use, and every later call gives [`KvError::Abandoned`]. `KvError::Tls` says that the server does
    /// not let this client in: with TLS 1.3 it does so after its handshake.
    pub async fn execute(&mut self, request: CommandRequest) -> Result<CommandResponse, KvError> {
        if self.awaiting {
            return Err(KvError::Abandoned);
        }
        self.framed.feed(request).await?;
        self.awaiting = true;
        let flushed = self.framed.flush().await;
        let answer = poll_fn(|cx| reading::poll_next(&mut self.framed, cx)).await;
        #[cfg(feature = "tls")]
        if let Some(Err(DecodeError::Io(error))) = &answer
            && let Some(refused) = HandshakeError::of_reading(error)
        {
            return Err(TlsError::from(refused).into());
        }
        let response = match (answer, flushed) {
            (Some(Ok(response)), _) => response,
            (_, Err(error)) => return Err(error.into()),
            (Some(Err(error)), Ok(())) => return Err(error.into()),
            (None, Ok(())) => return Err(KvError::ConnectionClosed),
        };
        self.awaiting = false;
        Ok(response)
    }

    /// Tells the server that no more requests follow, and closes the connection.
    ///
    /// # Errors
    ///
    /// [`KvError::Encode`] where the connection is broken.
    pub async fn close(mut self) -> Result<(), KvError> {
        Ok(self.framed.close().await?)
    }
}
