//! The commands about the server itself.

use clap::Subcommand;
use kv::abi::CommandRequest;

use super::ping::PingArgs;
use super::{Task, info};

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Check that the server answers, and print pong
    Ping(PingArgs),
    /// Print the server's version, limits and counters, and the round trip to it
    #[command(after_help = info::ABOUT)]
    Info,
}

impl ServerCommand {
    pub(super) fn task(self) -> Task {
        match self {
            Self::Ping(ping) if ping.wait.is_none() && !ping.round_trip => {
                Task::Request(CommandRequest::new_ping())
            }
            Self::Ping(ping) => Task::Ping(ping),
            Self::Info => Task::Info,
        }
    }
}
