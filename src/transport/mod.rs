//! What both ends of a connection share: reading frames, TCP socket options, and the shapes of the
//! messages.

#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod frames;
mod shapes;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod tcp;
