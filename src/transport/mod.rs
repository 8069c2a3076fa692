//! What both ends of a connection share: frames read from a stream, settings of a TCP socket, and
//! the shape of the messages that travel.

pub(crate) mod frames;
mod shapes;
pub(crate) mod tcp;
