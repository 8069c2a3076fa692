//! The server: settings in, an exit code out. Everything between is the library's.
//!
//! The storage is dropped before the process ends, also after an error, because what sled has in memory is
//! written out then. So nothing here calls `exit` once a store is open.

mod default_file;
mod failure;
mod file;
mod log;
mod settings;
mod signals;
mod sources;
mod units;
#[path = "../shared/usage.rs"]
mod usage;
mod variables;
mod words;

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use kv::{KvError, MemTable, Report, Service, SledDb, Storage, StorageChoice};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use failure::Failure;
use log::LogFormat;
use signals::Signals;
use sources::{Configuration, ConfigurationError, Task};

fn main() -> ExitCode {
    let (ended, format) = match sources::load(env::args_os(), env::vars_os()) {
        Ok(Task::Serve(configuration)) => (
            serve_storage(&configuration),
            configuration.settings.observability.log_format,
        ),
        Ok(Task::CheckConfig(configuration)) => (confirm(&configuration), LogFormat::Text),
        Ok(Task::PrintDefaultConfig) => (print(&default_file::text()), LogFormat::Text),
        Err(ConfigurationError::Usage(error)) => usage::end("kvs", &error),
        Err(error) => {
            eprintln!("kvs: {}", Report(&error));
            return 2.into();
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, format);
            failure.exit_code()
        }
    }
}

/// Says why the server ends, in the form that whatever reads the log expects.
fn report(failure: &Failure, format: LogFormat) {
    let line = format!("{}{}", Report(failure), failure.hint());
    match (failure, format) {
        // Without a log there is nothing to write JSON with.
        (Failure::Log(_), _) | (_, LogFormat::Text) => eprintln!("kvs: {line}"),
        (_, LogFormat::Json) => error!("{line}"),
    }
}

/// What `--check-config` says when there is nothing to say.
fn confirm(configuration: &Configuration) -> Result<(), Failure> {
    start_log(configuration)?;
    let sources = configuration.sources.join(", ");
    let sources = if sources.is_empty() {
        "all defaults"
    } else {
        &sources
    };
    print(&format!("kvs: the configuration is valid ({sources})\n"))
}

/// Prints to standard output; a reader that has seen enough is no error.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Print(error)),
        _ => Ok(()),
    }
}

fn start_log(configuration: &Configuration) -> Result<(), Failure> {
    log::start(configuration.settings.observability.log_format)?;
    for (name, meant) in &configuration.unknown_variables {
        match meant {
            Some(meant) => warn!("{name} is no setting and has no effect; did you mean {meant}?"),
            None => warn!("{name} is no setting and has no effect"),
        }
    }
    Ok(())
}

fn serve_storage(configuration: &Configuration) -> Result<(), Failure> {
    start_log(configuration)?;
    match &configuration.settings.server.storage {
        StorageChoice::Memory => serve(MemTable::new(), configuration),
        StorageChoice::Sled(directory) => {
            let storage = SledDb::open(directory).map_err(KvError::from)?;
            serve(storage, configuration)
        }
    }
}

fn serve(storage: impl Storage, configuration: &Configuration) -> Result<(), Failure> {
    let settings = &configuration.settings;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.server.threads.count())
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(Failure::Signals)?;
        let listener = kv::listen(settings.server.listen.as_str()).await?;
        if let Ok(address) = listener.local_addr() {
            announce(address, configuration);
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let service = Service::new(storage);
        let server = kv::serve(listener, service, settings.server_config(), async {
            // Dropped, not sent to.
            let _ = stopped.await;
        });
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

/// Says what the server is, once it listens.
fn announce(address: SocketAddr, configuration: &Configuration) {
    let settings = &configuration.settings;
    let (server, limits) = (&settings.server, &settings.limits);
    info!(
        %address,
        storage = %server.storage,
        threads = server.threads.count(),
        max_connections = %limits.max_connections,
        max_frame_size = %limits.max_frame_size,
        max_message_size = %limits.max_message_size,
        max_buffered_bytes = %limits.max_buffered_bytes,
        tls = %"off",
        metrics = %settings.observability.metrics_listen,
        config = configuration.file.as_ref().map(|file| tracing::field::display(file.display())),
        "listening"
    );
    if !address.ip().to_canonical().is_loopback() {
        warn!(
            %address,
            "this is no loopback address, and there is neither TLS nor authentication: \
             whoever reaches it can read and write everything"
        );
    }
}
