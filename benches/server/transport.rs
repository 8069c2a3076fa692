//! The connections of the load: TCP, or TLS over TCP.
//!
//! Both are read and written alike, blocking or not. Over TLS, one write makes as few records as
//! its length allows, and accepts all bytes: what the socket does not take at once is sent by the
//! next [`flush`](Write::flush). No session is resumed, because kvs does not resume any, so every
//! handshake is a full one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// How long to wait for a free local port.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// The pause before the next attempt.
const PORT_PAUSE: Duration = Duration::from_millis(1);

/// The address of a server, and whether it speaks TLS.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The TLS settings, if the server speaks TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A connection to a server, ready for requests.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

#[derive(Debug)]
pub(crate) struct Tls {
    session: ClientConnection,
    socket: TcpStream,
}

/// A client configuration that trusts this CA, given as PEM.
pub(crate) fn trusting(ca: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

impl Endpoint {
    /// Opens a blocking connection and completes the handshake.
    pub(crate) fn connect(&self) -> Transport {
        let socket = self.connect_socket();
        socket.set_nodelay(true).unwrap();
        match &self.tls {
            None => Transport::Tcp(socket),
            Some(config) => {
                let tls = Tls::connect(Arc::clone(config), self.address, socket);
                Transport::Tls(Box::new(tls))
            }
        }
    }

    /// Connects, and waits if all local ports are in use: a port is unusable for a second after its
    /// connection was closed.
    fn connect_socket(&self) -> TcpStream {
        let start = Instant::now();
        loop {
            match TcpStream::connect(self.address) {
                Err(error)
                    if error.kind() == ErrorKind::AddrNotAvailable
                        && start.elapsed() < PORT_PATIENCE =>
                {
                    thread::sleep(PORT_PAUSE);
                }
                connected => return connected.unwrap(),
            }
        }
    }

    /// Opens a non-blocking connection and completes the handshake.
    pub(crate) fn connect_nonblocking(&self) -> Transport {
        let transport = self.connect();
        transport.socket().set_nonblocking(true).unwrap();
        transport
    }
}

impl Transport {
    /// The socket, for epoll.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(data),
            Self::Tls(tls) => tls.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl Tls {
    fn connect(config: Arc<ClientConfig>, address: SocketAddr, mut socket: TcpStream) -> Self {
        let mut session = ClientConnection::new(config, address.ip().into()).unwrap();
        // Accept a whole batch at once, however long it is.
        session.set_buffer_limit(None);
        while session.is_handshaking() || session.wants_write() {
            session.complete_io(&mut socket).unwrap();
        }
        Self { session, socket }
    }

    /// Unlike rustls's own stream, this also reads while there is something to write: a server may
    /// not read on before the client takes its responses.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.session.wants_read() && self.session.read_tls(&mut self.socket)? > 0 {
            let processed = self.session.process_new_packets();
            processed.map_err(io::Error::other)?;
        }
        self.session.reader().read(buffer)
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // Send earlier bytes first, so that at most one write waits.
        self.flush()?;
        let len = self.session.writer().write(data)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(len),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // Say goodbye like real clients do; the server may be gone.
        self.session.send_close_notify();
        let _ = self.flush();
    }
}
