//! Connections over loopback, to addresses that serve and to a silent one.

#[path = "../../../tests/support/silent.rs"]
mod silent;

use silent::Silent;

use super::*;

#[tokio::test]
async fn connection_has_nodelay_and_detects_dead_servers() {
    let listener = crate::listen("127.0.0.1:0").await.unwrap();
    let stream = tcp(listener.local_addr().unwrap(), None).await.unwrap();
    assert!(stream.nodelay().unwrap());
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap());
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBES.0);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES.1);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }
}

#[tokio::test]
async fn silent_address_does_not_keep_the_other_from_connecting() {
    for (silent, serving) in [
        ("127.0.0.2:0", "127.0.0.1:0"),
        ("[::1]:0", "127.0.0.1:0"),
        ("127.0.0.1:0", "[::1]:0"),
    ] {
        // Not every machine has IPv6.
        let Ok(listener) = crate::listen(serving).await else {
            continue;
        };
        let Some(silent) = Silent::at(silent.parse().unwrap()) else {
            continue;
        };
        let serving = listener.local_addr().unwrap();
        let both = [silent.address, serving];
        let stream = race(both, None, TcpStream::connect).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), serving);
        let deadline = Deadline::after(Duration::from_millis(300));
        let alone = race([silent.address], deadline, TcpStream::connect).await;
        let error = alone.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 300ms");
    }
}
