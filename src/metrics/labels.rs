//! The values of metric labels. Every set is fixed, so clients cannot create new time series.

use crate::abi::status;
use crate::codec::{DecodeError, Foreign};

/// The statuses that have their own counter. Any other status counts as `other`; only hooks can
/// produce one.
pub(super) const STATUSES: [u32; 9] = [
    status::OK,
    status::BAD_REQUEST,
    status::UNAUTHORIZED,
    status::FORBIDDEN,
    status::NOT_FOUND,
    status::TOO_LARGE,
    status::TOO_MANY_REQUESTS,
    status::INTERNAL_ERROR,
    status::UNAVAILABLE,
];

/// The labels of [`STATUSES`], in order, then `other`.
pub(super) const STATUS_LABELS: [&str; STATUSES.len() + 1] = [
    "200", "400", "401", "403", "404", "413", "429", "500", "503", "other",
];

/// Index of `other` in [`STATUS_LABELS`].
pub(super) const OTHER_STATUS: usize = STATUSES.len();

/// A label whose values are the variants of an enum. `ALL` lists them in declaration order.
pub(crate) trait Labels: Sized + Copy + 'static {
    const ALL: &'static [Self];

    fn name(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$doc:meta])* $label:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+
    }) => {
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
    /// Why a connection was rejected.
    Rejection {
        /// `max_connections` was reached.
        MaxConnections = "max_connections",
        /// The connections of one address reached `connection_share`.
        ConnectionShare = "connection_share",
    }
}

labels! {
    /// How a client broke the wire format.
    ProtocolError {
        FrameTooLarge = "frame_too_large",
        MessageTooLarge = "message_too_large",
        TooManyElements = "too_many_elements",
        InvalidGzip = "invalid_gzip",
        InvalidMessage = "invalid_message",
        /// The client closed the connection inside a frame.
        Truncated = "truncated",
        /// A frame took longer than `frame_timeout`.
        FrameTimeout = "frame_timeout",
        /// The frame is an HTTP request.
        Http = "http",
        /// The frame is a TLS ClientHello.
        Tls = "tls",
        /// The frame is a Redis command.
        Redis = "redis",
        /// The frame is a yamux frame.
        Yamux = "yamux",
        Other = "other",
    }
}

labels! {
    /// What did not fit under `max_buffered_bytes`.
    Overload {
        /// A large frame; it was discarded.
        Request = "request",
        /// A large response; 503 was sent instead.
        Answer = "answer",
    }
}

#[cfg(feature = "tls")]
labels! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// The client does not speak TLS.
        NotTls = "not_tls",
        /// The client closed the connection during the handshake.
        Closed = "closed",
        /// The handshake took longer than `tls_handshake_timeout`.
        Timeout = "timeout",
        /// The client did not present the certificate that the server requires.
        NoCertificate = "no_client_certificate",
        /// The client's certificate was issued by an untrusted CA.
        UnknownCa = "unknown_client_ca",
        /// The client's certificate has expired or is not valid yet.
        Expired = "client_certificate_expired",
        /// The client's certificate is invalid for another reason.
        InvalidCertificate = "invalid_client_certificate",
        /// The client rejected the server's certificate.
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
    /// Why a connection ended.
    Ending {
        /// The client closed it.
        Closed = "closed",
        /// The server stopped.
        Stopped = "stopped",
        /// Reading or writing failed, for example because the client disappeared.
        Broken = "broken",
        /// The client broke the wire format.
        ProtocolError = "protocol_error",
        /// The TLS handshake failed.
        TlsHandshake = "tls_handshake",
        /// It was idle for longer than `idle_timeout`.
        IdleTimeout = "idle_timeout",
        /// The client read no responses for longer than `write_timeout`.
        WriteTimeout = "write_timeout",
        /// More messages were waiting for it than the limits allow.
        SlowSubscriber = "slow_subscriber",
        /// A hook panicked, or the connection did not end before the server had to stop.
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
