//! The server: settings in, an exit code out. Everything between is the library's.
//!
//! The storage is dropped before the process ends, also after an error, because what sled has in memory is
//! written out then. So nothing here calls `exit` once a store is open, but for a second signal.

// These panic where their stream cannot be written to.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cert;
mod default_file;
mod descriptors;
mod failure;
mod file;
mod log;
mod notify;
mod origins;
mod settings;
mod signals;
#[path = "../shared/size.rs"]
mod size;
mod sources;
#[path = "../shared/streams.rs"]
mod streams;
#[path = "../shared/time.rs"]
mod time;
mod tls;
#[path = "../shared/toml_file.rs"]
mod toml_file;
mod units;
#[path = "../shared/usage.rs"]
mod usage;
mod variables;
mod words;
mod workers;

use std::env;
use std::future::pending;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use kv::{
    Endpoint, KvError, MemTable, Metrics, Report, ServerConfig, Service, SledDb, Storage,
    StorageChoice,
};
use mimalloc::MiMalloc;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use cert::CertCommand;
use failure::{Failure, INTERRUPTED};
use log::LogFormat;
use signals::{Hangup, Signal, Signals};
use sources::{Configuration, ConfigurationError, Task};
use tls::{Reloader, Tls};
use workers::Workers;

/// A request takes and gives back a few small pieces of memory, which costs a third of what it does with that of glibc.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let (ended, format) = match sources::load(env::args_os(), env::vars_os()) {
        Ok(Task::Serve(configuration)) => (
            serve_storage(&configuration),
            configuration.settings.observability.log_format,
        ),
        Ok(Task::CheckConfig(configuration)) => (confirm(&configuration), LogFormat::Text),
        Ok(Task::PrintDefaultConfig) => (print(&default_file::text()), LogFormat::Text),
        Ok(Task::MakeCertificates(command)) => (make_certificates(&command), LogFormat::Text),
        Err(ConfigurationError::Usage(error)) => {
            usage::end(&sources::command(env::args_os()), &error)
        }
        Err(error) => {
            complain(&Report(&error));
            return 2.into();
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, format);
            if matches!(failure, Failure::Interrupted) {
                // At once: what was confirmed is on disk, and nothing else was promised.
                std::process::exit(INTERRUPTED.into());
            }
            failure.exit_code()
        }
    }
}

/// Says why the server ends, in the form that whatever reads the log expects.
fn report(failure: &Failure, format: LogFormat) {
    let line = format!("{}{}", Report(failure), failure.hint());
    match format {
        // Without a log, or with one that is told to be silent, there is nothing to write JSON with.
        LogFormat::Json if tracing::enabled!(tracing::Level::ERROR) => error!("{line}"),
        LogFormat::Json | LogFormat::Text => complain(&line),
    }
}

/// Writes to standard error. Where that cannot be written to, there is nowhere to say so.
fn complain(line: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "kvs: {line}");
}

/// What `--check-config` says when there is nothing to say.
fn confirm(configuration: &Configuration) -> Result<(), Failure> {
    start_log(configuration)?;
    if let Some(tls) = Tls::load(&configuration.settings.tls).map_err(Failure::Tls)? {
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

/// Prints to standard output; a reader that has seen enough is no error.
fn print(text: &str) -> Result<(), Failure> {
    streams::print(text.as_bytes()).map_err(Failure::Print)
}

fn make_certificates(command: &CertCommand) -> Result<(), Failure> {
    print(&cert::run(command)?).map_err(|failure| match failure {
        // They are there by then, which has to be told also where nothing else can be.
        Failure::Print(source) => Failure::PrintCertificates(source),
        other => other,
    })
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

/// What a server has before its storage.
struct Prepared {
    hangup: Hangup,
    tls: Option<Tls>,
}

fn serve_storage(configuration: &Configuration) -> Result<(), Failure> {
    start_log(configuration)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let prepared = Prepared {
        hangup: Hangup::catch(&runtime).map_err(Failure::Signals)?,
        // Before the storage, because it is quick and leaves nothing behind.
        tls: Tls::load(&configuration.settings.tls).map_err(Failure::Tls)?,
    };
    match &configuration.settings.server.storage {
        StorageChoice::Memory => serve(MemTable::new(), &runtime, prepared, configuration),
        StorageChoice::Sled(directory) => {
            let settings = configuration.settings.sled_config();
            let storage = SledDb::open_with(directory, settings).map_err(KvError::from)?;
            serve(storage, &runtime, prepared, configuration)
        }
    }
}

fn serve(
    storage: impl Storage,
    runtime: &Runtime,
    prepared: Prepared,
    configuration: &Configuration,
) -> Result<(), Failure> {
    let threads = configuration.settings.server.threads.count();
    let workers = Workers::start(threads).map_err(|source| Failure::Threads { threads, source })?;
    runtime.block_on(run(storage, prepared, workers.handles(), configuration))
}

async fn run(
    storage: impl Storage,
    Prepared { hangup, tls }: Prepared,
    workers: &[Handle],
    configuration: &Configuration,
) -> Result<(), Failure> {
    let settings = &configuration.settings;
    let mut signals = Signals::new(hangup).map_err(Failure::Signals)?;
    let config = fit_descriptors(settings.server_config(), workers.len());
    let listener = kv::listen(settings.server.listen.as_str()).await?;
    let metrics_listener = match settings.observability.metrics_listen.as_option() {
        Some(address) => Some(
            kv::listen(address.as_str())
                .await
                .map_err(Failure::Metrics)?,
        ),
        None => None,
    };
    let reloader = tls.as_ref().map(Tls::start_reloader).transpose();
    let reloader = reloader.map_err(Failure::Reloader)?;
    let metrics_address = metrics_listener.as_ref().and_then(|l| l.local_addr().ok());
    announce(
        &listener,
        metrics_address,
        &config,
        tls.as_ref(),
        configuration,
    );

    let mut service = Service::builder(storage);
    if metrics_listener.is_some() {
        service = service.metrics(Metrics::new());
    }
    let service = service.build();
    let last = service.clone();
    // Served until the end, so that it can be seen that the server stops.
    let mut metrics = JoinSet::new();
    if let Some(listener) = metrics_listener {
        metrics.spawn(kv::serve_http(listener, service.clone(), config, pending()));
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let endpoint = match &tls {
        Some(tls) => Endpoint::tls(listener, tls.acceptor()),
        None => listener.into(),
    };
    let server = kv::serve_on(workers, endpoint, service, config, async {
        // Dropped, not sent to.
        let _ = stopped.await;
    });
    tokio::pin!(server);
    notify::ready();
    let signal = tokio::select! {
        ended = &mut server => return Ok(ended?),
        signal = signal_to_stop(&mut signals, reloader.as_ref()) => signal,
    };
    info!(signal, "stopping");
    notify::stopping();
    drop(stop);
    let closed = async {
        server.await?;
        metrics.shutdown().await;
        close(last).await;
        Ok::<_, Failure>(())
    };
    tokio::select! {
        closed = closed => closed?,
        _ = signal_to_stop(&mut signals, reloader.as_ref()) => return Err(Failure::Interrupted),
    }
    info!("stopped");
    Ok(())
}

/// Drops a service, and so its storage, which may take a while: all of a store on disk is read, for its checksums.
async fn close<S: Storage>(service: Service<S>) {
    // Where there is no thread to be had, it is dropped all the same.
    let dropped = tokio::task::spawn_blocking(move || drop(service)).await;
    if let Err(error) = dropped {
        error!(%error, "the storage was not closed in good order");
    }
}

/// Waits for a signal that stops the server, and does what those before it ask for.
async fn signal_to_stop(signals: &mut Signals, reloader: Option<&Reloader>) -> &'static str {
    loop {
        match (signals.next().await, reloader) {
            (Signal::Stop(name), _) => return name,
            (Signal::Reload, Some(reloader)) => reloader.reload(),
            (Signal::Reload, None) => {
                info!(
                    "SIGHUP changes nothing: settings take effect at the start, and there is no TLS"
                );
            }
        }
    }
}

/// Makes room for as many connections as are allowed, or allows as many as there is room for: they are told
/// that there are too many, where otherwise they would wait to be accepted.
fn fit_descriptors(config: ServerConfig, threads: usize) -> ServerConfig {
    let (limit, raised) = descriptors::raise_limit();
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit of open files");
    }
    let wanted = config.max_connections();
    let fitting = descriptors::fitting(wanted, limit, threads);
    if fitting < wanted {
        warn!(
            max_connections = wanted,
            open_files = limit,
            "the limit of open files has room for {fitting} connections only; raise it \
             (ulimit -n, or LimitNOFILE= of systemd), or lower max_connections"
        );
    }
    config.with_max_connections(fitting)
}

/// Says what the server is, once it listens.
fn announce(
    listener: &TcpListener,
    metrics: Option<SocketAddr>,
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
    let address = |listener: &TcpListener| listener.local_addr().ok();
    let shown = |address: Option<SocketAddr>| address.map_or("off".into(), |a| a.to_string());
    info!(
        address = %shown(address(listener)),
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
        metrics = %shown(metrics),
        config = configuration.file.as_ref().map(|file| tracing::field::display(file.display())),
        "listening"
    );
    let open = address(listener).filter(|address| !is_loopback(address));
    match (open, tls) {
        (Some(address), None) => warn!(
            %address,
            "this is no loopback address, and there is neither TLS nor authentication: \
             whoever reaches it can read and write everything"
        ),
        (Some(address), Some(tls)) if !tls.is_mutual() => warn!(
            %address,
            "this is no loopback address, and without tls_client_ca there is no authentication: \
             whoever reaches it can read and write everything"
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
