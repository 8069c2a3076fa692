//! The wire format: one frame is one protobuf message.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-------------------------------------------------------------+
//! |Z|            length of the payload, 31 bits, big endian        |
//! +-+-------------------------------------------------------------+
//! |  payload: one protobuf message; gzip-compressed where Z = 1    |
//! +----------------------------------------------------------------+
//! ```
//!
//! [`ProstCodec`] implements all of it, as a `Decoder` and an `Encoder` for
//! [`Framed`](tokio_util::codec::Framed). It does no I/O. All it knows about the messages is that
//! prost can encode and decode them, and which of their fields are repeated.

mod config;
mod error;
mod frame_head;
mod gzip;
mod header;
mod prost_codec;
mod shape;

#[cfg(feature = "server")]
mod in_place;
#[cfg(feature = "server")]
mod prepared;

pub use config::{CodecConfig, Compression};
pub use error::{DecodeError, EncodeError, Foreign};
pub use frame_head::FrameHead;
pub use prost_codec::ProstCodec;
pub use shape::{Shape, Shaped};

#[cfg(feature = "server")]
pub(crate) use prepared::Prepared;
#[cfg(feature = "server")]
pub(crate) use prost_codec::grown;
