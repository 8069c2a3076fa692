//! Advice at the end of an error message, in terms of the interface where it is read.

use super::origins;

/// What may help.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hint {
    /// There is nobody at the address.
    StartServer,
    /// There may be somebody else.
    CheckAddress,
    /// The same, or it takes longer.
    AllowMore,
    /// This about TLS, by its flags.
    Tls(&'static str),
}

/// Where a line is read: it advises what can be done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface<'a> {
    CommandLine,
    /// In a script, behind a line that says which server is meant: this names its address.
    Script {
        address: &'a str,
    },
    /// At the prompt of a session, where flags come too late.
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
            // A line wins over that flag.
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
