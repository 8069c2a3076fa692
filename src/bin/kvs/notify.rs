//! What systemd is told, where it started the server and wants to know.

use sd_notify::NotifyState;
use tracing::debug;

/// The server listens and serves.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// The server is about to end.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Does nothing where nobody asked for it, which the environment tells.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!(%error, "cannot tell systemd");
    }
}
