//! The options of every command: which server, how to talk to it, and how to print what it answers.

use std::time::Duration;

use kv::{Address, DEFAULT_ADDRESS};

use super::compression::Compression;
use super::sources::TargetArgs;
use super::tls::TlsArgs;
use crate::failure::Failure;
use crate::input::number::positive;
use crate::output::Format;

/// The options of every command. Once [`targets::apply`](super::targets::apply) has run, they
/// include what the target says.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server's address; if a name has several, the first that accepts the connection
    #[arg(long, global = true, env = "KVC_ADDR", value_name = "HOST:PORT",
        default_value = DEFAULT_ADDRESS)]
    pub(crate) addr: Address,

    /// How long to wait for the connection, and then for the answer: 5s, 500ms, 2m
    #[arg(long, global = true, env = "KVC_TIMEOUT", value_name = "TIME", default_value = "5s",
        value_parser = positive)]
    pub(crate) timeout: Duration,

    /// How to print values
    #[arg(
        long,
        global = true,
        env = "KVC_OUTPUT",
        value_enum,
        default_value = "text"
    )]
    pub(crate) output: Format,

    /// Whether to compress long requests, and to accept compressed answers
    #[arg(
        long,
        global = true,
        env = "KVC_COMPRESSION",
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub(crate) compression: Compression,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

impl Options {
    /// The same options, but for the output format and the timeout.
    pub(crate) fn with(&self, output: Format, timeout: Duration) -> Self {
        Self {
            output,
            timeout,
            ..self.clone()
        }
    }

    /// Whether `--timeout` is on the command line.
    pub(crate) fn has_timeout_flag(&self) -> bool {
        self.target.sources.is_flag("timeout")
    }

    /// The failure of a request that got no answer within the timeout.
    pub(crate) fn timed_out(&self) -> Failure {
        Failure::timed_out(&self.addr, self.timeout, false)
    }
}
