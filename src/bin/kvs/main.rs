//! The server: arguments in, an exit code out. Everything between is the library's.
//!
//! The storage is dropped before the process ends, also after an error, because what sled has in memory is
//! written out then. So nothing here calls `exit` once a store is open.

mod signals;
#[path = "../shared/usage.rs"]
mod usage;

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use kv::{
    Address, DEFAULT_ADDRESS, DEFAULT_STORAGE, KvError, MemTable, Report, ServerConfig, Service,
    SledDb, Storage, StorageChoice, StorageError,
};
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::info;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use signals::Signals;

const AFTER_HELP: &str = "\
Logs go to standard error; RUST_LOG chooses what is logged (error, warn, info, debug, trace; or by
module, such as kv::net=debug). Unset, it is info.

SIGINT and SIGTERM stop the server in good order: every request that it has received is answered, and
the storage is synced. A second signal stops it at once.

Exit codes: 0 stopped in good order; 1 failed; 2 usage; 130 stopped by a second signal.";

/// A key-value server: named tables of typed values, in memory or on disk.
#[derive(Debug, Parser)]
#[command(name = "kvs", version, after_help = AFTER_HELP)]
struct Args {
    /// The address to listen on; port 0 takes a free one, which the log tells
    #[arg(long, env = "KVS_LISTEN", value_name = "HOST:PORT", default_value = DEFAULT_ADDRESS)]
    listen: Address,

    /// Where to keep the tables: sled:DIRECTORY, or memory, which is lost when the server stops
    #[arg(long, env = "KVS_STORAGE", default_value = DEFAULT_STORAGE)]
    storage: StorageChoice,
}

#[derive(Debug, Error)]
enum Failure {
    #[error("RUST_LOG={directives:?} is not understood: {error}")]
    Log {
        directives: String,
        error: tracing_subscriber::filter::ParseError,
    },
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("stopped by a second signal; what was being answered is not")]
    Interrupted,
}

fn main() -> ExitCode {
    let args: Args = usage::parse("kvs");
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kvs: {}{}", Report(&failure), failure.hint());
            failure.exit_code()
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    start_log()?;
    match &args.storage {
        StorageChoice::Memory => serve(MemTable::new(), &args),
        StorageChoice::Sled(directory) => {
            let storage = SledDb::open(directory).map_err(KvError::from)?;
            serve(storage, &args)
        }
    }
}

fn serve(storage: impl Storage, args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(Failure::Signals)?;
        let listener = kv::listen(args.listen.as_str()).await?;
        if let Ok(address) = listener.local_addr() {
            info!(%address, storage = %args.storage, "listening");
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let server = kv::serve(
            listener,
            Service::new(storage),
            ServerConfig::default(),
            async {
                // Dropped, not sent to.
                let _ = stopped.await;
            },
        );
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => return Ok(ended?),
            signal = signals.next() => info!(signal, "stopping"),
        }
        drop(stop);
        tokio::select! {
            ended = server => ended?,
            _ = signals.next() => return Err(Failure::Interrupted),
        }
        info!("stopped");
        Ok(())
    })
}

fn start_log() -> Result<(), Failure> {
    let directives = env::var("RUST_LOG").unwrap_or_default();
    let targets = if directives.is_empty() {
        Targets::new().with_default(LevelFilter::INFO)
    } else {
        let parsed = directives.parse();
        parsed.map_err(|error| Failure::Log { directives, error })?
    };
    let colour =
        io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(colour);
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .init();
    Ok(())
}

impl Failure {
    /// What to do about it, where that is known.
    fn hint(&self) -> &'static str {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        match self {
            Self::Kv(KvError::Socket { source, .. }) => match source.kind() {
                AddrInUse => {
                    "; stop the server that listens there, or choose another port with --listen"
                }
                AddrNotAvailable => "; choose an address of this machine with --listen",
                PermissionDenied => "; choose a port above 1023 with --listen",
                _ => "; check --listen",
            },
            Self::Kv(KvError::Storage(StorageError::InUse { .. })) => {
                "; stop that process, or choose another directory with --storage sled:DIRECTORY"
            }
            Self::Kv(KvError::Storage(StorageError::Open { .. })) => {
                "; --storage sled:DIRECTORY needs a directory that kvs can write, or make"
            }
            Self::Kv(KvError::Storage(StorageError::Sync { .. })) => {
                "; what was not confirmed may be lost"
            }
            _ => "",
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Log { .. } => 2.into(),
            Self::Interrupted => 130.into(),
            Self::Runtime(_) | Self::Signals(_) | Self::Kv(_) => 1.into(),
        }
    }
}
