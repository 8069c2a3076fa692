//! Connections that move from one runtime to another.
//!
//! A task belongs to the runtime that it was spawned on. The future in it does not: a connection that should be served
//! elsewhere waits where it stands, its task ends and gives the future back, and that is spawned where it should be.
//! There the socket is registered with the new runtime, and no longer with that before.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

/// The runtimes of a server, as its connections see them.
#[derive(Debug)]
pub(in crate::server) struct Runtimes {
    /// How many serve connections now: the first so many.
    active: AtomicUsize,
    /// How many requests each has answered.
    answered: Box<[Answered]>,
}

/// On cache lines of its own, because one thread writes it all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Answered(AtomicU64);

/// Where one connection is served, and where it should be. Known to whoever places it, to its task, and to its socket.
#[derive(Debug)]
pub(in crate::server) struct Place {
    /// Its number among those that the server accepted.
    number: usize,
    runtimes: Arc<Runtimes>,
    /// Which of them it was given to, and how many there were to choose from.
    index: AtomicUsize,
    among: AtomicUsize,
    is_leaving: AtomicBool,
    has_arrived: AtomicBool,
}

/// A connection's future, which its task gives back when it is to go on elsewhere.
pub(in crate::server) struct Movable {
    /// [`None`] once it was given back.
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    place: Arc<Place>,
}

impl Runtimes {
    /// So many, of which the first serves.
    pub(in crate::server) fn new(number: usize) -> Self {
        Self {
            active: AtomicUsize::new(1),
            answered: (0..number).map(|_| Answered::default()).collect(),
        }
    }

    /// How many serve.
    pub(in crate::server) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    /// So many serve from now on.
    pub(in crate::server) fn activate(&self, active: usize) {
        self.active.store(active, Relaxed);
    }

    /// How many requests they have answered.
    pub(in crate::server) fn answered(&self) -> u64 {
        let counts = self.answered.iter();
        counts.map(|answered| answered.0.load(Relaxed)).sum()
    }
}

impl Place {
    /// For the connection of this number.
    pub(in crate::server) fn new(number: usize, runtimes: Arc<Runtimes>) -> Self {
        Self {
            number,
            runtimes,
            index: AtomicUsize::new(0),
            among: AtomicUsize::new(0),
            is_leaving: AtomicBool::new(false),
            has_arrived: AtomicBool::new(false),
        }
    }

    /// Which runtime has to serve it from now on.
    pub(in crate::server) fn settle(&self) -> usize {
        let active = self.runtimes.active();
        let index = self.index(active);
        self.among.store(active, Relaxed);
        self.index.store(index, Relaxed);
        index
    }

    /// So many requests of it were answered.
    #[inline]
    pub(in crate::server) fn answered(&self, requests: usize) {
        if let Some(Answered(count)) = self.runtimes.answered.get(self.index.load(Relaxed)) {
            // Hardly anybody else writes it, and to miss some would not matter.
            count.store(count.load(Relaxed) + requests as u64, Relaxed);
        }
    }

    /// Whether another runtime should serve it.
    #[inline]
    pub(in crate::server) fn is_elsewhere(&self) -> bool {
        let active = self.runtimes.active();
        active != self.among.load(Relaxed) && self.must_move(active)
    }

    #[cold]
    fn must_move(&self, active: usize) -> bool {
        let must = self.index(active) != self.index.load(Relaxed);
        if !must {
            self.among.store(active, Relaxed);
        }
        must
    }

    fn index(&self, active: usize) -> usize {
        self.number.checked_rem(active).unwrap_or(0)
    }

    /// Is over once the connection is where it should be. Nothing else of it may wait for anything meanwhile.
    pub(in crate::server) async fn leave(&self) {
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
    pub(in crate::server) fn has_arrived(&self) -> bool {
        self.has_arrived.load(Relaxed) && self.has_arrived.swap(false, Relaxed)
    }
}

impl Movable {
    pub(in crate::server) fn new(
        connection: impl Future<Output = ()> + Send + 'static,
        place: Arc<Place>,
    ) -> Self {
        Self {
            connection: Some(Box::pin(connection)),
            place,
        }
    }

    pub(in crate::server) fn place(&self) -> &Place {
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
