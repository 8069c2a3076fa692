//! The client: a command line in, what the server answers on standard output, an exit code out.
//!
//! One run is one request. Standard output has data and nothing else, so that it can be piped; everything
//! that is said about it goes to standard error, on one line.

mod args;
mod failure;
mod literal;
mod output;
mod tls;
#[path = "../shared/usage.rs"]
mod usage;

use std::process::ExitCode;

use kv::abi::{CommandRequest, CommandResponse, status};
use kv::{KvError, ProstClientStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use args::{Args, Command};
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

fn run(args: Args) -> Result<(), Failure> {
    let request = args.command.request()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let response = runtime.block_on(ask(&args, request))?;
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
    printed.map_err(|error| Failure::Local(format!("cannot write to standard output: {error}")))?;
    if negative {
        Err(Failure::Negative(None))
    } else {
        Ok(())
    }
}

async fn ask(args: &Args, request: CommandRequest) -> Result<CommandResponse, Failure> {
    let address = args.addr.as_str();
    match args.tls.connector()? {
        None => exchange(args, request, ProstClientStream::connect(address)).await,
        Some(connector) => {
            let connect = ProstClientStream::connect_tls(address, &connector);
            exchange(args, request, connect).await
        }
    }
}

async fn exchange<IO: AsyncRead + AsyncWrite + Unpin>(
    args: &Args,
    request: CommandRequest,
    connect: impl Future<Output = Result<ProstClientStream<IO>, KvError>>,
) -> Result<CommandResponse, Failure> {
    let failed = |error| Failure::from_client(error, &args.addr);
    let late = |_| Failure::TimedOut {
        address: args.addr.clone(),
        timeout: args.timeout,
    };
    let mut client = timeout(args.timeout, connect)
        .await
        .map_err(late)?
        .map_err(failed)?;
    let response = timeout(args.timeout, client.execute(request))
        .await
        .map_err(late)?
        .map_err(failed)?;
    // The answer is here: whether the server still hears the goodbye changes nothing.
    let _ = timeout(args.timeout, client.close()).await;
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
        | Command::Hset { .. }
        | Command::Hmset { .. }
        | Command::Hdel { .. }
        | Command::Hmdel { .. } => false,
    }
}
