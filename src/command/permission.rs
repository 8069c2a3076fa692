//! Permission: the one function that is asked before any command is executed.

use super::session::Session;
use crate::abi::{Command, Named};
use crate::error::Refusal;

/// Whether the peer of a session may execute a command on the table or topic that it names. So far
/// every peer may. Hooks that [refuse](crate::ServiceBuilder::on_request) requests run after this.
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
