//! Framing errors, split by whose fault they are: a [`DecodeError`] is the peer's, an
//! [`EncodeError`] is ours.

use std::fmt;
use std::io;

use thiserror::Error;

/// A received frame breaks a rule, or the connection broke. This ends the stream: the start of the
/// next frame is unknown or cannot be trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The header declares a payload over the limit. No memory was reserved for it.
    #[error("frame of {len} bytes exceeds the limit of {limit} bytes{}", Foreign::hint(.foreign))]
    FrameTooLarge {
        /// The length that the header declares, in bytes.
        len: usize,
        /// [`CodecConfig::max_frame_len`](super::CodecConfig::max_frame_len).
        limit: usize,
        /// The other protocol that the header looks like, if any.
        foreign: Option<Foreign>,
    },
    /// The received bytes start like another protocol and cannot be a frame.
    #[error("this is not a frame of kv: it looks like {protocol}")]
    Foreign {
        /// The other protocol.
        protocol: Foreign,
    },
    /// The header of an uncompressed frame, or the gzip trailer of a compressed one, declares a
    /// message over the limit. No memory was reserved for it.
    #[error("message of {len} bytes exceeds the limit of {limit} bytes")]
    MessageTooLarge {
        /// The length of the message, in bytes.
        len: usize,
        /// [`CodecConfig::max_message_len`](super::CodecConfig::max_message_len).
        limit: usize,
    },
    /// The message's repeated fields have more elements than the limit. The message was not
    /// decoded.
    #[error("message of {count} elements exceeds the limit of {limit} elements")]
    TooManyElements {
        /// The number of elements.
        count: usize,
        /// [`CodecConfig::max_elements`](super::CodecConfig::max_elements).
        limit: usize,
    },
    /// The compressed payload is not a valid gzip member.
    #[error("payload is not valid gzip")]
    InvalidGzip(#[source] io::Error),
    /// The length in the gzip trailer is not the length that the payload inflates to, or is more
    /// than a payload of this length can inflate to.
    #[error(
        "gzip trailer says {declared} bytes, which {payload} bytes of payload do not inflate to"
    )]
    WrongGzipLength {
        /// The length in the trailer, in bytes.
        declared: usize,
        /// The length of the payload, in bytes.
        payload: usize,
    },
    /// Bytes follow the gzip member, such as a second member.
    #[error("{len} bytes follow the gzip member")]
    TrailingBytes {
        /// How many bytes follow.
        len: usize,
    },
    /// The payload is not a valid message.
    #[error("payload is not a valid message")]
    InvalidMessage(#[source] prost::DecodeError),
    /// The peer closed the connection inside a frame.
    #[error("connection closed inside a frame: got {have} of {need} bytes")]
    Truncated {
        /// How many bytes of the frame were received, header included.
        have: usize,
        /// The length of the frame, header included; 4 if even the header is incomplete.
        need: usize,
    },
    /// Reading from the connection failed.
    #[error("cannot read from the connection")]
    Io(#[from] io::Error),
}

/// A message cannot be sent. The write buffer is left as it was before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The encoded message is over the limit.
    #[error("message of {len} bytes exceeds the limit of {limit} bytes")]
    MessageTooLarge {
        /// The length of the encoded message, in bytes.
        len: usize,
        /// [`CodecConfig::max_message_len`](super::CodecConfig::max_message_len).
        limit: usize,
    },
    /// The message's repeated fields have more elements than the limit.
    #[error("message of {count} elements exceeds the limit of {limit} elements")]
    TooManyElements {
        /// The number of elements.
        count: usize,
        /// [`CodecConfig::max_elements`](super::CodecConfig::max_elements).
        limit: usize,
    },
    /// The payload is over the limit, even after compression, if compression made it smaller.
    #[error("frame of {len} bytes exceeds the limit of {limit} bytes")]
    FrameTooLarge {
        /// The length of the payload, in bytes.
        len: usize,
        /// [`CodecConfig::max_frame_len`](super::CodecConfig::max_frame_len).
        limit: usize,
    },
    /// Writing to the connection failed.
    #[error("cannot write to the connection")]
    Io(#[from] io::Error),
}

/// Another protocol, recognised by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// An HTTP request or response.
    Http,
    /// A TLS handshake or alert.
    Tls,
    /// A Redis command.
    Redis,
    /// yamux, which multiplexes streams over one connection.
    Yamux,
    /// The same frame format with a flag in bit 30 of the header. In kv, that bit is part of the
    /// length.
    Bit30,
}

impl Foreign {
    fn hint(foreign: &Option<Self>) -> String {
        foreign
            .map(|foreign| format!(": it looks like {foreign}"))
            .unwrap_or_default()
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Redis => "a command for Redis",
            Self::Yamux => "yamux, which kv does not speak; connect without it",
            Self::Bit30 => {
                "a frame that is not kv's, with a flag in bit 30 of its header; \
                 kv has one in bit 31 alone"
            }
        })
    }
}
