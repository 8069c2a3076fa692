//! Tells systemd when the server is ready and when it stops, if systemd asks for that.

/// The server listens and serves.
pub(crate) fn ready() {
    #[cfg(unix)]
    send(sd_notify::NotifyState::Ready);
}

/// The server is about to end.
pub(crate) fn stopping() {
    #[cfg(unix)]
    send(sd_notify::NotifyState::Stopping);
}

/// Does nothing unless systemd has set `NOTIFY_SOCKET`.
#[cfg(unix)]
fn send(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
