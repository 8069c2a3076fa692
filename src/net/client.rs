//! The plain client end of a connection: send one, get one.
//!
//! Answers carry no number: they are told apart by their order alone. So a request whose answer was not read
//! makes the connection useless, and the client says so instead of giving that answer to the next request.

use std::fmt::Display;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_util::codec::Framed;

use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::{CodecConfig, ProstCodec};
use crate::error::KvError;

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
        let failed = |source| KvError::Socket {
            action: format!("connect to {address}"),
            source,
        };
        let stream = TcpStream::connect(&address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self::new(stream, CodecConfig::default()))
    }
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
    /// more use, and every later call gives [`KvError::Abandoned`].
    pub async fn execute(&mut self, request: CommandRequest) -> Result<CommandResponse, KvError> {
        if self.awaiting {
            return Err(KvError::Abandoned);
        }
        self.framed.feed(request).await?;
        self.awaiting = true;
        let flushed = self.framed.flush().await;
        let response = match (self.framed.next().await, flushed) {
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
