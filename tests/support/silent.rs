//! An address that neither accepts nor refuses connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// How many connections to begin. The backlog holds one or two.
const CONNECTIONS: usize = 4;

/// Listens with a full backlog, so that clients get no response.
#[derive(Debug)]
pub(crate) struct Silent {
    _listener: Socket,
    _connections: Vec<Socket>,
    /// The address.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) address: SocketAddr,
}

impl Silent {
    /// Returns [`None`] if this address cannot be listened on.
    pub(crate) fn at(address: SocketAddr) -> Option<Self> {
        let socket = || Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&address.into()).ok()?;
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connections = (0..CONNECTIONS).map(|_| {
            let connection = socket();
            connection.set_nonblocking(true).unwrap();
            // The connection is in progress when this returns an error. It fills the backlog for
            // good, because nobody accepts it.
            let _ = connection.connect(&address.into());
            connection
        });
        let connections = connections.collect();
        Some(Self {
            _listener: listener,
            _connections: connections,
            address,
        })
    }
}
