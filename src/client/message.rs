//! A published message, as one subscription receives it.

use bytes::Bytes;

use crate::abi::{CommandResponse, Value, value};

/// A message published to a topic, as one subscription receives it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The id of the receiving subscription. A client that is subscribed to a topic twice gets each
    /// message twice, with different ids.
    pub subscription: u32,
    /// The topic that the message was published to.
    pub topic: String,
    /// The pattern that matched the topic; [`None`] for a subscription to a topic.
    pub pattern: Option<String>,
    /// The published values: any number, including none. Some may be unset.
    pub values: Vec<Value>,
    /// How many messages of this subscription were dropped between the previous message and this
    /// one because they arrived faster than they were read. Counts drops by the server and by the
    /// client.
    pub missed: u64,
}

impl Message {
    /// The message in a push. `of_pattern` says whether its subscription is to a pattern: the push
    /// cannot, because a pattern may be empty.
    pub(super) fn of_push(push: CommandResponse, of_pattern: bool) -> Self {
        Self {
            subscription: push.subscription,
            topic: push.topic,
            pattern: of_pattern.then_some(push.pattern),
            values: push.values.into_iter().map(detach).collect(),
            missed: push.missed,
        }
    }

    /// The bytes of memory that it holds beyond its own size.
    pub(super) fn memory(&self) -> usize {
        let of_value = |value: &Value| size_of::<Value>() + value.payload_len();
        let names = self.topic.len() + self.pattern.as_ref().map_or(0, String::len);
        names + self.values.iter().map(of_value).sum::<usize>()
    }
}

/// For programs that read frames without this library's clients. A response that is not a push is
/// returned unchanged as the error.
impl TryFrom<CommandResponse> for Message {
    type Error = CommandResponse;

    fn try_from(response: CommandResponse) -> Result<Self, CommandResponse> {
        if !response.is_push() {
            return Err(response);
        }
        let of_pattern = !response.pattern.is_empty();
        Ok(Self::of_push(response, of_pattern))
    }
}

/// Copies a binary value out of the read buffer, which it would otherwise keep alive as a whole.
fn detach(mut value: Value) -> Value {
    if let Some(value::Value::Binary(bytes)) = &mut value.value {
        *bytes = Bytes::copy_from_slice(bytes);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_value_does_not_keep_the_read_buffer_alive() {
        let read = Bytes::from(vec![7; 8192]);
        let push = CommandResponse {
            values: vec![read.slice(..10).into()],
            ..CommandResponse::ok()
        };
        let message = Message::of_push(push, false);
        assert!(read.is_unique());
        assert_eq!(message.values, [Value::from(&[7; 10])]);
    }

    #[test]
    fn push_converts_to_a_message_and_answer_does_not() {
        let push = CommandResponse {
            subscription: 1,
            topic: "t".to_owned(),
            ..Value::from(5).into()
        };
        let message = Message::try_from(push.clone()).unwrap();
        assert_eq!(message, Message::of_push(push.clone(), false));
        let answer = CommandResponse {
            subscription: 0,
            ..push
        };
        assert_eq!(Message::try_from(answer.clone()), Err(answer));
    }

    #[test]
    fn empty_pattern_is_kept_for_a_subscription_to_a_pattern() {
        assert_eq!(
            Message::of_push(CommandResponse::ok(), true).pattern,
            Some(String::new())
        );
        assert_eq!(Message::of_push(CommandResponse::ok(), false).pattern, None);
    }
}
