//! The closures that run around every command.
//!
//! They are kept in the order of their registration and never change once the service is built, so that
//! running them takes no lock.

use std::fmt;

use tracing::error;

use crate::abi::{CommandRequest, CommandResponse};
use crate::error::KvError;
use crate::throttle::Throttle;

type Hook<T> = Box<dyn Fn(&T) + Send + Sync>;
type ChangingHook<T> = Box<dyn Fn(&mut T) + Send + Sync>;

pub(super) struct Hooks {
    pub(super) on_received: Vec<Hook<CommandRequest>>,
    pub(super) on_executed: Vec<Hook<CommandResponse>>,
    pub(super) on_before_send: Vec<ChangingHook<CommandResponse>>,
    pub(super) on_after_send: Vec<Hook<CommandResponse>>,
    complaints: Throttle,
}

impl Hooks {
    pub(super) fn received(&self, request: &CommandRequest) {
        self.on_received.iter().for_each(|hook| hook(request));
    }

    pub(super) fn executed(&self, response: &CommandResponse) {
        self.on_executed.iter().for_each(|hook| hook(response));
    }

    /// A hook can change everything about an answer, except that it is one: a client that gets a push in its place
    /// waits for ever.
    pub(super) fn before_send(&self, response: &mut CommandResponse) {
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

    pub(super) fn after_send(&self, response: &CommandResponse) {
        self.on_after_send.iter().for_each(|hook| hook(response));
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self {
            on_received,
            on_executed,
            on_before_send,
            on_after_send,
            complaints: _,
        } = self;
        on_received.is_empty()
            && on_executed.is_empty()
            && on_before_send.is_empty()
            && on_after_send.is_empty()
    }

    pub(super) fn has_after_send(&self) -> bool {
        !self.on_after_send.is_empty()
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            on_received: Vec::new(),
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
            .field("on_executed", &self.on_executed.len())
            .field("on_before_send", &self.on_before_send.len())
            .field("on_after_send", &self.on_after_send.len())
            .finish()
    }
}
