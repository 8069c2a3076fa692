//! Kills the real kvs with SIGKILL again and again while clients write. Afterwards every answered
//! write is there, and no command is there in part.
//!
//! A longer run by hand:
//! `KV_CRASH_KILLS=500 cargo test --release --test suite kvs::crash -- --nocapture`.
//! `KV_CRASH_SYNC=never` shows what another policy loses. `KV_CRASH_SEED` repeats the random
//! choices, but not the moment of a kill.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::chance::{Chance, seed, variable};
use crate::support::crash_writer::Writer;
use crate::support::programs::{Kvs, PATIENCE, kvs};

/// The number of clients that write at once. Each has its own tables, and knows their contents.
const WRITERS: usize = 6;

/// The most answers before a kill. With `always`, kvs then lives for a tenth of a second. With the
/// other policies it must live for several sync intervals.
const MAX_ANSWERS: usize = 1000;
const MAX_ANSWERS_UNSYNCED: usize = 40_000;

/// One life in `LARGE` has large values too, and `FEWER` times fewer answers.
const LARGE: usize = 4;
const FEWER: usize = 10;

/// The longest time between the last answer and the kill, in microseconds, so that the kill can hit
/// any part of what kvs does.
const MAX_PAUSE: usize = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_writes_survive_a_kill_and_no_command_is_torn() {
    let kills = variable("KV_CRASH_KILLS").unwrap_or(12);
    let sync = env::var("KV_CRASH_SYNC")
        .ok()
        .filter(|sync| !sync.is_empty());
    let sync = sync.unwrap_or_else(|| "always".to_owned());
    let seed = seed("KV_CRASH_SEED");
    println!("KV_CRASH_SEED={seed}");
    let mut chance = Chance(seed);
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = kvs(directory.path(), &["--sync", &sync]);
        command.env("KVS_STORAGE", "sled:data");
        Kvs::spawn(command.env("KVS_LISTEN", "127.0.0.1:0"))
    };
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|n| Writer::new(n, chance.next()))
        .collect();
    let (mut answered, mut unanswered, mut lost) = (0, 0, 0);
    let most = match sync.as_str() {
        "always" => MAX_ANSWERS,
        _ => MAX_ANSWERS_UNSYNCED,
    };
    let mut awaited = 0;
    for kill in 0..kills {
        let server = start();
        let is_large = chance.below(LARGE) == 0;
        let answers = chance.below(if is_large { most / FEWER } else { most }) + 1;
        awaited += answers;
        let told = Arc::new(Semaphore::new(0));
        let mut writing = JoinSet::new();
        for mut writer in writers.drain(..) {
            let (address, tell) = (server.address.clone(), Arc::clone(&told));
            writing.spawn(async move {
                writer.write(&address, is_large, &tell).await;
                writer
            });
        }
        timeout(PATIENCE, told.acquire_many(answers as u32))
            .await
            .unwrap()
            .unwrap()
            .forget();
        sleep(Duration::from_micros(chance.below(MAX_PAUSE) as u64)).await;
        server.signal("KILL");
        server.wait();
        writers = writing.join_all().await;
        let server = start();
        for writer in &mut writers {
            let found = writer.check(&server.address).await;
            answered += found.answered;
            unanswered += found.unanswered;
            lost += found.lost;
            assert!(
                sync != "always" || found.lost == 0,
                "kill {kill} of seed {seed}: {found:?}"
            );
        }
        // Half of the starts follow a clean stop, and half a kill.
        if chance.below(2) == 0 {
            server.stop();
        }
    }
    println!(
        "--sync {sync}: {kills} kills, {answered} writes answered, {lost} of them lost; \
         {unanswered} not answered"
    );
    assert!(answered >= awaited && unanswered > 0);
}
