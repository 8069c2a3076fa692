//! Makes pages one at a time, and each for everyone who waits for one.
//!
//! However many clients ask, no more than one core makes pages, and kvs holds one page for all who
//! got the same one. Nobody gets a page that was begun before they asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use hyper::body::Bytes;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};

/// Shares pages among those who ask at the same time.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Orders the moments at which pages are asked for and begun.
    clock: AtomicU64,
    last: Arc<Mutex<Last>>,
}

#[derive(Debug, Default)]
struct Last {
    begun: u64,
    page: Option<Bytes>,
}

impl Pages {
    /// Returns a page that was begun after this call: one that `make` makes on a blocking thread,
    /// or one that somebody else waited for as well.
    pub(super) async fn page<E: Send + 'static>(
        &self,
        make: impl FnOnce() -> Result<String, E> + Send + 'static,
    ) -> Result<Result<Bytes, E>, JoinError> {
        let asked = self.clock.fetch_add(1, SeqCst);
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if last.begun > asked
            && let Some(page) = &last.page
        {
            return Ok(Ok(page.clone()));
        }
        last.page = None;
        last.begun = self.clock.fetch_add(1, SeqCst);
        // The lock goes with the closure, which runs to its end even if nobody waits for it.
        let made = spawn_blocking(move || {
            // Boxed, so that it takes no more memory than its length.
            let page = Bytes::from(make()?.into_boxed_str().into_boxed_bytes());
            last.page = Some(page.clone());
            Ok(page)
        });
        made.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn makes_one_page_for_all_who_wait_while_another_is_made() {
        let pages = Pages::default();
        let made = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel();
        let count = |made: &Arc<AtomicUsize>| {
            let made = Arc::clone(made);
            move || made.fetch_add(1, SeqCst)
        };
        let first = {
            let count = count(&made);
            pages.page(move || {
                released.recv().unwrap();
                Ok::<_, ()>(format!("page {}", count()))
            })
        };
        let others = (0..100).map(|_| {
            let count = count(&made);
            pages.page(move || Ok::<_, ()>(format!("page {}", count())))
        });
        // All of them are polled once before the first page is made.
        let release = async { release.send(()).unwrap() };
        let (first, others, ()) = futures::join!(first, join_all(others), release);
        assert_eq!(first.unwrap().unwrap(), "page 0");
        for page in others {
            assert_eq!(page.unwrap().unwrap(), "page 1");
        }
        // A later request gets a page of its own.
        let count = count(&made);
        let later = pages.page(move || Ok::<_, ()>(format!("page {}", count())));
        assert_eq!(later.await.unwrap().unwrap(), "page 2");
    }

    #[tokio::test]
    async fn makes_another_page_after_a_failure() {
        let pages = Pages::default();
        let failed = pages.page(|| Err("no memory")).await.unwrap();
        assert_eq!(failed, Err("no memory"));
        let page = pages.page(|| Ok::<_, ()>("page".to_owned())).await;
        assert_eq!(page.unwrap().unwrap(), "page");
    }

    #[tokio::test]
    async fn makes_no_second_page_while_an_abandoned_one_is_being_made() {
        let pages = Pages::default();
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let abandoned = pages.page(move || {
            begin.send(()).unwrap();
            released.recv().unwrap();
            Ok::<_, ()>(String::new())
        });
        assert!(futures::poll!(Box::pin(abandoned)).is_pending());
        begun.recv().unwrap();
        let mut next = Box::pin(pages.page(|| Ok::<_, ()>("next".to_owned())));
        assert!(futures::poll!(&mut next).is_pending());
        assert!(pages.last.try_lock().is_err());
        release.send(()).unwrap();
        assert_eq!(next.await.unwrap().unwrap(), "next");
    }
}
