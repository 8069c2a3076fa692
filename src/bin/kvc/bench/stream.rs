//! The connections of a load: raw bytes over TCP or TLS.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{future::poll_fn, io};

use kv::{Address, ClientError, ProstClientStream, TlsClientConnector, TlsClientStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use crate::connection::Compression;
use crate::failure::Failure;

/// The server, and how to connect to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) connector: Option<TlsClientConnector>,
    pub(crate) compression: Compression,
    /// For connecting, and for the next answer.
    pub(crate) timeout: Duration,
}

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsClientStream<TcpStream>>),
}

impl Endpoint {
    pub(crate) async fn connect(&self) -> Result<Stream, Failure> {
        let connected = timeout(self.timeout, self.connect_without_deadline()).await;
        let connected = connected.map_err(|_| self.timed_out())?;
        connected.map_err(|error| Failure::from_client(&error, &self.address))
    }

    /// The server did not answer in time.
    pub(crate) fn timed_out(&self) -> Failure {
        Failure::TimedOut {
            address: self.address.clone(),
            timeout: self.timeout,
        }
    }

    async fn connect_without_deadline(&self) -> Result<Stream, ClientError> {
        let address = self.address.as_str();
        let socket = kv::connect(address).await?;
        let Some(connector) = &self.connector else {
            let socket = self.negotiated(socket).await?;
            return Ok(Stream::Tcp(socket));
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = connector.connect(host, socket).await?;
        Ok(Stream::Tls(Box::new(self.negotiated(stream).await?)))
    }

    /// Asks the server to send uncompressed answers, if so configured.
    async fn negotiated<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut io: IO,
    ) -> Result<IO, ClientError> {
        if self.compression == Compression::Off {
            // Nothing follows this answer that could be lost with the client's buffer.
            let mut client = ProstClientStream::with_config(&mut io, self.compression.codec());
            client.ask_for_plain_answers().await?;
        }
        Ok(io)
    }
}

impl Stream {
    /// Reads into the buffer, and returns the number of bytes; 0 at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, &mut buffer),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, data),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, data),
        }
    }

    /// Sends what was written.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    /// Closes the connection, without waiting.
    pub(crate) async fn close(&mut self) {
        poll_fn(|context| {
            let _ = match self {
                Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
                Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            };
            Poll::Ready(())
        })
        .await;
    }
}
