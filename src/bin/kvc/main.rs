//! The client: a command line in, what the server answers on standard output, an exit code out.
//!
//! One run is one request, or what comes of subscriptions; without a command it is a session, at a terminal or from a
//! pipe. Standard output has data and nothing else, so that it can
//! be piped; everything that is said about it goes to standard error, in lines of their own.

mod answer;
mod args;
mod connection;
mod failure;
mod json;
mod listen;
mod literal;
mod messages;
mod output;
mod repl;
mod tls;
#[path = "../shared/usage.rs"]
mod usage;

use std::process::ExitCode;

use kv::abi::{CommandRequest, CommandResponse};

use args::{Args, Asked};
use connection::{connect, within};
use failure::Failure;
use literal::Literals;
use output::Output;

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
                eprintln!("kvc: {line}{help}");
            }
            failure.exit_code()
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let Some(command) = &args.command else {
        return repl::run(args, runtime);
    };
    match command.asked(Literals::default())? {
        Asked::Answer(request) => {
            let response = runtime.block_on(ask(&args, request))?;
            answer::print(command, response, Output::to_stdout(args.output))
        }
        Asked::Messages(which) => runtime.block_on(listen::listen(&args, which)),
    }
}

async fn ask(args: &Args, request: CommandRequest) -> Result<CommandResponse, Failure> {
    let client = connect(args).await?;
    let response = within(args, client.execute(request)).await?;
    // The answer is here: whether the server still hears the goodbye changes nothing.
    client.close().await;
    Ok(response)
}
