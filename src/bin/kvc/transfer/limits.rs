//! What the server that is at the other end allows, as far as it tells.
//!
//! A row that it would refuse is found before it is sent, so that nothing behind it is stored; and a connection on
//! which nothing is under way, because a file comes slowly or goes slowly, is kept from being idle for too long.

use std::time::Duration;

use kv::abi::{CommandRequest, Kvpair, status, value};
use kv::{Client, CodecConfig, ServerConfig};

use super::ask::ask;
use crate::connection::Options;
use crate::connection::within;
use crate::failure::Failure;

/// How long a connection is idle at most, though the server would allow more: what stands between may forget it.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// How long it may be idle, however little the server allows.
const MIN_IDLE: Duration = Duration::from_millis(1);

/// Into how many parts the time is cut that a connection may be idle.
const PARTS_OF_IDLE: u32 = 3;

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many bytes the name of a table may have.
    pub(super) table: usize,
    /// How many bytes a key may have.
    pub(super) key: usize,
    /// How many bytes a message may have.
    pub(super) message: usize,
    /// How many bytes a frame may have: a message that is compressed, if that makes it smaller.
    pub(super) frame: usize,
    /// How many pairs a message may have.
    pub(super) elements: usize,
    /// For how long nothing is asked at most.
    pub(super) idle: Duration,
}

impl Default for Limits {
    /// Those of a server that is set up for nothing else.
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
    /// Asks the server. One that is older than the question has what names it has.
    pub(super) async fn of(options: &Options, client: &Client) -> Result<Self, Failure> {
        let answer = ask(options, client, &CommandRequest::new_info()).await?;
        match answer.status {
            status::OK => Ok(Self::told(&answer.pairs)),
            status::BAD_REQUEST => Ok(Self::untold()),
            // They are too small for this answer, and perhaps for more than a row.
            status::TOO_LARGE => Ok(Self {
                elements: 1,
                ..Self::untold()
            }),
            status => Err(Failure::Server {
                status,
                message: answer.message,
            }),
        }
    }

    /// For a server that does not tell its limits: the usual sizes, and any names, because it refuses those that are too
    /// long and goes on.
    fn untold() -> Self {
        Self {
            table: usize::MAX,
            key: usize::MAX,
            ..Self::default()
        }
    }

    fn told(pairs: &[Kvpair]) -> Self {
        let mut limits = Self::default();
        // What is sent has to be within the limits of this side too.
        let own = limits;
        for pair in pairs {
            let Some(Some(value::Value::Integer(told))) =
                pair.value.as_ref().map(|value| &value.value)
            else {
                continue;
            };
            let told = u64::try_from(*told).unwrap_or(0);
            let size = usize::try_from(told).unwrap_or(usize::MAX);
            match &*pair.key {
                "max_table_name_size" => limits.table = size,
                "max_key_size" => limits.key = size,
                "max_message_size" => limits.message = size.min(own.message),
                "max_frame_size" => limits.frame = size.min(own.frame),
                "max_elements" => limits.elements = size.min(own.elements),
                "idle_timeout_ms" => {
                    let idle = Duration::from_millis(told) / PARTS_OF_IDLE;
                    limits.idle = idle.clamp(MIN_IDLE, MAX_IDLE);
                }
                _ => {}
            }
        }
        limits
    }
}

/// Asks something, so that the connection is not idle. A server that is older than the question answers as well.
pub(super) async fn keep_alive(options: &Options, client: &Client) -> Result<(), Failure> {
    let answer = within(options, client.execute(CommandRequest::new_ping())).await;
    answer.map(drop)
}
