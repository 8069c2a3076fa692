//! A published message, as it came for one subscription.

use bytes::Bytes;

use crate::abi::{CommandResponse, Value, value};

/// A message that was published to a topic, for one subscription.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The id of the subscription that it is for. Who is subscribed to a topic twice gets each message twice, with
    /// another id.
    pub subscription: u32,
    /// The topic that it was published to.
    pub topic: String,
    /// The pattern that matches the topic, where the subscription is to a pattern.
    pub pattern: Option<String>,
    /// What was published: any number of values, some of which may be unset.
    pub values: Vec<Value>,
    /// How many messages of this subscription were dropped between the last one and this one, because they came
    /// faster than they were taken: by the server, or here.
    pub missed: u64,
}

impl Message {
    /// The message that a push carries. Whether its subscription is to a pattern, a pattern that is empty does not
    /// tell.
    pub(super) fn of_push(push: CommandResponse, of_pattern: bool) -> Self {
        Self {
            subscription: push.subscription,
            topic: push.topic,
            pattern: of_pattern.then_some(push.pattern),
            values: push.values.into_iter().map(detach).collect(),
            missed: push.missed,
        }
    }

    /// How many bytes of memory it holds, beside what every message takes.
    pub(super) fn memory(&self) -> usize {
        let of_value = |value: &Value| size_of::<Value>() + value.payload_len();
        let names = self.topic.len() + self.pattern.as_ref().map_or(0, String::len);
        names + self.values.iter().map(of_value).sum::<usize>()
    }
}

/// For whoever reads frames without a client of this library. What is no push comes back as it is.
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

/// Copies a binary value out of what was read from the socket, all of which it would keep alive while it waits.
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
    fn a_binary_value_does_not_keep_alive_what_it_came_with() {
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
    fn a_push_is_a_message_and_an_answer_is_not() {
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
    fn the_pattern_is_there_for_a_subscription_to_a_pattern_even_if_it_is_empty() {
        assert_eq!(
            Message::of_push(CommandResponse::ok(), true).pattern,
            Some(String::new())
        );
        assert_eq!(Message::of_push(CommandResponse::ok(), false).pattern, None);
    }
}
