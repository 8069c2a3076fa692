//! What a server needs before it serves: its sockets, its files of TLS, and its storage.
//!
//! In this order: what fails fast and leaves nothing behind comes before a storage, which may be made, or take minutes
//! to be opened. Meanwhile clients can connect, and wait to be served; the probes say that the server is starting; and a
//! signal stops it at once.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::thread;

use kv::{KvError, PendingService, ServerConfig, Storage, StorageChoice};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::{Settings, TlsSettings};
use crate::failure::Failure;
use crate::signals::Signals;
use crate::tls::{Reloader, Tls};
use crate::{descriptors, log, notify};

/// A server that can serve.
#[derive(Debug)]
pub(crate) struct Started<S> {
    pub(crate) sockets: Sockets,
    pub(crate) storage: S,
    pub(crate) tls: Option<Tls>,
    pub(crate) reloader: Option<Reloader>,
}

#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) listener: TcpListener,
    /// Where metrics and probes are served, if they are.
    pub(crate) metrics: Option<SocketAddr>,
    /// What serves them.
    pub(crate) http: JoinSet<()>,
}

/// What is read from disk.
struct Opened<S> {
    storage: S,
    tls: Option<Tls>,
    reloader: Option<Reloader>,
}

/// Listens, serves the probes of a service that is to come, and opens the storage. A signal to stop ends the process.
pub(crate) async fn start<S: Storage>(
    settings: &Settings,
    config: ServerConfig,
    service: &PendingService<S>,
    open: impl FnOnce() -> Result<S, Failure> + Send + 'static,
    signals: &mut Signals,
) -> Result<Started<S>, Failure> {
    let mut starting = pin!(async {
        let sockets = listen(settings, config, service).await?;
        let opened = open_all(settings.tls.clone(), open).await?;
        Ok(Started {
            sockets,
            storage: opened.storage,
            tls: opened.tls,
            reloader: opened.reloader,
        })
    });
    tokio::select! {
        // A storage that is open is closed in good order.
        biased;
        started = &mut starting => started,
        signal = signals.stop() => stop(signal),
    }
}

async fn listen<S: Storage>(
    settings: &Settings,
    config: ServerConfig,
    service: &PendingService<S>,
) -> Result<Sockets, Failure> {
    let listener = listen_on(settings.server.listen.as_str(), "--listen").await?;
    let metrics_listener = match settings.observability.metrics_listen.as_option() {
        Some(address) => Some(listen_on(address.as_str(), "--metrics-listen").await?),
        None => None,
    };
    let metrics = metrics_listener.as_ref().and_then(|l| l.local_addr().ok());
    if let StorageChoice::Sled(_) = settings.server.storage {
        info!(
            address = listener.local_addr().ok().map(tracing::field::display),
            metrics = metrics.map(tracing::field::display),
            storage = %settings.server.storage,
            "starting"
        );
    }
    let mut http = JoinSet::new();
    if let Some(listener) = metrics_listener {
        http.spawn(kv::serve_http(listener, service.clone(), config, pending()));
    }
    Ok(Sockets {
        listener,
        metrics,
        http,
    })
}

async fn listen_on(address: &str, flag: &'static str) -> Result<TcpListener, Failure> {
    kv::listen(address).await.map_err(|error| match error {
        KvError::Socket { source, .. } => Failure::Listen {
            address: address.to_owned(),
            flag,
            source,
        },
        error => Failure::Kv(error),
    })
}

/// Reads the files of TLS and opens the storage, on a thread of its own, because neither can be interrupted.
async fn open_all<S: Storage>(
    tls: TlsSettings,
    open: impl FnOnce() -> Result<S, Failure> + Send + 'static,
) -> Result<Opened<S>, Failure> {
    let (sender, opened) = oneshot::channel();
    let all = move || {
        let tls = Tls::load(&tls).map_err(Failure::Tls)?;
        let reloader = tls.as_ref().map(Tls::start_reloader).transpose();
        Ok(Opened {
            reloader: reloader.map_err(Failure::Reloader)?,
            storage: open()?,
            tls,
        })
    };
    thread::Builder::new()
        .name("open".to_owned())
        // Where nobody waits any more, the process is about to end.
        .spawn(move || drop(sender.send(all())))
        .map_err(Failure::Opener)?;
    opened.await.unwrap_or(Err(Failure::Opening))
}

/// Ends a process that is starting, because of this signal. The storage may be half open: that is not waited for, and
/// needs not be. Nothing has been promised to any client, and a store can be opened after a kill at any moment.
fn stop(signal: &str) -> ! {
    info!(signal, "stopping");
    notify::stopping();
    info!("stopped before it had started");
    log::exit(0)
}

/// Makes room for as many connections as are allowed, or allows as many as there is room for: they are told
/// that there are too many, where otherwise they would wait to be accepted.
pub(crate) fn fit_descriptors(config: ServerConfig, threads: usize) -> ServerConfig {
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
