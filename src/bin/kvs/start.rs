//! Gets what a server needs before it serves: its sockets, its TLS files, and its storage.
//!
//! They come in this order because the first two fail fast and leave nothing behind, while a
//! storage may be created, or take minutes to open. Meanwhile clients can connect and wait, probes
//! learn that the server is starting, and a signal stops it at once.

use std::future::pending;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::thread;

use kv::{PendingService, ServeError, ServerConfig, Storage, StorageChoice};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::{Settings, TlsSettings};
use crate::failure::{Failure, port};
use crate::signals::Signals;
use crate::tls::{Reloader, Tls};
use crate::{descriptors, log, notify};

/// All that a server needs to serve.
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
    /// The address that serves metrics and probes, if any does.
    pub(crate) metrics: Option<SocketAddr>,
    /// The task that serves them.
    pub(crate) http: JoinSet<()>,
}

/// What comes from the disk.
struct Opened<S> {
    storage: S,
    tls: Option<Tls>,
    reloader: Option<Reloader>,
}

/// Listens, serves probes for the service that is not ready yet, and opens the storage. A signal to
/// stop ends the process.
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
        // If both are ready, go on, so that the opened storage is closed properly.
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
        Some(address) => {
            let metrics = listen_on(address.as_str(), "--metrics-listen").await;
            Some(metrics.map_err(|failure| blame_ourselves(failure, &listener))?)
        }
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
        ServeError::Listen { source, .. } => Failure::Listen {
            address: address.to_owned(),
            flag,
            source,
        },
        error => Failure::Serve(error),
    })
}

/// Names --listen if it has the port that --metrics-listen cannot have.
fn blame_ourselves(failure: Failure, listener: &TcpListener) -> Failure {
    match failure {
        Failure::Listen {
            address, source, ..
        } if source.kind() == ErrorKind::AddrInUse
            && listener.local_addr().ok().map(|ours| ours.port()) == port(&address) =>
        {
            Failure::SamePort { address, source }
        }
        other => other,
    }
}

/// Reads the TLS files and opens the storage, on a thread of its own because neither can be
/// interrupted.
async fn open_all<S: Storage>(
    settings: TlsSettings,
    open: impl FnOnce() -> Result<S, Failure> + Send + 'static,
) -> Result<Opened<S>, Failure> {
    let (sender, opened) = oneshot::channel();
    let all = move || {
        let tls = Tls::load(&settings).map_err(|error| Failure::tls(error, &settings))?;
        let reloader = tls.as_ref().map(Tls::start_reloader).transpose();
        Ok(Opened {
            reloader: reloader.map_err(Failure::Reloader)?,
            storage: open()?,
            tls,
        })
    };
    thread::Builder::new()
        .name("open".to_owned())
        // If nobody receives the result, the process is about to end.
        .spawn(move || drop(sender.send(all())))
        .map_err(Failure::Opener)?;
    opened.await.unwrap_or(Err(Failure::OpenerPanicked))
}

/// Ends a process that is still starting. The storage may be half open, but there is no need to
/// wait for it: no client has been promised anything, and a store survives a kill at any moment.
fn stop(signal: &str) -> ! {
    info!(signal, "stopping");
    notify::stopping();
    info!("stopped before startup was complete");
    log::exit(0)
}

/// Raises the open-file limit, and lowers `max_connections` to what fits it. Connections beyond
/// `max_connections` are answered with 503; without descriptors they would wait to be accepted.
pub(crate) fn fit_descriptors(config: ServerConfig, threads: usize) -> ServerConfig {
    let (limit, raised) = descriptors::raise_limit();
    if let Err(error) = raised {
        warn!(%error, "cannot raise the open-file limit");
    }
    let wanted = config.max_connections();
    let fitting = descriptors::fit(wanted, limit, threads);
    if fitting < wanted {
        warn!(
            max_connections = wanted,
            open_files = limit,
            "the open-file limit allows only {fitting} connections; raise it (ulimit -n, or \
             LimitNOFILE= in systemd), or lower max_connections"
        );
    }
    config.with_max_connections(fitting)
}
