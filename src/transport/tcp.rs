//! TCP socket options, the same on the server and the client.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The shortest and the longest keepalive time that Linux accepts.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// Sends small writes immediately (`TCP_NODELAY`) and, with a `keepalive`, probes the peer after
/// that much silence.
pub(crate) fn set_up(stream: &TcpStream, keepalive: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(time) = keepalive {
        let time = time.clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
        SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(time))?;
    }
    Ok(())
}
