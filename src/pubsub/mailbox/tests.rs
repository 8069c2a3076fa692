//! Mailboxes that fill up, share the memory for messages, and are forgotten.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::task::{ArcWake, noop_waker, waker_ref};

use super::super::push::{MESSAGE_MEMORY, OVERHEAD, SharedMessage};
use super::*;
use crate::abi::{CommandResponse, Value};

fn mailbox(messages: usize, bytes: usize, policy: SlowSubscriber) -> Mailbox {
    let limits = SubscriberLimits {
        bytes,
        messages,
        policy,
        ..SubscriberLimits::UNLIMITED
    };
    Mailbox::new(limits, Arc::default(), None)
}

/// The size of the frame of the push that [`push`] makes, in bytes.
const LEN: usize = 100 + OVERHEAD;

/// Its memory, in bytes.
const MEMORY: usize = PUSH_MEMORY + MESSAGE_MEMORY + 100;

/// A push whose message has 100 encoded bytes.
fn push(subscription: u32, number: u8) -> Push {
    let response = CommandResponse::from(Value::from(&[number; 93]));
    let message = Arc::new(SharedMessage::new(&response, Arc::default()));
    assert_eq!(message.encoded().len(), 100);
    Push {
        message,
        subscription,
        pattern: None,
        missed: 0,
    }
}

/// Takes messages. Gives for each its subscription, its number, and how many were missed before
/// it.
fn take(mailbox: &Mailbox, max_bytes: usize) -> Vec<(u32, u8, u64)> {
    let mut pushes = Vec::new();
    mailbox.take(max_bytes, &mut pushes);
    let seen = |push: &Push| {
        let number = *push.message.encoded().last().unwrap();
        (push.subscription, number, push.missed)
    };
    pushes.iter().map(seen).collect()
}

#[test]
fn drops_the_oldest_messages_and_counts_them_per_subscription() {
    for (messages, bytes) in [
        (3, usize::MAX),
        (usize::MAX, 3 * MEMORY),
        (usize::MAX, 4 * MEMORY - 1),
    ] {
        let mailbox = mailbox(messages, bytes, SlowSubscriber::Drop);
        for (subscription, number) in [(1, 0), (2, 1), (1, 2), (1, 3), (2, 4), (1, 5)] {
            assert!(mailbox.put(push(subscription, number)));
        }
        assert_eq!(
            take(&mailbox, usize::MAX),
            [(1, 3, 2), (2, 4, 1), (1, 5, 0)]
        );
        mailbox.put(push(2, 6));
        assert_eq!(take(&mailbox, usize::MAX), [(2, 6, 0)]);
    }
}

#[test]
fn a_message_over_the_byte_limit_is_missed_and_drops_no_other() {
    for policy in [SlowSubscriber::Drop, SlowSubscriber::Close] {
        let mailbox = mailbox(10, 99, policy);
        let response = CommandResponse::from(Value::from("x"));
        mailbox.put(Push {
            message: Arc::new(SharedMessage::new(&response, Arc::default())),
            ..push(2, 0)
        });
        assert!(!mailbox.put(push(1, 0)));
        assert_eq!(take(&mailbox, usize::MAX), [(2, b'x', 0)]);
        assert_eq!(mailbox.lock().missed.get(&1), Some(&1));
    }
}

#[test]
fn a_message_of_exactly_the_byte_limit_waits_alone() {
    let mailbox = mailbox(10, 100, SlowSubscriber::Drop);
    assert!(mailbox.put(push(1, 0)) && mailbox.put(push(1, 1)));
    assert_eq!(take(&mailbox, usize::MAX), [(1, 1, 1)]);
    let mailbox = self::mailbox(10, 100, SlowSubscriber::Close);
    assert!(mailbox.put(push(1, 0)) && !mailbox.put(push(1, 1)));
}

#[test]
fn takes_at_least_one_message_and_stops_at_max_bytes() {
    let mailbox = mailbox(10, 10_000, SlowSubscriber::Drop);
    for number in 0..5 {
        mailbox.put(push(1, number));
    }
    let mut pushes = Vec::new();
    for (max_bytes, left, taken) in [
        (1, MailboxState::HasMore, 1),
        (LEN + 1, MailboxState::HasMore, 3),
        (2 * LEN, MailboxState::Empty, 5),
    ] {
        assert_eq!(mailbox.take(max_bytes, &mut pushes), left);
        assert_eq!(pushes.len(), taken);
    }
    assert_eq!(mailbox.lock().bytes, 0);
}

#[test]
fn overruns_under_the_close_policy() {
    let mailbox = mailbox(2, 10_000, SlowSubscriber::Close);
    assert!(mailbox.put(push(1, 0)) && mailbox.put(push(1, 1)));
    assert!(!mailbox.put(push(1, 2)) && !mailbox.put(push(1, 3)));
    let mut pushes = Vec::new();
    assert_eq!(mailbox.take(usize::MAX, &mut pushes), MailboxState::Overrun);
    assert!(pushes.is_empty());
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    assert!(mailbox.poll(&mut cx).is_ready() && mailbox.poll_overrun(&mut cx).is_ready());
}

#[test]
fn forgetting_a_subscription_removes_its_messages_and_counts() {
    let mailbox = mailbox(3, 10_000, SlowSubscriber::Drop);
    for (subscription, number) in [(1, 0), (1, 1), (2, 2), (1, 3)] {
        mailbox.put(push(subscription, number));
    }
    mailbox.forget(1);
    mailbox.put(push(2, 4));
    assert_eq!(take(&mailbox, usize::MAX), [(2, 2, 0), (2, 4, 0)]);
    assert_eq!(mailbox.lock().bytes, 0);
    assert!(mailbox.lock().missed.is_empty());
}

#[test]
fn an_unsendable_message_passes_on_the_count_of_those_missed_before_it() {
    let mailbox = mailbox(1, 10_000, SlowSubscriber::Drop);
    mailbox.put(push(1, 0));
    mailbox.put(push(1, 1));
    let mut pushes = Vec::new();
    mailbox.take(usize::MAX, &mut pushes);
    mailbox.missed(&pushes[0], &mut []);
    mailbox.put(push(1, 2));
    assert_eq!(take(&mailbox, usize::MAX), [(1, 2, 2)]);
}

#[test]
fn an_unsendable_message_is_reported_by_the_next_one_taken_with_it() {
    let mailbox = mailbox(10, 10_000, SlowSubscriber::Drop);
    for (subscription, number) in [(1, 0), (2, 1), (1, 2), (1, 3)] {
        mailbox.put(push(subscription, number));
    }
    let mut pushes = Vec::new();
    mailbox.take(usize::MAX, &mut pushes);
    let (first, later) = pushes.split_first_mut().unwrap();
    mailbox.missed(first, later);
    let missed: Vec<_> = later.iter().map(|push| push.missed).collect();
    assert_eq!(missed, [0, 1, 0]);
    assert!(mailbox.lock().missed.is_empty());
}

/// Mailboxes of one server, with so much memory for all messages.
fn mailboxes(count: usize, all_bytes: usize, policy: SlowSubscriber) -> Vec<Mailbox> {
    let limits = SubscriberLimits {
        bytes: 1024 * 1024,
        all_bytes,
        policy,
        ..SubscriberLimits::UNLIMITED
    };
    let memory = Arc::default();
    let mailbox = |_| Mailbox::new(limits, Arc::clone(&memory), None);
    (0..count).map(mailbox).collect()
}

/// Publishes a message of `len` bytes that only this mailbox gets.
fn publish(mailbox: &Mailbox, len: usize) -> bool {
    let response = CommandResponse::from(Value::binary(vec![7; len]));
    let message = SharedMessage::new(&response, Arc::clone(&mailbox.memory));
    mailbox.memory.add(PUSH_MEMORY);
    let queued = mailbox.put(Push {
        message: Arc::new(message),
        ..push(1, 0)
    });
    if !queued {
        mailbox.memory.remove(PUSH_MEMORY);
    }
    queued
}

#[test]
fn clients_that_read_nothing_share_what_is_left_and_others_get_their_messages() {
    let all = 8 * 1024 * 1024;
    let mailboxes = mailboxes(101, all, SlowSubscriber::Drop);
    let (reader, stalled) = mailboxes.split_first().unwrap();
    for round in 0..1000 {
        for mailbox in stalled {
            publish(mailbox, 1000);
        }
        assert!(publish(reader, 1000));
        assert_eq!(take(reader, usize::MAX), [(1, 7, 0)], "round {round}");
    }
    let used = reader.memory.used();
    assert!(used <= all, "{used}");
    // They keep what they can.
    assert!(used > all * 9 / 10, "{used}");
    drop(mailboxes);
}

#[test]
fn a_little_may_wait_even_if_no_memory_is_left() {
    for policy in [SlowSubscriber::Drop, SlowSubscriber::Close] {
        let mailboxes = mailboxes(2, 0, policy);
        let few = MIN_SHARE / (1000 + MEMORY) - 1;
        for mailbox in &mailboxes {
            (0..few).for_each(|_| assert!(publish(mailbox, 1000)));
        }
        let memory = Arc::clone(&mailboxes[0].memory);
        assert!(memory.used() <= 2 * MIN_SHARE);
        let are_taken = [(); 3].map(|()| publish(&mailboxes[0], 1000));
        assert_eq!(are_taken[2], policy == SlowSubscriber::Drop);
        assert!(memory.used() <= 2 * MIN_SHARE);
        drop(mailboxes);
        assert_eq!(memory.used(), 0);
    }
}

#[test]
fn a_message_in_many_mailboxes_counts_once() {
    let mailboxes = mailboxes(100, usize::MAX, SlowSubscriber::Drop);
    let memory = Arc::clone(&mailboxes[0].memory);
    let response = CommandResponse::from(Value::binary(vec![7; 1_000_000]));
    let message = Arc::new(SharedMessage::new(&response, Arc::clone(&memory)));
    for mailbox in &mailboxes {
        memory.add(PUSH_MEMORY);
        let message = Arc::clone(&message);
        assert!(mailbox.put(Push {
            message,
            ..push(1, 0)
        }));
    }
    drop(message);
    let expected = 1_000_000 + 100 * PUSH_MEMORY;
    let used = memory.used();
    assert!((expected..expected + 1000).contains(&used), "{used}");
    for mailbox in &mailboxes {
        mailbox.forget(1);
    }
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_large_queue_is_freed_when_it_is_empty() {
    let mailbox = mailbox(1000, usize::MAX, SlowSubscriber::Drop);
    for number in 0..200 {
        mailbox.put(push(1, number));
    }
    take(&mailbox, usize::MAX);
    assert_eq!(mailbox.lock().waiting.capacity(), 0);
}

#[test]
fn wakes_the_waiting_task_once() {
    struct Count(AtomicUsize);
    impl ArcWake for Count {
        fn wake_by_ref(count: &Arc<Self>) {
            count.0.fetch_add(1, Relaxed);
        }
    }
    let mailbox = mailbox(10, 10_000, SlowSubscriber::Drop);
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = waker_ref(&woken);
    let mut cx = Context::from_waker(&waker);
    for round in 1..=2 {
        assert!(mailbox.poll(&mut cx).is_pending());
        mailbox.put(push(1, 0));
        mailbox.put(push(1, 1));
        assert_eq!(woken.0.load(Relaxed), round);
        assert!(mailbox.poll(&mut cx).is_ready());
        mailbox.put(push(1, 2));
        assert_eq!(woken.0.load(Relaxed), round);
        take(&mailbox, usize::MAX);
    }
}
