//! Builds a [`Service`] with its hooks.

use std::sync::Arc;

use super::hooks::Hooks;
use super::session::Peer;
use super::{Inner, Service};
use crate::abi::{CommandRequest, CommandResponse};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::storage::{DefaultStorage, Storage};

/// Adds hooks to a [`Service`].
///
/// Any number of each kind can be added. They run in the order of their registration, in the task
/// of the connection, which waits for them. A hook that panics ends its connection: requests that
/// were executed but not answered stay unanswered.
///
/// For each request the hooks run in this order: `on_received`, `on_request`, `on_executed`,
/// `on_before_send`, `on_after_send`. Messages are built only for kinds of hooks that are
/// registered.
///
/// Hooks see requests and their responses. They do not see pushes: a published message passes
/// `on_received` once, as the `Publish` of its sender.
///
/// A request that could not be read reaches neither `on_received` nor `on_request`. If a server
/// skips it for lack of memory, the other hooks see the response, status 503. If it breaks the
/// protocol, no hook sees the error that the client is sent before the connection is closed.
#[derive(Debug)]
#[must_use = "a builder does nothing before it is built"]
pub struct ServiceBuilder<S = DefaultStorage> {
    storage: S,
    hooks: Hooks,
    metrics: Option<Metrics>,
}

impl<S: Storage> ServiceBuilder<S> {
    pub(super) fn new(storage: S) -> Self {
        Self {
            storage,
            hooks: Hooks::default(),
            metrics: None,
        }
    }

    /// Counts requests and more in these metrics. Without them nothing is counted, which saves
    /// reading the clock.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Adds a hook that sees each request before it is checked and executed.
    pub fn on_received(mut self, hook: impl Fn(&CommandRequest) + Send + Sync + 'static) -> Self {
        self.hooks.on_received.push(Box::new(hook));
        self
    }

    /// Adds a hook that may refuse a request that is about to be executed. The first refusal
    /// counts; it becomes the response, and the request is not executed.
    ///
    /// A service that is read-only for everyone but one address:
    ///
    /// ```
    /// use std::net::{IpAddr, Ipv4Addr};
    ///
    /// use kv::{Command, Effect, MemTable, Refusal, Service};
    ///
    /// const ADMIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
    ///
    /// let service = Service::builder(MemTable::new())
    ///     .on_request(|peer, request| {
    ///         let writes = request.command().map(Command::effect) == Some(Effect::Write);
    ///         let is_admin = peer.address().is_some_and(|address| address.ip() == ADMIN);
    ///         if writes && !is_admin {
    ///             return Err(Refusal::forbidden("this server is read-only"));
    ///         }
    ///         Ok(())
    ///     })
    ///     .build();
    /// # use kv::CommandRequest;
    /// # futures::executor::block_on(async {
    /// # let response = service.execute(CommandRequest::new_hset("t", "k", 1.into())).await;
    /// # assert_eq!((response.status, &*response.message), (403, "this server is read-only"));
    /// # assert_eq!(service.execute(CommandRequest::new_hget("t", "k")).await.status, 404);
    /// # });
    /// ```
    pub fn on_request(
        mut self,
        hook: impl Fn(&Peer, &CommandRequest) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_request.push(Box::new(hook));
        self
    }

    /// Adds a hook that sees each response before it is confirmed: the result of the command, or
    /// the error.
    pub fn on_executed(mut self, hook: impl Fn(&CommandResponse) + Send + Sync + 'static) -> Self {
        self.hooks.on_executed.push(Box::new(hook));
        self
    }

    /// Adds a hook that sees each response once it is confirmed, and may change it before it is
    /// sent.
    ///
    /// It must not turn the response into a push by setting
    /// [`subscription`](CommandResponse::subscription), which would leave the request without a
    /// response. The client gets [`HookMadePush`](crate::KvError::HookMadePush), status 500,
    /// instead of such a response, and an error is logged.
    pub fn on_before_send(
        mut self,
        hook: impl Fn(&mut CommandResponse) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_before_send.push(Box::new(hook));
        self
    }

    /// Adds a hook that sees each response after the operating system has taken all of its bytes,
    /// and no response that could not be sent. Only a server calls it: a caller of
    /// [`Service::execute`] sends the response itself.
    pub fn on_after_send(
        mut self,
        hook: impl Fn(&CommandResponse) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_after_send.push(Box::new(hook));
        self
    }

    /// Builds the service.
    pub fn build(self) -> Service<S> {
        Service {
            inner: Arc::new(Inner::new(self.storage, self.hooks, self.metrics)),
        }
    }
}
