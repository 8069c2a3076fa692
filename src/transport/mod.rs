//! What both ends of a connection share: reading frames, TCP socket options, and the shapes of the
//! messages.

pub(crate) mod frames;
mod shapes;
pub(crate) mod tcp;
