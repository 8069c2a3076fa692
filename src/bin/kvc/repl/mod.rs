//! Sessions: many commands in one run of kvc, over one connection.
//!
//! On a terminal there is a prompt, with a line editor in a thread of its own. From a pipe, lines
//! run as they come, and the first error ends the session. Both understand the commands of the
//! command line, and print the same output.

mod grammar;
mod lines;
mod names;
mod script;
mod session;
mod terminal;
mod usage;

use std::io::{self, IsTerminal};

use tokio::runtime::Runtime;

use crate::connection::Options;
use crate::failure::Failure;

/// Runs a session: on a terminal, or as a script from standard input.
pub(crate) fn run(options: Options, keep_going: bool, runtime: Runtime) -> Result<(), Failure> {
    let at_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let result = if at_terminal && !keep_going {
        runtime.block_on(terminal::run(options))
    } else {
        runtime.block_on(script::run(options, keep_going))
    };
    // A thread may still be waiting for a file or for a key.
    runtime.shutdown_background();
    result
}
