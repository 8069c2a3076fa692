//! Turns the result of a command into a response.
//!
//! Every conversion here makes a successful response, with status 200. The crate's `error` module
//! turns errors into statuses.

use super::{CommandResponse, Kvpair, Value, status};

impl CommandResponse {
    /// A response that only confirms that the command was executed.
    pub fn ok() -> Self {
        Self {
            status: status::OK,
            ..Self::default()
        }
    }

    /// A response that reports a failure: a status and a one-line message for people.
    pub fn error(status: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            ..Self::default()
        }
    }

    /// Whether this is a push: a published message for a subscription, not the response to a
    /// request.
    pub fn is_push(&self) -> bool {
        self.subscription != 0
    }

    /// Whether the command was executed: status 200.
    pub fn is_ok(&self) -> bool {
        self.status == status::OK
    }
}

impl From<Value> for CommandResponse {
    fn from(value: Value) -> Self {
        Self::from(vec![value])
    }
}

impl From<Vec<Value>> for CommandResponse {
    fn from(values: Vec<Value>) -> Self {
        Self {
            status: status::OK,
            values,
            ..Self::default()
        }
    }
}

/// The current or previous value of a key; [`None`] becomes an unset [`Value`].
impl From<Option<Value>> for CommandResponse {
    fn from(value: Option<Value>) -> Self {
        Self::from(value.unwrap_or_default())
    }
}

/// The current or previous values of several keys; [`None`] becomes an unset [`Value`].
impl From<Vec<Option<Value>>> for CommandResponse {
    fn from(values: Vec<Option<Value>>) -> Self {
        Self::from(
            values
                .into_iter()
                .map(Option::unwrap_or_default)
                .collect::<Vec<Value>>(),
        )
    }
}

impl From<bool> for CommandResponse {
    fn from(answer: bool) -> Self {
        Self::from(Value::from(answer))
    }
}

impl From<Vec<bool>> for CommandResponse {
    fn from(answers: Vec<bool>) -> Self {
        Self::from(answers.into_iter().map(Value::from).collect::<Vec<Value>>())
    }
}

impl From<Kvpair> for CommandResponse {
    fn from(pair: Kvpair) -> Self {
        Self::from(vec![pair])
    }
}

impl From<Vec<Kvpair>> for CommandResponse {
    fn from(pairs: Vec<Kvpair>) -> Self {
        Self {
            status: status::OK,
            pairs,
            ..Self::default()
        }
    }
}
