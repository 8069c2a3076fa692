//! A syncer with scripted syncs: which callers share a sync, what a failure reaches, and what
//! closing reports.

use std::sync::mpsc;

use futures::executor::block_on;
use futures::future::join_all;

use super::*;

/// A syncer whose syncs are scripted by their number, from 1.
fn syncer(sync: impl FnMut(usize) -> io::Result<()> + Send + 'static) -> Syncer {
    syncer_of(SyncPolicy::Always, sync)
}

fn syncer_of(
    policy: SyncPolicy,
    mut sync: impl FnMut(usize) -> io::Result<()> + Send + 'static,
) -> Syncer {
    let mut count = 0;
    Syncer::spawn(policy, move |_| {
        count += 1;
        sync(count)
    })
    .unwrap()
}

/// A syncer that sends the number of each sync when it begins, and the receiver.
fn reporting(policy: SyncPolicy) -> (Syncer, mpsc::Receiver<usize>) {
    let (began, has_began) = mpsc::channel();
    let syncer = syncer_of(policy, move |count| {
        began.send(count).map_err(io::Error::other)
    });
    (syncer, has_began)
}

#[test]
fn callers_that_ask_while_a_sync_runs_share_the_next() {
    let (began, has_began) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let syncer = syncer(move |_| {
        began.send(()).unwrap();
        released.recv().map_err(io::Error::other)
    });
    block_on(async {
        let mut first = Box::pin(syncer.sync());
        assert!(futures::poll!(&mut first).is_pending());
        has_began.recv().unwrap();
        let mut others: Vec<_> = (0..100).map(|_| Box::pin(syncer.sync())).collect();
        for other in &mut others {
            assert!(futures::poll!(other).is_pending());
        }
        release.send(()).unwrap();
        first.await.unwrap();
        has_began.recv().unwrap();
        release.send(()).unwrap();
        assert!(join_all(others).await.iter().all(Result::is_ok));
    });
    // One more sync comes at the end.
    release.send(()).unwrap();
    drop(syncer);
    assert_eq!(
        has_began.iter().count(),
        1,
        "101 callers took more than two syncs"
    );
}

#[test]
fn failed_returns_after_a_failed_sync_or_write_and_not_before() {
    for is_write in [false, true] {
        let syncer = syncer(|count| match count {
            1 => Ok(()),
            _ => Err(io::Error::other("disk on fire")),
        });
        block_on(async {
            let mut watched = Box::pin(syncer.failed());
            assert!(futures::poll!(&mut watched).is_pending());
            syncer.sync().await.unwrap();
            assert!(futures::poll!(&mut watched).is_pending());
            match is_write {
                true => syncer.fail(Arc::new(io::Error::other("disk on fire"))),
                false => assert!(syncer.sync().await.is_err()),
            }
            // A later call returns it as well.
            for failure in [watched.await, syncer.failed().await] {
                assert_eq!(failure.to_string(), "disk on fire");
            }
        });
    }
}

#[test]
fn after_a_failed_sync_nothing_is_reported_as_durable() {
    let syncer = syncer(|count| {
        if count == 2 {
            Err(io::Error::other("disk on fire"))
        } else {
            Ok(())
        }
    });
    block_on(async {
        assert!(syncer.sync().await.is_ok());
        for _ in 0..3 {
            let error = syncer.sync().await.unwrap_err();
            assert_eq!(
                crate::Report(&error).to_string(),
                "cannot sync the store: the store has failed and must be opened again: \
                 disk on fire; check its disk, then start kvs again"
            );
        }
    });
}

#[test]
fn a_dead_sync_thread_is_an_error_and_not_a_hang() {
    let syncer = syncer(|_| panic!("on purpose"));
    block_on(async {
        assert!(syncer.sync().await.is_err());
        assert!(syncer.sync().await.is_err());
    });
}

#[test]
fn a_failed_write_ends_the_wait_for_a_sync_that_never_ends() {
    let (began, has_began) = mpsc::channel();
    let (_never, released) = mpsc::channel::<()>();
    let syncer = syncer(move |_| {
        began.send(()).unwrap();
        released.recv().map_err(io::Error::other)
    });
    block_on(async {
        let mut waits = Box::pin(syncer.sync());
        assert!(futures::poll!(&mut waits).is_pending());
        has_began.recv().unwrap();
        syncer.fail(Arc::new(io::ErrorKind::StorageFull.into()));
        assert!(waits.await.is_err());
        assert!(syncer.sync().await.is_err());
    });
    // The thread must not be told to end: it would close sled, which would wait for ever too.
    let shared = Arc::clone(&syncer.shared);
    drop(syncer);
    assert!(!shared.lock().closing);
}

#[test]
fn with_an_interval_no_caller_waits_and_one_sync_serves_all() {
    let (syncer, has_began) = reporting(SyncPolicy::Interval(Duration::from_millis(20)));
    for round in 1..=3 {
        for _ in 0..100 {
            block_on(syncer.sync()).unwrap();
        }
        assert_eq!(has_began.recv(), Ok(round));
    }
    drop(syncer);
    // The sync at the end, and more if the machine stalled in between.
    assert!((1..=4).contains(&has_began.iter().count()));
}

#[test]
fn a_due_sync_comes_before_the_store_is_closed() {
    let hour = SyncPolicy::Interval(Duration::from_secs(3600));
    let (syncer, has_began) = reporting(hour);
    block_on(syncer.sync()).unwrap();
    assert!(has_began.try_recv().is_err());
    drop(syncer);
    assert_eq!(has_began.iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn closing_reports_the_outcome_of_the_last_sync() {
    assert_eq!(syncer(|_| Ok(())).close(), Closed::Synced);
    let failing = syncer(|_| Err(io::Error::other("disk on fire")));
    assert_eq!(failing.close(), Closed::Failed);
    assert_eq!(failing.close(), Closed::Failed);
    let panicking = syncer(|_| panic!("on purpose"));
    assert_eq!(panicking.close(), Closed::Failed);
}

#[test]
fn only_a_panic_may_leave_half_of_a_command() {
    let panicking = syncer(|_| panic!("on purpose"));
    assert!(panicking.failure().is_none() && panicking.partial_failure().is_none());
    assert!(block_on(panicking.sync()).is_err());
    panicking.close();
    assert!(panicking.failure().is_some() && panicking.partial_failure().is_some());
    let failing = syncer(|_| Err(io::Error::other("disk on fire")));
    assert!(block_on(failing.sync()).is_err());
    assert!(failing.failure().is_some() && failing.partial_failure().is_none());
    let syncer = syncer(|_| Ok(()));
    let write = std::panic::AssertUnwindSafe(|| {
        let _writing = syncer.writing();
        panic!("on purpose");
    });
    assert!(std::panic::catch_unwind(write).is_err());
    assert!(syncer.failure().is_some() && syncer.partial_failure().is_some());
    assert!(block_on(syncer.sync()).is_err());
}

#[test]
fn sync_all_syncs_and_reports_failures_under_every_policy() {
    for policy in [
        SyncPolicy::Always,
        SyncPolicy::Interval(Duration::from_secs(3600)),
        SyncPolicy::Never,
    ] {
        let syncer = syncer_of(policy, |count| match count {
            1 => Ok(()),
            _ => Err(io::Error::other("disk on fire")),
        });
        block_on(async {
            syncer.sync_all().await.unwrap();
            assert!(syncer.sync_all().await.is_err());
            assert!(syncer.sync().await.is_err());
        });
    }
}

#[test]
fn with_the_policy_never_writes_leave_the_process_but_are_synced_only_at_the_end() {
    let (began, has_began) = mpsc::channel();
    let sync = move |depth| began.send(depth).map_err(io::Error::other);
    let syncer = Syncer::spawn(SyncPolicy::Never, sync).unwrap();
    for _ in 0..2 {
        block_on(syncer.sync()).unwrap();
        assert_eq!(has_began.recv(), Ok(Depth::WriteOut));
    }
    block_on(syncer.sync_all()).unwrap();
    assert_eq!(has_began.recv(), Ok(Depth::Sync));
    drop(syncer);
    assert_eq!(has_began.iter().collect::<Vec<_>>(), [Depth::Sync]);
}
