//! Connections that move from one runtime to another.
//!
//! A task belongs to the runtime that it was spawned on. The future in it does not: a connection that should be served
//! elsewhere waits where it stands, its task ends and gives the future back, and that is spawned where it should be.
//! Once there, the socket asks the new runtime for itself; what it was registered for before is forgotten.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

/// Where one connection is served, and where it should be. Known to whoever places it, to its task, and to its socket.
#[derive(Debug)]
pub(super) struct Place {
    /// The how manieth connection it is.
    number: usize,
    /// How many runtimes serve connections now: the first so many.
    active: Arc<AtomicUsize>,
    /// How many that were when it was placed.
    among: AtomicUsize,
    is_leaving: AtomicBool,
    has_arrived: AtomicBool,
}

/// A connection's future, which its task gives back when it is to go on elsewhere.
pub(super) struct Movable {
    /// [`None`] once it was given back.
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    place: Arc<Place>,
}

impl Place {
    /// For the connection of this number, among as many runtimes as `active` says.
    pub(super) fn new(number: usize, active: &Arc<AtomicUsize>) -> Self {
        Self {
            number,
            active: Arc::clone(active),
            among: AtomicUsize::new(0),
            is_leaving: AtomicBool::new(false),
            has_arrived: AtomicBool::new(false),
        }
    }

    /// Which runtime has to serve it from now on.
    pub(super) fn settle(&self) -> usize {
        let active = self.active.load(Relaxed);
        self.among.store(active, Relaxed);
        self.index(active)
    }

    /// Whether another runtime should serve it.
    #[inline]
    pub(super) fn is_elsewhere(&self) -> bool {
        let (active, among) = (self.active.load(Relaxed), self.among.load(Relaxed));
        active != among && self.must_move(active, among)
    }

    #[cold]
    fn must_move(&self, active: usize, among: usize) -> bool {
        let must = self.index(active) != self.index(among);
        if !must {
            self.among.store(active, Relaxed);
        }
        must
    }

    fn index(&self, active: usize) -> usize {
        self.number.checked_rem(active).unwrap_or(0)
    }

    /// Is over once the connection is where it should be. Nothing else of it may wait for anything meanwhile.
    pub(super) async fn leave(&self) {
        let mut left = false;
        poll_fn(|_| {
            if mem::replace(&mut left, true) {
                self.has_arrived.store(true, Relaxed);
                return Poll::Ready(());
            }
            self.is_leaving.store(true, Relaxed);
            Poll::Pending
        })
        .await;
    }

    /// Whether it has come to another runtime since this was asked last.
    #[inline]
    pub(super) fn has_arrived(&self) -> bool {
        self.has_arrived.load(Relaxed) && self.has_arrived.swap(false, Relaxed)
    }
}

impl Movable {
    pub(super) fn new(
        connection: impl Future<Output = ()> + Send + 'static,
        place: Arc<Place>,
    ) -> Self {
        Self {
            connection: Some(Box::pin(connection)),
            place,
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl Future for Movable {
    /// The rest of the connection, where it is not over.
    type Output = Option<Self>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self>> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(None);
        };
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if !this.place.is_leaving.load(Relaxed) {
            return Poll::Pending;
        }
        this.place.is_leaving.store(false, Relaxed);
        Poll::Ready(Some(Self {
            connection: this.connection.take(),
            place: Arc::clone(&this.place),
        }))
    }
}
