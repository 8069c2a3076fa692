//! The commands of publish and subscribe.

use clap::Subcommand;
use kv::abi::CommandRequest;

use super::Task;
use super::subscribe::{self, Subscription, Until};
use crate::failure::Failure;
use crate::input::literal::{self, Literals};

#[derive(Debug, Subcommand)]
pub(crate) enum PubsubCommand {
    /// Print the messages to one topic or more, as they come
    #[command(after_help = subscribe::about(SUBSCRIBE_EXAMPLES))]
    Subscribe {
        /// The topics whose messages to print
        #[arg(required = true, value_name = "TOPIC", allow_negative_numbers = true)]
        topics: Vec<String>,
        #[command(flatten)]
        until: Until,
    },
    /// Print the messages to every topic that matches a pattern, as they come
    #[command(after_help = format!("{PATTERNS}\n\n{}", subscribe::about(PSUBSCRIBE_EXAMPLES)))]
    Psubscribe {
        /// The patterns of the topics whose messages to print
        #[arg(required = true, value_name = "PATTERN", allow_negative_numbers = true)]
        patterns: Vec<String>,
        #[command(flatten)]
        until: Until,
    },
    /// Send a message of one value or more to all subscribers of a topic, and print how many got it
    ///
    /// Prints the number of subscriptions that it reached; 0 is a success.
    #[command(after_help = format!("{}\n\n{PUBLISH_EXIT_CODES}", literal::ABOUT))]
    Publish {
        /// The topic
        #[arg(allow_negative_numbers = true)]
        topic: String,
        /// The values of the message
        #[arg(required = true, value_name = "VALUE", allow_negative_numbers = true)]
        values: Vec<String>,
    },
}

const PATTERNS: &str = "\
In a pattern ? matches any character, * any number of them, [a-z] one of these and [!a-z] one that
is not among these. [*], [?] and [[] match these characters themselves.";

const SUBSCRIBE_EXAMPLES: &str = "\
Examples:
  kvc subscribe news --for 10m
  kvc subscribe jobs.done --count 1 --for 30s || echo 'not done yet'";

const PSUBSCRIBE_EXAMPLES: &str = "\
Examples:
  kvc psubscribe 'orders.*'
  kvc psubscribe 'jobs.*' --count 1 --for 30s || echo 'none is done yet'";

const PUBLISH_EXIT_CODES: &str = "\
Exit codes: 0 done, whether or not there are subscriptions; 2 usage; 3 the server answered with an
error; 4 the server cannot be reached, closed the connection, or does not answer in time; 6 a value
is malformed, or its file cannot be read.";

impl PubsubCommand {
    pub(super) fn task(self, literals: &mut Literals) -> Result<Task, Failure> {
        Ok(match self {
            Self::Subscribe { topics, until } => Task::Subscribe(Subscription {
                names: topics,
                patterns: false,
                until,
            }),
            Self::Psubscribe { patterns, until } => Task::Subscribe(Subscription {
                names: patterns,
                patterns: true,
                until,
            }),
            Self::Publish { topic, values } => {
                let values = values.iter().map(|literal| literals.value(literal));
                let values = values.collect::<Result<Vec<_>, _>>()?;
                Task::Request(CommandRequest::new_publish(topic, values))
            }
        })
    }
}
