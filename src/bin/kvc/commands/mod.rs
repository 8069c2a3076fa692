//! The commands: how each is written, what it asks the server, and what is printed of the answer.
//!
//! A command is defined in one place: a variant of its family ([`hash`], [`pubsub`] or [`server`])
//! and the request that it makes. Help, completion, hints and the manual derive from the
//! definition; how the answer is read follows from the request (see [`answer`]).

pub(crate) mod answer;
pub(crate) mod completions;
mod hash;
pub(crate) mod info;
pub(crate) mod man;
pub(crate) mod ping;
mod pubsub;
pub(crate) mod scan;
mod server;
pub(crate) mod subscribe;

use clap::Subcommand;
use kv::abi::CommandRequest;

use self::completions::CompletionsArgs;
use self::hash::HashCommand;
use self::ping::PingArgs;
use self::pubsub::PubsubCommand;
use self::server::ServerCommand;
use self::subscribe::Subscription;
use crate::bench::BenchArgs;
use crate::failure::Failure;
use crate::input::literal::Literals;
use crate::transfer::{ExportArgs, ImportArgs};

/// A command of the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Remote(Remote),
    /// Write tables to standard output, as a backup or to import them elsewhere
    Export(ExportArgs),
    /// Store the rows of a file that export wrote, or of any file in the same format
    Import(ImportArgs),
    /// Print a shell's completion script for kvc
    #[command(after_help = completions::ABOUT)]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(after_help = man::ABOUT)]
    Man,
    Bench(BenchArgs),
}

/// A command that asks the server something. A session has these too.
#[derive(Debug, Subcommand)]
pub(crate) enum Remote {
    #[command(flatten)]
    Hash(HashCommand),
    #[command(flatten)]
    Pubsub(PubsubCommand),
    #[command(flatten)]
    Server(ServerCommand),
}

/// What a command asks the server.
#[derive(Debug)]
pub(crate) enum Task {
    /// One request, whose answer is printed.
    Request(CommandRequest),
    /// Subscriptions, whose messages are printed as they come.
    Subscribe(Subscription),
    /// A ping that retries or is timed.
    Ping(PingArgs),
    Info,
}

impl Command {
    /// Whether it matters which server is meant.
    pub(crate) fn needs_server(&self) -> bool {
        !matches!(self, Self::Completions(_) | Self::Man)
    }

    /// Whether it prints anything on standard output when it succeeds.
    pub(crate) fn prints(&self) -> bool {
        !matches!(self, Self::Import(_))
    }
}

impl Remote {
    /// What the command asks, with the values that come from files.
    pub(crate) fn task(self, literals: &mut Literals) -> Result<Task, Failure> {
        match self {
            Self::Hash(command) => command.request(literals).map(Task::Request),
            Self::Pubsub(command) => command.task(literals),
            Self::Server(command) => Ok(command.task()),
        }
    }
}
