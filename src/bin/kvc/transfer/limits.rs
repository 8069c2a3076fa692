//! The limits of the server, as far as it reports them.
//!
//! A row that the server would refuse is found before it is sent, so that nothing after it is
//! stored. A connection with nothing under way, because a file is slow, is kept from being idle for
//! too long.

use std::time::Duration;

use kv::abi::{CommandRequest, Kvpair, status, value};
use kv::{Client, CodecConfig, ServerConfig};

use super::ask::ask;
use crate::connection::Options;
use crate::connection::within;
use crate::failure::Failure;

/// The longest time without a request, even if the server would allow more: a middlebox may forget
/// the connection.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// The shortest such time, however little the server allows.
const MIN_IDLE: Duration = Duration::from_millis(1);

/// The fraction of the server's idle timeout after which something is asked.
const PARTS_OF_IDLE: u32 = 3;

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The longest name of a table, in bytes.
    pub(super) table: usize,
    /// The longest key, in bytes.
    pub(super) key: usize,
    /// The largest message, in bytes.
    pub(super) message: usize,
    /// The largest frame, in bytes: a message after compression.
    pub(super) frame: usize,
    /// The largest number of pairs in a message.
    pub(super) elements: usize,
    /// The longest time without a request.
    pub(super) idle: Duration,
}

impl Default for Limits {
    /// The limits of a server with default settings.
    fn default() -> Self {
        let (server, codec) = (ServerConfig::default(), CodecConfig::default());
        Self {
            table: server.max_table_name_len(),
            key: server.max_key_len(),
            message: codec.max_message_len(),
            frame: codec.max_frame_len(),
            elements: codec.max_elements(),
            idle: MAX_IDLE,
        }
    }
}

impl Limits {
    /// Asks the server. One that is older than `info` reports no limits.
    pub(super) async fn of(options: &Options, client: &Client) -> Result<Self, Failure> {
        let answer = ask(options, client, &CommandRequest::new_info()).await?;
        match answer.status {
            status::OK => Ok(Self::reported(&answer.pairs)),
            status::BAD_REQUEST => Ok(Self::unreported()),
            // The limits are too small for this answer, and perhaps for more than one row.
            status::TOO_LARGE => Ok(Self {
                elements: 1,
                ..Self::unreported()
            }),
            status => Err(Failure::Server {
                status,
                message: answer.message,
            }),
        }
    }

    /// The limits of a server that does not report them: the default sizes, and names of any
    /// length, because it refuses those that are too long and goes on.
    fn unreported() -> Self {
        Self {
            table: usize::MAX,
            key: usize::MAX,
            ..Self::default()
        }
    }

    fn reported(pairs: &[Kvpair]) -> Self {
        let mut limits = Self::default();
        // What is sent has to be within this side's limits too.
        let own = limits;
        for pair in pairs {
            let Some(Some(value::Value::Integer(reported))) =
                pair.value.as_ref().map(|value| &value.value)
            else {
                continue;
            };
            let reported = u64::try_from(*reported).unwrap_or(0);
            let size = usize::try_from(reported).unwrap_or(usize::MAX);
            match &*pair.key {
                "max_table_name_size" => limits.table = size,
                "max_key_size" => limits.key = size,
                "max_message_size" => limits.message = size.min(own.message),
                "max_frame_size" => limits.frame = size.min(own.frame),
                "max_elements" => limits.elements = size.min(own.elements),
                "idle_timeout_ms" => {
                    let idle = Duration::from_millis(reported) / PARTS_OF_IDLE;
                    limits.idle = idle.clamp(MIN_IDLE, MAX_IDLE);
                }
                _ => {}
            }
        }
        limits
    }
}

/// Sends a request, so that the connection is not idle. A server that does not know `ping` answers
/// as well.
pub(super) async fn keep_alive(options: &Options, client: &Client) -> Result<(), Failure> {
    let answer = within(options, client.execute(CommandRequest::new_ping())).await;
    answer.map(drop)
}
