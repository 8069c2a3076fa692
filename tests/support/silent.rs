//! An address that neither takes a connection nor refuses one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// How many connections are begun, of which the backlog holds one or two.
const CONNECTIONS: usize = 4;

/// Listens with a backlog that is full, so that whoever connects hears nothing.
#[derive(Debug)]
pub(crate) struct Silent {
    _listener: Socket,
    _connections: Vec<Socket>,
    /// Where it is.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) address: SocketAddr,
}

impl Silent {
    /// Nothing where this address cannot be listened on.
    pub(crate) fn at(address: SocketAddr) -> Option<Self> {
        let socket = || Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&address.into()).ok()?;
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connections = (0..CONNECTIONS).map(|_| {
            let connection = socket();
            connection.set_nonblocking(true).unwrap();
            // It is under way when this gives an error, and the backlog does not empty: nobody accepts.
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
