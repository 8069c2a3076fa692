//! The values that labels take. Each set is closed, so that no client can make the metrics grow.

use crate::abi::status;
use crate::codec::{DecodeError, Foreign};
#[cfg(feature = "tls")]
use crate::tls::HandshakeError;

/// The statuses that have a counter of their own; any other, which only a hook can bring about, is
/// counted as `other`.
pub(super) const STATUSES: [u32; 6] = [
    status::OK,
    status::BAD_REQUEST,
    status::NOT_FOUND,
    status::TOO_LARGE,
    status::INTERNAL_ERROR,
    status::UNAVAILABLE,
];

/// The labels of [`STATUSES`], and of any other.
pub(super) const STATUS_LABELS: [&str; STATUSES.len() + 1] =
    ["200", "400", "404", "413", "500", "503", "other"];

/// The place behind [`STATUSES`].
pub(super) const OTHER_STATUS: usize = STATUSES.len();

/// A label whose values are the variants of an enum, in the order of `ALL`.
pub(crate) trait Labels: Sized + Copy + 'static {
    const ALL: &'static [Self];

    fn name(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$doc:meta])* $label:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $label {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Labels for $label {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

labels! {
    /// Why a connection was turned away.
    Rejection {
        /// There were as many as there may be.
        MaxConnections = "max_connections",
    }
}

labels! {
    /// What a client did against the rules of the wire format.
    ProtocolError {
        FrameTooLarge = "frame_too_large",
        MessageTooLarge = "message_too_large",
        TooManyElements = "too_many_elements",
        InvalidGzip = "invalid_gzip",
        InvalidMessage = "invalid_message",
        /// The connection was closed inside a frame.
        Truncated = "truncated",
        /// A frame took longer than `frame_timeout`.
        FrameTimeout = "frame_timeout",
        /// The frame is an HTTP request.
        Http = "http",
        /// The frame is a TLS hello.
        Tls = "tls",
        /// The frame is a command of Redis's protocol.
        Redis = "redis",
        /// The frame is one of yamux.
        Yamux = "yamux",
        Other = "other",
    }
}

labels! {
    /// What there was no memory for under `max_buffered_bytes`.
    Overload {
        /// A large frame, which was thrown away.
        Request = "request",
        /// A large answer, in whose place 503 was sent.
        Answer = "answer",
    }
}

#[cfg(feature = "tls")]
labels! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// The client does not speak TLS.
        NotTls = "not_tls",
        /// The client closed the connection.
        Closed = "closed",
        /// It took longer than `tls_handshake_timeout`.
        Timeout = "timeout",
        /// The client presented no certificate, and has to.
        NoCertificate = "no_client_certificate",
        /// The client's certificate is from a CA that is not trusted.
        UnknownCa = "unknown_client_ca",
        /// The client's certificate expired, or is not valid yet.
        Expired = "client_certificate_expired",
        /// Something else is wrong with the client's certificate.
        InvalidCertificate = "invalid_client_certificate",
        /// The client does not accept the server's certificate.
        Refused = "server_certificate_refused",
        /// Client and server have no version or algorithm in common.
        Incompatible = "incompatible",
        Other = "other",
    }
}

labels! {
    /// What a subscription is for.
    SubscriptionKind {
        /// One topic.
        Topic = "topic",
        /// Every topic that a pattern matches.
        Pattern = "pattern",
    }
}

labels! {
    /// How a connection came to its end.
    Ending {
        /// The client has closed it.
        Closed = "closed",
        /// The server was stopped.
        Stopped = "stopped",
        /// It broke, or the client went away without a word.
        Broken = "broken",
        /// The client broke a rule of the wire format.
        ProtocolError = "protocol_error",
        /// There was no TLS handshake.
        TlsHandshake = "tls_handshake",
        /// It was idle for longer than `idle_timeout`.
        IdleTimeout = "idle_timeout",
        /// The client took no answers for longer than `write_timeout`.
        WriteTimeout = "write_timeout",
        /// More messages came for it than may wait.
        SlowSubscriber = "slow_subscriber",
        /// A hook panicked, or the server could not wait for it any longer.
        Dropped = "dropped",
    }
}

impl From<&DecodeError> for ProtocolError {
    fn from(error: &DecodeError) -> Self {
        match error {
            DecodeError::Foreign { protocol: foreign }
            | DecodeError::FrameTooLarge {
                foreign: Some(foreign),
                ..
            } => match foreign {
                Foreign::Http => Self::Http,
                Foreign::Tls => Self::Tls,
                Foreign::Redis => Self::Redis,
                Foreign::Yamux => Self::Yamux,
                Foreign::Bit30 => Self::FrameTooLarge,
            },
            DecodeError::FrameTooLarge { foreign: None, .. } => Self::FrameTooLarge,
            DecodeError::MessageTooLarge { .. } => Self::MessageTooLarge,
            DecodeError::TooManyElements { .. } => Self::TooManyElements,
            DecodeError::InvalidGzip(_)
            | DecodeError::WrongGzipLength { .. }
            | DecodeError::TrailingBytes { .. } => Self::InvalidGzip,
            DecodeError::InvalidMessage(_) => Self::InvalidMessage,
            DecodeError::Truncated { .. } => Self::Truncated,
            DecodeError::Io(_) => Self::Other,
        }
    }
}

#[cfg(feature = "tls")]
impl From<&HandshakeError> for HandshakeFailure {
    fn from(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::NotTls => Self::NotTls,
            HandshakeError::Closed => Self::Closed,
            HandshakeError::Timeout { .. } => Self::Timeout,
            HandshakeError::NoCertificate => Self::NoCertificate,
            HandshakeError::UnknownCa => Self::UnknownCa,
            HandshakeError::Expired { .. } | HandshakeError::NotYetValid { .. } => Self::Expired,
            HandshakeError::InvalidCertificate { .. } | HandshakeError::WrongName { .. } => {
                Self::InvalidCertificate
            }
            HandshakeError::CertificateRequired | HandshakeError::CertificateRefused { .. } => {
                Self::Refused
            }
            HandshakeError::Incompatible(_) => Self::Incompatible,
            HandshakeError::Protocol(_) | HandshakeError::Io(_) => Self::Other,
        }
    }
}
