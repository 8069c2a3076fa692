//! The order and the times of the attempts, with scripted addresses and paused time.

use std::cell::RefCell;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 9527))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 9527))
}

/// How an address behaves.
#[derive(Debug, Clone, Copy)]
enum Behavior {
    Nothing,
    /// Accepts the connection after this many milliseconds.
    Take(u32),
    /// Refuses it after this many milliseconds.
    Refuse(u32),
    /// Fails immediately.
    Fail(io::ErrorKind),
}

/// Races these addresses. Returns the outcome, the milliseconds it took, and the millisecond at
/// which each address was tried.
async fn run(
    addresses: &[(SocketAddr, Behavior)],
    within: Option<u32>,
) -> (Result<SocketAddr, String>, u128, Vec<(SocketAddr, u128)>) {
    let began = Instant::now();
    let tried = RefCell::new(Vec::new());
    let does = |wanted| addresses.iter().find(|(address, _)| *address == wanted);
    let connect = |address| {
        tried
            .borrow_mut()
            .push((address, began.elapsed().as_millis()));
        let (_, does) = *does(address).unwrap();
        async move {
            match does {
                Behavior::Nothing => pending().await,
                Behavior::Take(after) => sleep(MS * after).await,
                Behavior::Refuse(after) => {
                    sleep(MS * after).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Behavior::Fail(kind) => return Err(kind.into()),
            }
            Ok(address)
        }
    };
    let deadline = within.and_then(|within| Deadline::after(MS * within));
    let raced = race(
        addresses.iter().map(|(address, _)| *address),
        deadline,
        connect,
    );
    let ended = raced
        .await
        .map_err(|error| format!("{:?}: {error}", error.kind()));
    let took = began.elapsed().as_millis();
    (ended, took, tried.into_inner())
}

#[tokio::test(start_paused = true)]
async fn silent_address_gets_250_ms_alone() {
    let (ended, took, tried) = run(
        &[
            (v6(1), Behavior::Nothing),
            (v4(1), Behavior::Take(10)),
            (v4(2), Behavior::Take(0)),
        ],
        None,
    )
    .await;
    assert_eq!((ended, took), (Ok(v4(1)), 260));
    assert_eq!(tried, [(v6(1), 0), (v4(1), 250)]);
}

#[tokio::test(start_paused = true)]
async fn next_address_is_tried_at_once_after_a_failure() {
    let (ended, took, tried) = run(
        &[
            (v4(1), Behavior::Refuse(10)),
            (v4(2), Behavior::Refuse(0)),
            (v4(3), Behavior::Take(5)),
        ],
        Some(1000),
    )
    .await;
    assert_eq!((ended, took), (Ok(v4(3)), 15));
    assert_eq!(tried, [(v4(1), 0), (v4(2), 10), (v4(3), 10)]);
    // The same while another attempt is still under way.
    let (ended, took, tried) = run(
        &[
            (v4(1), Behavior::Nothing),
            (v4(2), Behavior::Refuse(10)),
            (v4(3), Behavior::Take(5)),
        ],
        None,
    )
    .await;
    assert_eq!((ended, took), (Ok(v4(3)), 265));
    assert_eq!(tried, [(v4(1), 0), (v4(2), 250), (v4(3), 260)]);
}

#[tokio::test(start_paused = true)]
async fn slow_address_may_still_win() {
    let (ended, took, _) = run(
        &[
            (v4(1), Behavior::Take(700)),
            (v4(2), Behavior::Nothing),
            (v4(3), Behavior::Take(900)),
        ],
        Some(5000),
    )
    .await;
    assert_eq!((ended, took), (Ok(v4(1)), 700));
}

#[tokio::test(start_paused = true)]
async fn last_address_is_tried_before_a_short_deadline() {
    let addresses = [
        (v6(1), Behavior::Nothing),
        (v4(1), Behavior::Nothing),
        (v6(2), Behavior::Nothing),
        (v4(2), Behavior::Take(5)),
    ];
    for (within, delay) in [
        (50, 10),
        (100, 20),
        (250, 50),
        (1000, 200),
        (1250, 250),
        (60_000, 250),
    ] {
        let (ended, took, tried) = run(&addresses, Some(within)).await;
        assert_eq!((ended, took), (Ok(v4(2)), 3 * delay + 5), "{within}");
        let times: Vec<_> = tried.iter().map(|(_, at)| *at).collect();
        assert_eq!(times, [0, delay, 2 * delay, 3 * delay], "{within}");
    }
    // With too little time, only the first is tried: the delay never falls below 10 ms.
    let (ended, _, tried) = run(&addresses, Some(5)).await;
    assert!(ended.unwrap_err().starts_with("TimedOut: "));
    assert_eq!(tried, [(v6(1), 0)]);
}

#[tokio::test(start_paused = true)]
async fn failure_lists_each_address_with_its_reason() {
    let refused = "connection refused";
    let (ended, took, _) = run(
        &[
            (v4(1), Behavior::Nothing),
            (v4(2), Behavior::Refuse(0)),
            (v4(3), Behavior::Nothing),
            (v4(4), Behavior::Take(0)),
        ],
        Some(15),
    )
    .await;
    let expected = format!(
        "TimedOut: {}: no answer within 15ms; {}: {refused}; {}: no answer within 15ms; \
         {}: not tried within 15ms",
        v4(1),
        v4(2),
        v4(3),
        v4(4)
    );
    assert_eq!((ended, took), (Err(expected), 15));

    let (ended, _, _) = run(
        &[(v6(1), Behavior::Refuse(0)), (v4(1), Behavior::Refuse(0))],
        None,
    )
    .await;
    let expected = format!(
        "ConnectionRefused: {}: {refused}; {}: {refused}",
        v6(1),
        v4(1)
    );
    assert_eq!(ended, Err(expected));

    // A single address is not named: the caller knows it.
    let (ended, _, _) = run(
        &[(v4(1), Behavior::Refuse(0)), (v4(1), Behavior::Nothing)],
        None,
    )
    .await;
    assert_eq!(ended, Err(format!("ConnectionRefused: {refused}")));
    let (ended, took, _) = run(&[(v4(1), Behavior::Nothing)], Some(7)).await;
    assert_eq!(
        (ended, took),
        (Err("TimedOut: no answer within 7ms".to_owned()), 7)
    );
    let (ended, _, _) = run(&[], None).await;
    assert_eq!(ended, Err("NotFound: the name has no address".to_owned()));
}

#[test]
fn families_alternate_and_duplicates_are_dropped() {
    assert_eq!(
        interleaved([v6(1), v6(2), v4(1), v6(1), v6(3), v4(1), v4(2)]),
        [v6(1), v4(1), v6(2), v4(2), v6(3)]
    );
    assert_eq!(
        interleaved([v4(1), v4(2), v4(3), v6(1)]),
        [v4(1), v6(1), v4(2), v4(3)]
    );
    assert_eq!(interleaved([]), []);
}

#[tokio::test(start_paused = true)]
async fn unreachable_addresses_count_only_if_all_are_unreachable() {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        Other, TimedOut,
    };
    let cases: [(&[io::ErrorKind], _); 8] = [
        (&[ConnectionRefused, AddrNotAvailable], ConnectionRefused),
        (&[NetworkUnreachable, ConnectionRefused], ConnectionRefused),
        (
            &[HostUnreachable, ConnectionRefused, ConnectionRefused],
            ConnectionRefused,
        ),
        (&[AddrNotAvailable, TimedOut], TimedOut),
        (
            &[ConnectionRefused, AddrNotAvailable, ConnectionReset],
            Other,
        ),
        (
            &[NetworkUnreachable, NetworkUnreachable],
            NetworkUnreachable,
        ),
        (&[AddrNotAvailable, NetworkUnreachable], Other),
        (&[HostUnreachable], HostUnreachable),
    ];
    for (kinds, common) in cases {
        let addresses: Vec<_> = (1..)
            .zip(kinds)
            .map(|(last, kind)| (v4(last), Behavior::Fail(*kind)))
            .collect();
        let (ended, _, _) = run(&addresses, None).await;
        let error = ended.unwrap_err();
        assert!(
            error.starts_with(&format!("{common:?}: ")),
            "{kinds:?}: {error}"
        );
        // The message still lists the error of each address.
        for kind in kinds {
            assert!(error.contains(&kind.to_string()), "{kinds:?}: {error}");
        }
    }
}
