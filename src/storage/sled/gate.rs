//! Who is inside sled.
//!
//! sled holds up every call while it makes a batch of changes, and a batch waits for every call
//! that is under way, of all stores of the process. A task that would have to wait for that inside
//! sled would hold up its thread. It waits here instead, in turn.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Held while a call into sled is made.
#[derive(Debug, Default)]
pub(super) struct Gate(RwLock<()>);

impl Gate {
    /// Waits until no batch is being made.
    pub(super) async fn enter(&self) -> RwLockReadGuard<'_, ()> {
        // Waiting counts against the budget of a tokio task even if there is nothing to wait for.
        match self.0.try_read() {
            Ok(entered) => entered,
            Err(_) => self.0.read().await,
        }
    }

    /// Waits until no call is under way: to make a batch.
    pub(super) async fn enter_alone(&self) -> RwLockWriteGuard<'_, ()> {
        match self.0.try_write() {
            Ok(entered) => entered,
            Err(_) => self.0.write().await,
        }
    }

    /// Like [`enter`](Self::enter), for a thread of our own.
    pub(super) fn wait(&self) -> RwLockReadGuard<'_, ()> {
        match self.0.try_read() {
            Ok(entered) => entered,
            Err(_) => self.0.blocking_read(),
        }
    }

    /// Like [`enter_alone`](Self::enter_alone), for a thread of our own, or while nobody else uses
    /// the store.
    pub(super) fn wait_alone(&self) -> RwLockWriteGuard<'_, ()> {
        match self.0.try_write() {
            Ok(entered) => entered,
            Err(_) => self.0.blocking_write(),
        }
    }
}
