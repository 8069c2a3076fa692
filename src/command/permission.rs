//! Permission: the one function that is asked before any command is executed.

use super::session::Session;
use crate::abi::{Command, Named};
use crate::error::Refusal;

/// Whether the peer of a session may execute a command on what it names. Everybody may do
/// everything: hooks that [refuse](crate::ServiceBuilder::on_request) requests come after this.
#[expect(
    clippy::unnecessary_wraps,
    reason = "users and their permissions will refuse here"
)]
#[inline]
pub(super) fn permit(
    _session: &Session,
    _command: Command,
    _named: Named<'_>,
) -> Result<(), Refusal> {
    Ok(())
}
