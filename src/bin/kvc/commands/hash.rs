//! The commands on tables.

use clap::{Args, Subcommand};
use kv::abi::{CommandRequest, Kvpair};

use super::scan;
use crate::failure::Failure;
use crate::input::base64;
use crate::input::literal::{self, Literals};
use crate::input::number::number;
use crate::output::quote::quoted;

#[derive(Debug, Subcommand)]
pub(crate) enum HashCommand {
    /// Print the value of a key
    #[command(after_help = HGET_EXAMPLES)]
    Hget(TableKey),
    /// Print every pair of a table, in the order of the keys
    Hgetall(Table),
    /// Print a part of a table, in the order of the keys
    #[command(after_help = HSCAN_EXAMPLES)]
    Hscan {
        #[command(flatten)]
        table: Table,
        /// Start at this key, whether or not it exists
        #[arg(
            long,
            value_name = "KEY",
            default_value = "",
            hide_default_value = true
        )]
        from: String,
        /// The same in base64, for a key with invisible characters or NUL
        #[arg(long, value_name = "BASE64", conflicts_with = "from", value_parser = base64::key)]
        from_b64: Option<String>,
        /// How many pairs to print; 0 for as many as fit into one answer
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
            value_parser = number(0..=u32::MAX))]
        limit: u32,
    },
    /// Print how many keys a table has; 0 if it does not exist
    Hlen(Table),
    /// Print the values of several keys of a table
    Hmget(TableKeys),
    /// Store a value, and print the one that it replaced
    #[command(after_help = format!("{}\n\n{HSET_EXAMPLES}", literal::ABOUT))]
    Hset {
        #[command(flatten)]
        at: TableKey,
        /// The value: a string, unless it starts with one of the prefixes below
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Store several values in a table, all or none, and print those that they replaced
    #[command(after_help = format!("{}\n\n{HMSET_EXAMPLES}", literal::ABOUT))]
    Hmset {
        #[command(flatten)]
        table: Table,
        /// Each key, followed by its value: a string, unless it starts with one of the prefixes
        /// below
        #[arg(required = true, num_args = 2.., value_names = ["KEY", "VALUE"],
            allow_negative_numbers = true)]
        pairs: Vec<String>,
    },
    /// Remove a key, and print the value that it had
    Hdel(TableKey),
    /// Remove several keys of a table, all or none, and print the values that they had
    Hmdel(TableKeys),
    /// Print whether a key exists
    Hexist(TableKey),
    /// Print for each of several keys of a table whether it exists
    Hmexist(TableKeys),
}

#[derive(Debug, Args)]
pub(crate) struct Table {
    /// The table
    #[arg(allow_negative_numbers = true)]
    table: String,
}

#[derive(Debug, Args)]
pub(crate) struct TableKey {
    /// The table
    #[arg(allow_negative_numbers = true)]
    table: String,
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
}

#[derive(Debug, Args)]
pub(crate) struct TableKeys {
    /// The table
    #[arg(allow_negative_numbers = true)]
    table: String,
    /// The keys
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    keys: Vec<String>,
}

const HGET_EXAMPLES: &str = "\
Examples:
  kvc hget users alice
  kvc hget files logo.png --output raw > logo.png";

const HSCAN_EXAMPLES: &str = "\
If the table has more, standard error gives the flag that continues: --from, or --from-b64 for a key
with invisible characters. kvc export prints a whole table, whatever its size.

Examples:
  kvc hscan users --limit 100
  kvc hscan users --from bob --limit 100";

const HSET_EXAMPLES: &str = "\
Examples:
  kvc hset users alice 'Alice Liddell'
  kvc hset scores alice int:42
  kvc hset files logo.png @logo.png";

const HMSET_EXAMPLES: &str = "\
Examples:
  kvc hmset scores alice int:42 bob float:1.5
  kvc hmset users alice 'Alice Liddell' bob 'Bob Dodgson'";

impl HashCommand {
    pub(super) fn request(self, literals: &mut Literals) -> Result<CommandRequest, Failure> {
        Ok(match self {
            Self::Hget(TableKey { table, key }) => CommandRequest::new_hget(table, key),
            Self::Hgetall(Table { table }) => CommandRequest::new_hgetall(table),
            Self::Hscan {
                table: Table { table },
                from,
                from_b64,
                limit,
            } => scan::request(&table, &from_b64.unwrap_or(from), limit),
            Self::Hlen(Table { table }) => CommandRequest::new_hlen(table),
            Self::Hmget(TableKeys { table, keys }) => CommandRequest::new_hmget(table, keys),
            Self::Hset {
                at: TableKey { table, key },
                value,
            } => CommandRequest::new_hset(table, key, literals.value(&value)?),
            Self::Hmset {
                table: Table { table },
                pairs,
            } => CommandRequest::new_hmset(table, in_pairs(&pairs, literals)?),
            Self::Hdel(TableKey { table, key }) => CommandRequest::new_hdel(table, key),
            Self::Hmdel(TableKeys { table, keys }) => CommandRequest::new_hmdel(table, keys),
            Self::Hexist(TableKey { table, key }) => CommandRequest::new_hexist(table, key),
            Self::Hmexist(TableKeys { table, keys }) => CommandRequest::new_hmexist(table, keys),
        })
    }
}

fn in_pairs(words: &[String], literals: &mut Literals) -> Result<Vec<Kvpair>, Failure> {
    let (pairs, rest) = words.as_chunks::<2>();
    if let [key] = rest {
        return Err(Failure::usage_of(
            "kvc hmset",
            format!(
                "the key {} has no value; write KEY VALUE KEY VALUE ..",
                quoted(key)
            ),
        ));
    }
    pairs
        .iter()
        .map(|[key, literal]| Ok(Kvpair::new(key, literals.value(literal)?)))
        .collect()
}
