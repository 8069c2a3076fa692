//! Advice at the end of an error message, in terms of the interface where it is read.

use super::origins;

/// What may help.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hint {
    /// Nobody listens at the address.
    StartServer,
    /// Another kind of server may listen at the address.
    CheckAddress,
    /// The same, or the server needs more time.
    AllowMore,
    /// Advice about TLS, in terms of flags.
    Tls(&'static str),
}

/// The interface of kvc where a message is read. It advises what can be done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface<'a> {
    CommandLine,
    /// A script, after a line that chose the server; `address` names that line's address.
    Script {
        address: &'a str,
    },
    /// The prompt of a session, where it is too late for flags.
    Prompt,
}

impl Hint {
    pub(super) fn at(self, interface: Interface<'_>) -> String {
        let at = match (self, interface) {
            (Self::StartServer, Interface::CommandLine) => {
                "start kvs there, or name another address with --addr"
            }
            (Self::StartServer, Interface::Script { address }) => {
                return format!("start kvs there, or change {address}");
            }
            (Self::StartServer, Interface::Prompt) => {
                "start kvs there, or name another address with connect HOST:PORT"
            }
            (Self::CheckAddress, Interface::CommandLine) => {
                return format!("check {}", origins::address());
            }
            (Self::CheckAddress, Interface::Script { address }) => {
                return format!("check {address}");
            }
            (Self::CheckAddress, Interface::Prompt) => {
                "check the address; connect HOST:PORT names another"
            }
            (Self::AllowMore, Interface::CommandLine) => {
                return format!("check {}, or allow more with --timeout", origins::address());
            }
            (Self::AllowMore, Interface::Script { address }) => {
                return format!("check {address}, or allow more with --timeout");
            }
            (Self::AllowMore, Interface::Prompt) => {
                "check the address, or allow more with set timeout"
            }
            (Self::Tls(flags), Interface::CommandLine) => flags,
            // `connect` in a script wins over --addr.
            (Self::Tls(flags), Interface::Script { address }) => {
                return flags.replace("--addr", address);
            }
            (Self::Tls(flags), Interface::Prompt) => {
                return format!("{flags}, when kvc is started, or in a target");
            }
        };
        at.to_owned()
    }
}
