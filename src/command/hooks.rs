//! The closures that run around every command.
//!
//! They are kept in the order of their registration and never change once the service is built, so
//! that running them takes no lock. Requests and responses become messages only for the kinds of
//! hooks that are registered.

use std::fmt;

use tracing::error;

use super::session::Peer;
use crate::abi::{CommandRequest, CommandResponse};
use crate::error::{KvError, Refusal};
use crate::throttle::Throttle;

type Hook<T> = Box<dyn Fn(&T) + Send + Sync>;
type ChangingHook<T> = Box<dyn Fn(&mut T) + Send + Sync>;
type RefusingHook = Box<dyn Fn(&Peer, &CommandRequest) -> Result<(), Refusal> + Send + Sync>;

pub(crate) struct Hooks {
    pub(super) on_received: Vec<Hook<CommandRequest>>,
    pub(super) on_request: Vec<RefusingHook>,
    pub(super) on_executed: Vec<Hook<CommandResponse>>,
    pub(super) on_before_send: Vec<ChangingHook<CommandResponse>>,
    pub(super) on_after_send: Vec<Hook<CommandResponse>>,
    complaints: Throttle,
}

impl Hooks {
    /// Whether requests have to be shown.
    #[inline]
    pub(super) fn see_requests(&self) -> bool {
        !self.on_received.is_empty() || !self.on_request.is_empty()
    }

    /// Whether responses have to be shown once they are executed.
    #[inline]
    pub(crate) fn see_executed(&self) -> bool {
        !self.on_executed.is_empty()
    }

    /// Whether responses have to be shown at all.
    #[inline]
    pub(crate) fn see_responses(&self) -> bool {
        self.see_executed() || self.change_responses() || self.see_after_send()
    }

    /// Whether responses can be changed before they are sent.
    #[inline]
    pub(crate) fn change_responses(&self) -> bool {
        !self.on_before_send.is_empty()
    }

    /// Whether responses have to be shown after they were sent.
    #[inline]
    pub(crate) fn see_after_send(&self) -> bool {
        !self.on_after_send.is_empty()
    }

    pub(super) fn received(&self, request: &CommandRequest) {
        self.on_received.iter().for_each(|hook| hook(request));
    }

    pub(super) fn permit(&self, peer: &Peer, request: &CommandRequest) -> Result<(), Refusal> {
        self.on_request
            .iter()
            .try_for_each(|hook| hook(peer, request))
    }

    pub(crate) fn executed(&self, response: &CommandResponse) {
        self.on_executed.iter().for_each(|hook| hook(response));
    }

    /// A hook can change everything about a response, but cannot turn it into a push: the client
    /// would wait for ever.
    pub(crate) fn before_send(&self, response: &mut CommandResponse) {
        self.on_before_send.iter().for_each(|hook| hook(response));
        if response.is_push() {
            if let Some(suppressed) = self.complaints.pass() {
                error!(
                    subscription = response.subscription,
                    suppressed,
                    "a hook turned an answer into a push; the client was sent a 500 instead"
                );
            }
            *response = KvError::HookMadePush.response();
        }
    }

    /// Called for each response once its bytes are sent.
    pub(crate) fn after_send(&self, response: &CommandResponse) {
        self.on_after_send.iter().for_each(|hook| hook(response));
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            on_received: Vec::new(),
            on_request: Vec::new(),
            on_executed: Vec::new(),
            on_before_send: Vec::new(),
            on_after_send: Vec::new(),
            complaints: Throttle::per_second(),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_received", &self.on_received.len())
            .field("on_request", &self.on_request.len())
            .field("on_executed", &self.on_executed.len())
            .field("on_before_send", &self.on_before_send.len())
            .field("on_after_send", &self.on_after_send.len())
            .finish()
    }
}
