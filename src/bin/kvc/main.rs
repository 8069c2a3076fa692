//! The client kvc: it runs the command of its command line and ends with an exit code. Without a
//! command it is a session, at a terminal or from a pipe.
//!
//! Standard output carries data and nothing else, so that it can be piped. Everything said about
//! the data goes to standard error, in lines of its own.
//!
//! Modules import downwards: `args` is the whole command line, below it are `repl` and the
//! `commands` (with `transfer` and `bench`, the two large ones), then `connection`, `input`,
//! `failure` and `output`.

// These macros panic if their stream cannot be written to.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bench;
#[path = "../../bounded_file.rs"]
mod bounded_file;
mod commands;
mod connection;
#[path = "../shared/encoding.rs"]
mod encoding;
mod failure;
mod help;
#[path = "../shared/hidden.rs"]
mod hidden;
mod input;
mod output;
mod repl;
#[path = "../shared/size.rs"]
mod size;
#[path = "../shared/streams.rs"]
mod streams;
#[path = "../shared/time.rs"]
mod time;
#[path = "../shared/toml_file.rs"]
mod toml_file;
mod transfer;
#[path = "../shared/usage.rs"]
mod usage;

use std::process::ExitCode;

use clap::CommandFactory;
use kv::abi::CommandRequest;
use tokio::runtime::{Builder, Runtime};

use args::Args;
use commands::answer::{Answer, Question};
use commands::scan::Part;
use commands::{Command, Remote, Task, completions, info, man, ping, subscribe};
use connection::{Options, connect, targets};
use failure::{Failure, Interface};
use input::literal::Literals;
use input::stdin;
use output::{Output, say};

fn main() -> ExitCode {
    match Args::load().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let help = match &failure {
                Failure::Usage { command, .. } => format!("; see {command} --help"),
                _ => String::new(),
            };
            if let Some(line) = failure.line() {
                say(&format!("{line}{help}"));
            }
            failure.exit_code()
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let Args {
        mut options,
        keep_going,
        command,
    } = args;
    check_streams(command.as_ref())?;
    if command.as_ref().is_none_or(Command::needs_server) {
        targets::apply(&mut options)?;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let Some(command) = command else {
        return repl::run(options, keep_going, runtime);
    };
    let ended = run_command(&options, command, &runtime);
    // A name may still be being resolved; do not wait for it.
    runtime.shutdown_background();
    ended
}

/// Fails if a stream that is needed was closed, before anything is asked: otherwise a write would
/// be executed and its answer lost.
fn check_streams(command: Option<&Command>) -> Result<(), Failure> {
    if command.is_none_or(Command::prints) {
        streams::stdout().map_err(|error| Failure::stdout(&error))?;
    }
    if command.is_none() {
        stdin::open()?;
    }
    Ok(())
}

fn run_command(options: &Options, command: Command, runtime: &Runtime) -> Result<(), Failure> {
    match command {
        Command::Remote(command) => run_remote(options, command, runtime),
        Command::Export(what) => runtime.block_on(transfer::export(options, &what)),
        Command::Import(what) => runtime.block_on(transfer::import(options, &what)),
        Command::Completions(what) => completions::print(&what, &options.target, Args::command()),
        Command::Man => man::print(Args::command()),
        Command::Bench(load) => runtime.block_on(bench::bench(options, &load)),
    }
}

fn run_remote(options: &Options, command: Remote, runtime: &Runtime) -> Result<(), Failure> {
    let (answer, note) = match command.task(&mut Literals::default())? {
        Task::Request(request) => runtime.block_on(ask(options, request))?,
        Task::Subscribe(what) => {
            let has_timeout = options.has_timeout_flag();
            return runtime.block_on(subscribe::subscribe(options, what, has_timeout));
        }
        Task::Ping(ping) => {
            let pong = runtime.block_on(ping::ping(options, &ping))?;
            (Answer::Report(pong), None)
        }
        Task::Info => (Answer::Report(runtime.block_on(info::info(options))?), None),
    };
    answer.print(Output::to_stdout(options.output))?;
    if let Some(note) = note {
        say(&note);
    }
    Ok(())
}

/// The answer to a request, and a note to print after it.
async fn ask(
    options: &Options,
    request: CommandRequest,
) -> Result<(Answer, Option<String>), Failure> {
    let question = Question::from(&request);
    let client = connect(options).await?;
    let mut response = connection::ask(&client, request, &options.addr, options.timeout).await?;
    let note = match Part::of(&question, &mut response) {
        Some(part) => part.note(&client, options, Interface::CommandLine).await,
        None => None,
    };
    // The answer is here: whether the server still sees the goodbye does not matter.
    client.close().await;
    Ok((Answer::Response(question, response), note))
}
