//! What can go wrong with a frame, split by whose fault it is: what came in ([`DecodeError`]) is the
//! peer's, what was to go out ([`EncodeError`]) is ours.

use std::fmt;
use std::io;

use thiserror::Error;

/// A frame that was received breaks a rule, or the connection broke. It is the end of the stream: where
/// the next frame would start is not known, or cannot be trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The header announces a payload over the limit. Nothing was reserved for it.
    #[error("frame of {len} bytes exceeds the limit of {limit} bytes{}", Foreign::hint(.foreign))]
    FrameTooLarge {
        /// The length that the header announces, in bytes.
        len: usize,
        /// [`CodecConfig::max_frame_len`](super::CodecConfig::max_frame_len).
        limit: usize,
        /// The other protocol that the header looks like, if it does.
        foreign: Option<Foreign>,
    },
    /// What was received begins as another protocol does, and cannot be a frame.
    #[error("this is not a frame of kv: it looks like {protocol}")]
    Foreign {
        /// The other protocol.
        protocol: Foreign,
    },
    /// The header of a plain frame, or the gzip trailer of a compressed one, announces a message over the
    /// limit. Nothing was reserved for it.
    #[error("message of {len} bytes exceeds the limit of {limit} bytes")]
    MessageTooLarge {
        /// The length of the message, in bytes.
        len: usize,
        /// [`CodecConfig::max_message_len`](super::CodecConfig::max_message_len).
        limit: usize,
    },
    /// The repeated fields of the message have more elements than the limit. None was decoded.
    #[error("message of {count} elements exceeds the limit of {limit} elements")]
    TooManyElements {
        /// The number of elements.
        count: usize,
        /// [`CodecConfig::max_elements`](super::CodecConfig::max_elements).
        limit: usize,
    },
    /// The compressed payload is no valid gzip member.
    #[error("payload is not valid gzip")]
    InvalidGzip(#[source] io::Error),
    /// The gzip trailer announces another length than the payload inflates to, or than so few bytes
    /// could inflate to.
    #[error(
        "gzip trailer says {declared} bytes, which {payload} bytes of payload do not inflate to"
    )]
    WrongGzipLength {
        /// The length that the trailer announces, in bytes.
        declared: usize,
        /// The length of the payload, in bytes.
        payload: usize,
    },
    /// There are bytes after the gzip member; a second member counts as such.
    #[error("{len} bytes follow the gzip member")]
    TrailingBytes {
        /// How many bytes there are.
        len: usize,
    },
    /// The payload is no valid message.
    #[error("payload is not a valid message")]
    InvalidMessage(#[source] prost::DecodeError),
    /// The peer closed the connection inside a frame.
    #[error("connection closed inside a frame: got {have} of {need} bytes")]
    Truncated {
        /// How many bytes of the frame were received, header included.
        have: usize,
        /// How many bytes the frame has, header included; 4 where even the header is incomplete.
        need: usize,
    },
    /// Reading from the connection failed.
    #[error("cannot read from the connection")]
    Io(#[from] io::Error),
}

/// A message that cannot be sent. The write buffer is as it was before.
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
    /// The repeated fields of the message have more elements than the limit.
    #[error("message of {count} elements exceeds the limit of {limit} elements")]
    TooManyElements {
        /// The number of elements.
        count: usize,
        /// [`CodecConfig::max_elements`](super::CodecConfig::max_elements).
        limit: usize,
    },
    /// The payload, compressed where that makes it smaller, is over the limit.
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
    /// A command of Redis's protocol.
    Redis,
    /// yamux, which carries several streams on one connection.
    Yamux,
    /// Frames of the same form that have a flag in bit 30 of the header, which belongs to the
    /// length in kv.
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
                "a frame that is not kv's, with a flag in bit 30 of its header; kv has one in bit 31 alone"
            }
        })
    }
}
