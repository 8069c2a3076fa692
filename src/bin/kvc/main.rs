//! The client: a command line in, what the server answers on standard output, an exit code out.
//!
//! One run is one request, what comes of subscriptions, or a load to measure the server with. Standard output has data
//! and nothing else, so that it can be piped; everything that is said about it goes to standard error, in lines of
//! their own.

mod args;
mod bench;
mod connection;
mod failure;
mod info;
mod json;
mod listen;
mod literal;
mod messages;
mod output;
mod pages;
mod ping;
mod rows;
mod targets;
mod tls;
#[path = "../shared/toml_file.rs"]
mod toml_file;
mod transfer;
#[path = "../shared/usage.rs"]
mod usage;

use std::process::ExitCode;

use kv::abi::{CommandRequest, CommandResponse, status};

use args::{Args, Asked, Command};
use connection::{connect, within};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let args = Args::load().unwrap_or_else(|error| usage::end("kvc", &error));
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line() {
                eprintln!("kvc: {line}");
            }
            failure.exit_code()
        }
    }
}

fn run(mut args: Args) -> Result<(), Failure> {
    if args.command.asks_a_server() {
        targets::apply(&mut args)?;
    }
    let asked = args.command.asked()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let ended = match asked {
        Asked::Answer(request) => runtime
            .block_on(ask(&args, request))
            .and_then(|response| print(&args, response)),
        Asked::Messages(which) => runtime.block_on(listen::listen(&args, which)),
        Asked::Pong(ping) => runtime
            .block_on(ping::ping(&args, ping))
            .and_then(|response| print(&args, response)),
        Asked::Facts => runtime.block_on(info::info(&args)),
        Asked::Completions(shell) => pages::completions(shell),
        Asked::Man => pages::man(),
        Asked::Bench(load) => runtime.block_on(bench::bench(&args, load)),
        Asked::Export(what) => runtime.block_on(transfer::export(&args, what)),
        Asked::Import(what) => runtime.block_on(transfer::import(&args, what)),
    };
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    ended
}

/// Prints an answer, if it is none of failure.
fn print(args: &Args, response: CommandResponse) -> Result<(), Failure> {
    match response.status {
        status::OK => {}
        status::NOT_FOUND => return Err(Failure::Negative(Some(response.message))),
        status => {
            return Err(Failure::Server {
                status,
                message: response.message,
            });
        }
    }
    let negative = is_negative(&args.command, &response);
    let printed = Output::to_stdout(args.output).print(response);
    printed.map_err(|error| Failure::unprinted(&error))?;
    if negative {
        Err(Failure::Negative(None))
    } else {
        Ok(())
    }
}

async fn ask(args: &Args, request: CommandRequest) -> Result<CommandResponse, Failure> {
    let client = connect(args).await?;
    let response = within(args, client.execute(request)).await?;
    // The answer is here: whether the server still hears the goodbye changes nothing.
    client.close().await;
    Ok(response)
}

/// Whether a question was answered with a no. A write has always done what it says.
fn is_negative(command: &Command, response: &CommandResponse) -> bool {
    match command {
        Command::Hget { .. } | Command::Hmget { .. } => {
            !response.values.iter().all(|value| value.is_set())
        }
        Command::Hexist { .. } | Command::Hmexist { .. } => !response
            .values
            .iter()
            .all(|value| bool::try_from(value) == Ok(true)),
        Command::Hgetall { .. }
        | Command::Hscan { .. }
        | Command::Export(_)
        | Command::Import(_)
        | Command::Hset { .. }
        | Command::Hmset { .. }
        | Command::Hdel { .. }
        | Command::Hmdel { .. }
        | Command::Publish { .. }
        | Command::Ping(_)
        | Command::Info
        | Command::Completions { .. }
        | Command::Man
        | Command::Bench(_)
        | Command::Subscribe { .. }
        | Command::Psubscribe { .. } => false,
    }
}
