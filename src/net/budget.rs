//! The memory that all connections share for large frames and large answers.
//!
//! What is held is held by a [`Held`], so that a connection that ends in whatever way gives it back.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::metrics::Metrics;

/// So many bytes and no more. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    total: usize,
    metrics: Option<Metrics>,
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    permit: Option<OwnedSemaphorePermit>,
    budget: Budget,
}

impl Budget {
    /// A semaphore takes at most so many permits at a time: 4 GiB, which is more than two frames can have.
    const MOST: usize = u32::MAX as usize;

    pub(super) fn new(bytes: usize, metrics: Option<Metrics>) -> Self {
        let total = bytes.min(Self::MOST);
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
            metrics,
        }
    }

    /// Holds nothing yet.
    pub(super) fn hold(&self) -> Held {
        Held {
            permit: None,
            budget: self.clone(),
        }
    }

    fn report(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.set_buffered(self.total - self.free.available_permits());
        }
    }
}

impl Held {
    /// Holds so many bytes more, if they are free. What is more than there are in all counts as all.
    pub(super) fn try_more(&mut self, bytes: usize) -> bool {
        match Arc::clone(&self.budget.free).try_acquire_many_owned(self.permits(bytes)) {
            Ok(permit) => {
                self.keep(permit);
                true
            }
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => false,
        }
    }

    /// Waits for so many bytes more. Who waits must hold nothing.
    pub(super) async fn wait(&mut self, bytes: usize) {
        debug_assert!(
            self.permit.is_none(),
            "those who wait would wait for each other"
        );
        let permits = self.permits(bytes);
        if let Ok(permit) = Arc::clone(&self.budget.free)
            .acquire_many_owned(permits)
            .await
        {
            self.keep(permit);
        }
    }

    /// Holds as much of it as is free, for what is there already and cannot be refused.
    pub(super) fn more_at_best(&mut self, bytes: usize) {
        while !self.try_more(bytes.min(self.budget.free.available_permits())) {}
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        if self.permit.take().is_some() {
            self.budget.report();
        }
    }

    fn keep(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        self.budget.report();
    }

    #[expect(clippy::cast_possible_truncation, reason = "the total fits")]
    fn permits(&self, bytes: usize) -> u32 {
        bytes.min(self.budget.total) as u32
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}
