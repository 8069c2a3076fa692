//! The program: from arguments and settings to an exit code. The server itself is the library's.
//!
//! The storage is dropped before the process ends, even after an error, because sled writes its
//! memory to disk only then. So nothing here calls `exit` once a store is open, except after a
//! second signal. The process waits up to a second for the last lines of the log.

// These macros panic if their stream cannot be written to.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod args;
#[path = "../../bounded_file.rs"]
mod bounded_file;
mod cert;
mod config;
mod descriptors;
#[path = "../shared/encoding.rs"]
mod encoding;
mod failure;
#[path = "../shared/hidden.rs"]
mod hidden;
mod log;
mod notify;
mod remedy;
mod signals;
#[path = "../shared/size.rs"]
mod size;
mod start;
#[path = "../shared/streams.rs"]
mod streams;
#[path = "../shared/time.rs"]
mod time;
mod tls;
#[path = "../shared/toml_file.rs"]
mod toml_file;
#[path = "../shared/usage.rs"]
mod usage;
mod workers;

use std::env;
use std::net::SocketAddr;
use std::process::ExitCode;

use kv::{
    Endpoint, MemTable, Metrics, PendingService, Report, Server, ServerConfig, Service, SledDb,
    Storage, StorageChoice,
};
use mimalloc::MiMalloc;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use args::Task;
use cert::CertCommand;
use config::{ConfigError, Configuration};
use failure::{Failure, INTERRUPTED};
use log::{LogFormat, complain};
use signals::{Signal, Signals};
use start::{Sockets, Started};
use tls::{Reloader, Tls};
use workers::Workers;

/// A request allocates and frees a few small blocks, which costs a third of what it does with
/// glibc's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let _flush = log::Flush;
    let (ended, format) = match args::load(env::args_os(), env::vars_os()) {
        Ok(Task::Serve(configuration)) => (
            serve(&configuration),
            configuration.settings.observability.log_format,
        ),
        Ok(Task::CheckConfig(configuration)) => (confirm(&configuration), LogFormat::Text),
        Ok(Task::PrintDefaultConfig) => (print(&config::default_file()), LogFormat::Text),
        Ok(Task::MakeCertificates(command)) => (make_certificates(&command), LogFormat::Text),
        Err(ConfigError::Usage(error)) => refuse(&error),
        Err(error) => {
            complain(&Report(&error));
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

/// Reports a command line that is not understood, or prints the help that was asked for, and exits.
fn refuse(error: &clap::Error) -> ! {
    let command = args::command(env::args_os());
    // The flags of a subcommand have other meanings.
    match args::instead_of(error).filter(|_| command == "kvs") {
        Some(instead) => {
            let line = format!("{}; {instead}", usage::one_line(error));
            usage::refuse(&command, None, &line)
        }
        None => usage::end(&command, error),
    }
}

/// Says why kvs fails, in the format of the log.
fn report(failure: &Failure, format: LogFormat) {
    let line = format!("{}{}", Report(failure), failure.hint());
    match format {
        // Without a log, or with errors disabled, nothing can write JSON.
        LogFormat::Json if tracing::enabled!(tracing::Level::ERROR) => error!("{line}"),
        LogFormat::Json | LogFormat::Text => complain(&line),
    }
}

/// `--check-config`, with settings that are valid: checks the TLS files too, and names the sources.
fn confirm(configuration: &Configuration) -> Result<(), Failure> {
    start_log(configuration, None)?;
    let settings = &configuration.settings.tls;
    if let Some(tls) = Tls::load(settings).map_err(|error| Failure::tls(error, settings))? {
        tls.announce();
    }
    let sources = configuration.sources.join(", ");
    let sources = if sources.is_empty() {
        "all defaults"
    } else {
        &sources
    };
    print(&format!("kvs: the configuration is valid ({sources})\n"))
}

/// Prints to standard output. It is no error if the reader closes it early.
fn print(text: &str) -> Result<(), Failure> {
    streams::print(text.as_bytes()).map_err(Failure::Print)
}

fn make_certificates(command: &CertCommand) -> Result<(), Failure> {
    print(&cert::run(command)?).map_err(|failure| match failure {
        // The files exist by now. Say so, even if nothing else can be printed.
        Failure::Print(source) => Failure::PrintCertificates(source),
        other => other,
    })
}

fn start_log(configuration: &Configuration, metrics: Option<Metrics>) -> Result<(), Failure> {
    log::start(configuration.settings.observability.log_format, metrics)?;
    for (name, meant) in &configuration.unknown_variables {
        match meant {
            Some(meant) => {
                warn!("{name} is not a setting and has no effect; did you mean {meant}?");
            }
            None => warn!("{name} is not a setting and has no effect"),
        }
    }
    Ok(())
}

fn serve(configuration: &Configuration) -> Result<(), Failure> {
    let settings = &configuration.settings;
    let counts = settings.observability.metrics_listen.as_option().is_some();
    let metrics = counts.then(Metrics::new);
    start_log(configuration, metrics.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    // Before anything that can take long, so that a signal can stop it.
    let signals = Signals::catch(&runtime).map_err(Failure::Signals)?;
    let start = Start {
        configuration,
        runtime: &runtime,
        signals,
        metrics,
    };
    let ended = match &settings.server.storage {
        StorageChoice::Memory => serve_with(start, || Ok(MemTable::new())),
        StorageChoice::Sled(directory) => {
            let (directory, settings) = (directory.clone(), settings.sled_config());
            serve_with(start, move || {
                SledDb::open_with(directory, settings).map_err(Failure::Storage)
            })
        }
    };
    // Nothing is left to wait for: the storage is closed, or was never opened.
    runtime.shutdown_background();
    ended
}

/// What a server has before its storage is opened.
struct Start<'a> {
    configuration: &'a Configuration,
    runtime: &'a Runtime,
    signals: Signals,
    metrics: Option<Metrics>,
}

fn serve_with<S: Storage>(
    start: Start<'_>,
    open: impl FnOnce() -> Result<S, Failure> + Send + 'static,
) -> Result<(), Failure> {
    let settings = &start.configuration.settings;
    let threads = settings.server.threads.count();
    let config = start::fit_descriptors(settings.server_config(), threads);
    let workers = Workers::start(threads).map_err(|source| Failure::Threads { threads, source })?;
    let runtime = start.runtime;
    runtime.block_on(run(start, open, workers.handles(), config))
}

async fn run<S: Storage>(
    start: Start<'_>,
    open: impl FnOnce() -> Result<S, Failure> + Send + 'static,
    workers: &[Handle],
    config: ServerConfig,
) -> Result<(), Failure> {
    let Start {
        configuration,
        mut signals,
        metrics,
        ..
    } = start;
    let settings = &configuration.settings;
    let pending = PendingService::new();
    let Started {
        mut sockets,
        storage,
        tls,
        reloader,
    } = start::start(settings, config, &pending, open, &mut signals).await?;
    announce(&sockets, &config, tls.as_ref(), configuration);

    let mut service = Service::builder(storage);
    if let Some(metrics) = metrics {
        service = service.metrics(metrics);
    }
    let service = service.build();
    pending.set(service.clone());
    let last_handle = service.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let endpoint = match &tls {
        Some(tls) => Endpoint::tls(sockets.listener, tls.acceptor()),
        None => sockets.listener.into(),
    };
    let server = Server::builder(service)
        .listen(endpoint)
        .config(config)
        .runtimes(workers.iter().cloned())
        .serve(async {
            // The sender is dropped, and never sends.
            let _ = stopped.await;
        });
    tokio::pin!(server);
    notify::ready();
    tokio::select! {
        ended = &mut server => return Ok(ended?),
        signal = signal_to_stop(&mut signals, reloader.as_ref()) => info!(signal, "stopping"),
        // This is final. The last sync fails as well; its error is the last line of the log.
        _ = last_handle.failed() => error!("stopping because the storage has failed"),
    }
    notify::stopping();
    drop(stop);
    let closed = async {
        let served = server.await;
        // Probes are served until here, so that they can see that the server stops.
        sockets.http.shutdown().await;
        info!("closing the storage");
        // Even after an error, close the storage here, where a second signal can interrupt it.
        close(last_handle).await;
        served
    };
    tokio::select! {
        closed = closed => closed?,
        _ = second_signal(&mut signals, reloader.as_ref()) => {
            interrupted(settings.observability.log_format)
        }
    }
    info!("stopped");
    Ok(())
}

/// Ends the process at once. Dropping the storage would close it, which can take long. Confirmed
/// writes are on disk, and nothing else was promised.
fn interrupted(format: LogFormat) -> ! {
    report(&Failure::Interrupted, format);
    log::exit(INTERRUPTED)
}

/// Drops a service and its storage. This may take long: a store on disk reads all its files for
/// their checksums.
async fn close<S: Storage>(service: Service<S>) {
    // If no thread can be started, the closure is dropped, and the service with it.
    let dropped = tokio::task::spawn_blocking(move || drop(service)).await;
    if let Err(error) = dropped {
        error!(%error, "the storage was not closed cleanly");
    }
}

/// Waits for a signal that stops the server. Until then, each SIGHUP reloads the TLS files.
async fn signal_to_stop(signals: &mut Signals, reloader: Option<&Reloader>) -> &'static str {
    loop {
        match (signals.next().await, reloader) {
            (Signal::Stop(name), _) => return name,
            (Signal::Reload, Some(reloader)) => reloader.reload(),
            (Signal::Reload, None) => {
                info!("SIGHUP has no effect: TLS is off, and settings are read only at startup");
            }
        }
    }
}

/// Waits for the signal that interrupts a graceful shutdown.
async fn second_signal(signals: &mut Signals, reloader: Option<&Reloader>) {
    signals.forget_repeats().await;
    signal_to_stop(signals, reloader).await;
}

/// Logs what the server is, once it listens.
fn announce(
    sockets: &Sockets,
    config: &ServerConfig,
    tls: Option<&Tls>,
    configuration: &Configuration,
) {
    let settings = &configuration.settings;
    let (server, limits) = (&settings.server, &settings.limits);
    let sync = match server.storage {
        StorageChoice::Sled(_) => settings.disk.sync.to_string(),
        StorageChoice::Memory => "none".to_owned(),
    };
    let address = sockets.listener.local_addr().ok();
    let shown = |address: Option<SocketAddr>| address.map_or("off".into(), |a| a.to_string());
    info!(
        address = %shown(address),
        storage = %server.storage,
        %sync,
        threads = server.threads.count(),
        max_connections = config.max_connections(),
        max_frame_size = %limits.max_frame_size,
        max_message_size = %limits.max_message_size,
        max_buffered_bytes = %limits.max_buffered_bytes,
        subscriber_buffer = %settings.subscriptions.subscriber_buffer,
        slow_subscriber = %config.slow_subscriber(),
        tls = %tls.map_or("off", |tls| if tls.is_mutual() { "mutual" } else { "on" }),
        metrics = %shown(sockets.metrics),
        config = configuration.file.as_ref().map(|file| tracing::field::display(file.display())),
        "listening"
    );
    let open = address.filter(|address| !is_loopback(address));
    match (open, tls) {
        (Some(address), None) => warn!(
            %address,
            "listening on a non-loopback address without TLS or authentication: anyone who can \
             reach it can read and write everything"
        ),
        (Some(address), Some(tls)) if !tls.is_mutual() => warn!(
            %address,
            "listening on a non-loopback address without tls_client_ca, so without \
             authentication: anyone who can reach it can read and write everything"
        ),
        _ => {}
    }
    if let Some(tls) = tls {
        tls.announce();
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
