//! The client: a command line in, what the server answers on standard output, an exit code out.
//!
//! One run is one request, what comes of subscriptions, tables as files, or a load to measure the server with; without a
//! command it is a session, at a terminal or from a pipe. Standard output has data and nothing else, so that it can be
//! piped; everything that is said about it goes to standard error, in lines of their own.

// These panic where their stream cannot be written to.
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

use kv::abi::{CommandRequest, CommandResponse};

use args::{Args, Asked, Command};
use commands::scan::Part;
use commands::{answer, completions, info, man, ping, subscribe};
use connection::{connect, targets};
use failure::{Failure, Place};
use input::literal::Literals;
use input::stdin;
use output::{Output, say};

fn main() -> ExitCode {
    let args = Args::load().unwrap_or_else(|error| usage::end("kvc", &error));
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let help = match failure {
                Failure::Usage(_) => "; see kvc --help",
                _ => "",
            };
            if let Some(line) = failure.line() {
                say(&format!("{line}{help}"));
            }
            failure.exit_code()
        }
    }
}

fn run(mut args: Args) -> Result<(), Failure> {
    check_streams(args.command.as_ref())?;
    if args.command.as_ref().is_none_or(Command::asks_a_server) {
        targets::apply(&mut args)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let Some(command) = &args.command else {
        return repl::run(args, runtime);
    };
    let print = |response| answer::print(command, response, Output::to_stdout(args.output));
    let ended = match command.asked(Literals::default())? {
        Asked::Answer(request) => match runtime.block_on(ask(&args, command, request)) {
            Ok((response, more)) => print(response).inspect(|()| {
                if let Some(line) = more {
                    say(&line);
                }
            }),
            Err(failure) => Err(failure),
        },
        Asked::Messages(which) => {
            runtime.block_on(subscribe::listen(&args, which, args.has_timeout()))
        }
        Asked::Pong(ping) => runtime.block_on(ping::ping(&args, ping)).and_then(print),
        Asked::Facts => runtime.block_on(info::info(&args)).and_then(print),
        Asked::Completions(Some(shell)) => completions::script(shell),
        Asked::Completions(None) => completions::targets(&args.target),
        Asked::Man => man::man(),
        Asked::Bench(load) => runtime.block_on(bench::bench(&args, load)),
        Asked::Export(what) => runtime.block_on(transfer::export(&args, what)),
        Asked::Import(what) => runtime.block_on(transfer::import(&args, what)),
    };
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    ended
}

/// Fails where a stream that is needed was closed: before anything is asked, because what a command changes would be
/// done, and its answer lost.
fn check_streams(command: Option<&Command>) -> Result<(), Failure> {
    if command.is_none_or(Command::prints) {
        streams::stdout().map_err(|error| Failure::unprinted(&error))?;
    }
    if command.is_none() {
        stdin::open()?;
    }
    Ok(())
}

/// The answer, and what is to be said behind it.
async fn ask(
    args: &Args,
    command: &Command,
    request: CommandRequest,
) -> Result<(CommandResponse, Option<String>), Failure> {
    let client = connect(args).await?;
    let mut response = connection::ask(&client, request, &args.addr, args.timeout).await?;
    let more = match Part::of(command, &mut response) {
        Some(part) => part.more(&client, args, Place::CommandLine).await,
        None => None,
    };
    // The answer is here: whether the server still hears the goodbye changes nothing.
    client.close().await;
    Ok((response, more))
}
