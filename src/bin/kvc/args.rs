//! The command line, and the request that it asks for.
//!
//! The names of the subcommands are the protocol's. What clap cannot check, such as whether pairs are
//! complete, is checked here and reported in the same way.

use std::env;
use std::ffi::OsStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kv::abi::{CommandRequest, Kvpair};
use kv::{Address, DEFAULT_ADDRESS};

use crate::failure::Failure;
use crate::literal::Literals;
use crate::output::Format;
use crate::tls::TlsArgs;
use crate::usage;

const VALUES: &str = "\
Values are strings unless they say otherwise:
  int:5  float:1.5  bool:true    a number or a truth value
  hex:00ff  b64:AP8=             bytes
  @FILE  -                       the bytes of a file, or of standard input
  str:int:5                      a string that looks like one of these";

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the answer is no (hget, hmget: a key is missing; hexist, hmexist: false);
2 usage; 3 the server answered an error; 4 the server cannot be reached, or does not answer in time;
6 a local file cannot be read or written, or a value is malformed.";

/// The client of the key-value server kvs.
#[derive(Debug, Parser)]
#[command(name = "kvc", version, after_help = format!("{VALUES}\n\n{EXIT_CODES}"))]
pub(crate) struct Args {
    /// The address of the server
    #[arg(long, global = true, env = "KVC_ADDR", value_name = "HOST:PORT", default_value = DEFAULT_ADDRESS)]
    pub(crate) addr: Address,

    /// How long to wait for the connection, and then for the answer: 5s, 500ms, 2m
    #[arg(long, global = true, env = "KVC_TIMEOUT", value_name = "TIME", default_value = "5s",
        value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,

    /// How to print values
    #[arg(
        long,
        global = true,
        env = "KVC_OUTPUT",
        value_enum,
        default_value = "text"
    )]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// What the command line and the variables say. A variable that is empty counts as unset.
    pub(crate) fn load() -> Result<Self, clap::Error> {
        let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
        let command = Self::command().mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(None::<&str>),
            _ => arg,
        });
        Self::from_arg_matches(&command.try_get_matches()?)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of a key
    #[command(alias = "HGET")]
    Hget {
        table: String,
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// Print every pair of a table, in the order of the keys
    #[command(alias = "HGETALL")]
    Hgetall { table: String },
    /// Print the values of several keys of a table
    #[command(alias = "HMGET")]
    Hmget {
        table: String,
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<String>,
    },
    /// Store a value, and print the one that it replaced
    #[command(alias = "HSET", after_help = VALUES)]
    Hset {
        table: String,
        #[arg(allow_negative_numbers = true)]
        key: String,
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Store several values of a table, all or none, and print those that they replaced
    #[command(alias = "HMSET", after_help = VALUES)]
    Hmset {
        table: String,
        #[arg(required = true, num_args = 2.., value_names = ["KEY", "VALUE"], allow_negative_numbers = true)]
        pairs: Vec<String>,
    },
    /// Remove a key, and print the value that it had
    #[command(alias = "HDEL")]
    Hdel {
        table: String,
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// Remove several keys of a table, all or none, and print the values that they had
    #[command(alias = "HMDEL")]
    Hmdel {
        table: String,
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<String>,
    },
    /// Print whether a key exists
    #[command(alias = "HEXIST")]
    Hexist {
        table: String,
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// Print whether each of several keys of a table exists
    #[command(alias = "HMEXIST")]
    Hmexist {
        table: String,
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<String>,
    },
}

impl Command {
    /// The request, with the values that come from files.
    pub(crate) fn request(&self) -> Result<CommandRequest, Failure> {
        let mut literals = Literals::default();
        Ok(match self {
            Self::Hget { table, key } => CommandRequest::new_hget(table, key),
            Self::Hgetall { table } => CommandRequest::new_hgetall(table),
            Self::Hmget { table, keys } => CommandRequest::new_hmget(table, keys),
            Self::Hset { table, key, value } => {
                CommandRequest::new_hset(table, key, literals.value(value)?)
            }
            Self::Hmset { table, pairs } => {
                CommandRequest::new_hmset(table, in_pairs(pairs, &mut literals)?)
            }
            Self::Hdel { table, key } => CommandRequest::new_hdel(table, key),
            Self::Hmdel { table, keys } => CommandRequest::new_hmdel(table, keys),
            Self::Hexist { table, key } => CommandRequest::new_hexist(table, key),
            Self::Hmexist { table, keys } => CommandRequest::new_hmexist(table, keys),
        })
    }
}

fn in_pairs(words: &[String], literals: &mut Literals) -> Result<Vec<Kvpair>, Failure> {
    let (pairs, rest) = words.as_chunks::<2>();
    if let [key] = rest {
        let message = format!("the key {key:?} has no value; write KEY VALUE KEY VALUE ..");
        usage::end(
            "kvc",
            &Args::command().error(ErrorKind::WrongNumberOfValues, message),
        );
    }
    pairs
        .iter()
        .map(|[key, literal]| Ok(Kvpair::new(key, literals.value(literal)?)))
        .collect()
}
