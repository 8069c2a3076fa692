//! The commands by their names, for logs and metrics, with their effects.
//!
//! `build.rs` generates the list of commands from `abi.proto`, where each command stands with its
//! number, its effect and its documentation.

use super::CommandRequest;
use super::command_request::RequestData;

include!(concat!(env!("OUT_DIR"), "/commands.rs"));

/// What a command may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Nothing: executing it again does no harm.
    Read,
    /// The storage.
    Write,
    /// The state of the connection that it came on, and nothing else.
    Connection,
    /// Nothing that is kept, but subscribers receive a message.
    Message,
}

impl Command {
    /// Whether it changes nothing, so that executing it again does no harm.
    pub fn is_read(self) -> bool {
        self.effect() == Effect::Read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_knows_its_command() {
        let request = CommandRequest::new_hmget("users", ["alice", "bob"]);
        assert_eq!(request.command(), Some(Command::Hmget));
        assert_eq!(request.table(), "users");
        assert_eq!(CommandRequest::default().command(), None);
    }

    #[test]
    fn a_command_knows_its_effect() {
        assert_eq!(Command::Hget.effect(), Effect::Read);
        assert_eq!(Command::Hset.effect(), Effect::Write);
        assert_eq!(Command::Subscribe.effect(), Effect::Connection);
        assert_eq!(Command::Publish.effect(), Effect::Message);
        assert!(Command::Hget.is_read() && !Command::Publish.is_read());
    }

    #[test]
    fn every_command_is_at_its_own_index() {
        for (place, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, place, "{}", command.name());
        }
    }
}
