//! The command line, and what it asks for: a request, or messages as they come.
//!
//! The names of the subcommands are the protocol's. What clap cannot check, such as whether pairs are
//! complete, is checked here and reported in the same way.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use kv::abi::{CommandRequest, Kvpair};
use kv::{Address, DEFAULT_ADDRESS};
use tokio::time::Instant;

use crate::bench::BenchArgs;
use crate::commands::info::ABOUT;
use crate::commands::man::{COMPLETIONS, MAN};
use crate::commands::ping::PingArgs;
use crate::commands::scan;
use crate::connection::Compression;
use crate::connection::targets::{self, Sources, TargetArgs};
use crate::connection::tls::TlsArgs;
use crate::failure::Failure;
use crate::help::mistakes::Mistake;
use crate::help::{
    self, EXIT_CODES, HGET_EXAMPLES, HMSET_EXAMPLES, HSCAN_EXAMPLES, HSET_EXAMPLES, MESSAGES,
    PATTERNS, PUBLISH_EXIT_CODES, SESSIONS, VALUES,
};
use crate::input::base64;
use crate::input::literal::Literals;
use crate::output::Format;
use crate::time::{self, InvalidTime};
use crate::transfer::{ExportArgs, ImportArgs};
use crate::usage;

/// The client of the key-value server kvs.
#[derive(Debug, Parser)]
#[command(name = "kvc", version, after_help = format!("{SESSIONS}\n\n{VALUES}\n\n{EXIT_CODES}"),
    after_long_help = format!("{SESSIONS}\n\n{VALUES}\n\n{}\n\n{EXIT_CODES}", targets::ABOUT))]
pub(crate) struct Args {
    /// The address of the server; of a name with several, the first that takes the connection
    #[arg(long, global = true, env = "KVC_ADDR", value_name = "HOST:PORT", default_value = DEFAULT_ADDRESS)]
    pub(crate) addr: Address,

    /// How long to wait for the connection, and then for the answer: 5s, 500ms, 2m
    #[arg(long, global = true, env = "KVC_TIMEOUT", value_name = "TIME", default_value = "5s",
        value_parser = positive)]
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

    /// Whether long requests and answers are compressed: with off the server is asked to send them
    /// plain, as well
    #[arg(
        long,
        global = true,
        env = "KVC_COMPRESSION",
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub(crate) compression: Compression,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    /// Of lines on standard input: go on after one that fails, and send what follows before it is answered
    #[arg(long)]
    pub(crate) keep_going: bool,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Args {
    /// What the command line and the variables say. A variable that is empty counts as unset.
    pub(crate) fn load() -> Result<Self, clap::Error> {
        let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
        let command = help::laid_out(Self::command()).mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(None::<&str>),
            _ => arg,
        });
        let words: Vec<_> = env::args_os().collect();
        let matches = command
            .clone()
            .try_get_matches_from(&words)
            .unwrap_or_else(|error| misunderstood(&command, &words, &error));
        let mut args = Self::from_arg_matches(&matches)?;
        args.target.sources = Sources::of(&matches);
        if args.keep_going && args.command.is_some() {
            let message =
                "--keep-going is for commands on standard input, and there is one here already";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(args)
    }

    /// The same server, for one line of a session that has flags of its own.
    pub(crate) fn for_line(&self, output: Format, timeout: Duration) -> Self {
        Self {
            addr: self.addr.clone(),
            timeout,
            output,
            compression: self.compression,
            target: self.target.clone(),
            keep_going: self.keep_going,
            tls: self.tls.clone(),
            command: None,
        }
    }

    /// Whether the command line itself says how long an answer may take.
    pub(crate) fn has_timeout(&self) -> bool {
        self.target.sources.is_flag("timeout")
    }

    /// That the server took longer than it may.
    pub(crate) fn late(&self) -> Failure {
        Failure::late(&self.addr, self.timeout, false)
    }
}

/// Reports a command line that is not understood, with what its command takes, and ends the program. Help that was
/// asked for is shown.
fn misunderstood(command: &clap::Command, words: &[OsString], error: &clap::Error) -> ! {
    let whose = whose_help(error);
    let line = match Mistake::new(command, words, error).explain() {
        Ok(_) => usage::end(&whose, error),
        Err(line) => line,
    };
    let mut root = Args::command();
    root.build();
    let command = whose.split(' ').nth(1);
    let command = command.and_then(|name| root.find_subcommand_mut(name));
    let takes_words = command.filter(|command| command.get_positionals().next().is_some());
    let usage = takes_words.map(|command| {
        let usage = command.render_usage().to_string();
        usage
            .trim_start_matches("Usage: ")
            .replace(" [OPTIONS]", "")
    });
    usage::refuse(&whose, usage.as_deref(), &line)
}

/// Whose help says more of a command line that is not understood: `kvc`, or a command of it.
fn whose_help(error: &clap::Error) -> String {
    let text = error.to_string();
    if let Some(usage) = text.lines().find_map(|line| line.strip_prefix("Usage: ")) {
        let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
        let names = usage.split_whitespace().take_while(is_name);
        return names.collect::<Vec<_>>().join(" ");
    }
    // What a mistake in a value says has no usage.
    let matches = Args::command().ignore_errors(true).try_get_matches();
    let command = matches.as_ref().ok().and_then(ArgMatches::subcommand_name);
    command.map_or("kvc".to_owned(), |command| format!("kvc {command}"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of a key
    #[command(alias = "HGET", after_help = HGET_EXAMPLES)]
    Hget {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The key
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// Print every pair of a table, in the order of the keys
    #[command(alias = "HGETALL")]
    Hgetall {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
    },
    /// Print a part of a table, in the order of the keys
    #[command(alias = "HSCAN", after_help = HSCAN_EXAMPLES)]
    Hscan {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The least key to print, whether or not it exists
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
        /// How many pairs to print; 0 for as many as an answer has room for
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
            value_parser = number(0..=u32::MAX))]
        limit: u32,
    },
    /// Print the values of several keys of a table
    #[command(alias = "HMGET")]
    Hmget {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The keys
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<String>,
    },
    /// Store a value, and print the one that it replaced
    #[command(alias = "HSET", after_help = format!("{VALUES}\n\n{HSET_EXAMPLES}"))]
    Hset {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The key
        #[arg(allow_negative_numbers = true)]
        key: String,
        /// The value: a string, unless it begins as one of those below
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Store several values of a table, all or none, and print those that they replaced
    #[command(alias = "HMSET", after_help = format!("{VALUES}\n\n{HMSET_EXAMPLES}"))]
    Hmset {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The keys, each with its value behind it: a string, unless it begins as one of those below
        #[arg(required = true, num_args = 2.., value_names = ["KEY", "VALUE"], allow_negative_numbers = true)]
        pairs: Vec<String>,
    },
    /// Remove a key, and print the value that it had
    #[command(alias = "HDEL")]
    Hdel {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The key
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// Remove several keys of a table, all or none, and print the values that they had
    #[command(alias = "HMDEL")]
    Hmdel {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The keys
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<String>,
    },
    /// Print whether a key exists
    #[command(alias = "HEXIST")]
    Hexist {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The key
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// Print whether each of several keys of a table exists
    #[command(alias = "HMEXIST")]
    Hmexist {
        /// The table
        #[arg(allow_negative_numbers = true)]
        table: String,
        /// The keys
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<String>,
    },
    /// Print what is published to a topic, or to several, as it comes
    #[command(alias = "SUBSCRIBE", after_help = MESSAGES)]
    Subscribe {
        /// The topics whose messages to print
        #[arg(required = true, value_name = "TOPIC", allow_negative_numbers = true)]
        topics: Vec<String>,
        #[command(flatten)]
        until: Until,
    },
    /// Print what is published to every topic that a pattern matches, as it comes
    #[command(alias = "PSUBSCRIBE", after_help = format!("{PATTERNS}\n\n{MESSAGES}"))]
    Psubscribe {
        /// The patterns of the topics whose messages to print
        #[arg(required = true, value_name = "PATTERN", allow_negative_numbers = true)]
        patterns: Vec<String>,
        #[command(flatten)]
        until: Until,
    },
    /// Send a message of one value or more to all who are subscribed to a topic, and print how many got it
    ///
    /// Prints the number of subscriptions that it reached; 0 is a success.
    #[command(alias = "PUBLISH", after_help = format!("{VALUES}\n\n{PUBLISH_EXIT_CODES}"))]
    Publish {
        /// The topic that it goes to
        #[arg(allow_negative_numbers = true)]
        topic: String,
        /// The values of the message
        #[arg(required = true, value_name = "VALUE", allow_negative_numbers = true)]
        values: Vec<String>,
    },
    /// Write tables to standard output, to keep them or to import them elsewhere
    Export(ExportArgs),
    /// Store the rows of a file that export has written, or something else in that form
    Import(ImportArgs),
    /// Ask whether the server answers, and print pong
    #[command(alias = "PING")]
    Ping(PingArgs),
    /// Print what the server is, what it allows, and the round trip to it
    #[command(alias = "INFO", after_help = ABOUT)]
    Info,
    /// Print what completes this command line in a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        #[arg(required_unless_present = "targets")]
        shell: Option<Shell>,
        /// Print the names of the targets instead, one a line: what the scripts ask for
        #[arg(long, conflicts_with = "shell")]
        targets: bool,
    },
    /// Print the page of the manual, for man
    #[command(after_help = MAN)]
    Man,
    Bench(BenchArgs),
}

/// When there were enough messages.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Until {
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX))]
    pub(crate) count: Option<u64>,

    /// End after this time, while standard output is read: 10s, 500ms, 2m; with --count, exit with 1
    /// if fewer messages came
    #[arg(long = "for", value_name = "TIME", value_parser = positive)]
    pub(crate) within: Option<Duration>,
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// The answer to a request.
    Answer(CommandRequest),
    /// Messages.
    Messages(Listen<'a>),
    /// A sign of life.
    Pong(&'a PingArgs),
    /// What the server is.
    Facts,
    /// What a shell completes a command line with, or else the names of the targets.
    Completions(Option<Shell>),
    /// The page of the manual.
    Man,
    /// What a load does to the server.
    Bench(&'a BenchArgs),
    /// Tables as a file.
    Export(&'a ExportArgs),
    /// A file as tables.
    Import(&'a ImportArgs),
}

/// Which messages, and until when.
#[derive(Debug)]
pub(crate) struct Listen<'a> {
    pub(crate) names: &'a [String],
    /// Whether these are patterns, and not topics.
    pub(crate) patterns: bool,
    pub(crate) until: Until,
}

impl Command {
    /// Whether it is of any concern where a server is.
    pub(crate) fn asks_a_server(&self) -> bool {
        !matches!(self, Self::Completions { .. } | Self::Man)
    }

    /// Whether there is something on standard output when it has gone well.
    pub(crate) fn prints(&self) -> bool {
        !matches!(self, Self::Import(_))
    }

    /// What is asked for, with the values that come from files.
    pub(crate) fn asked(&self, mut literals: Literals) -> Result<Asked<'_>, Failure> {
        let request = match self {
            Self::Hget { table, key } => CommandRequest::new_hget(table, key),
            Self::Hgetall { table } => CommandRequest::new_hgetall(table),
            Self::Hscan {
                table,
                from,
                from_b64,
                limit,
            } => scan::scan(table, from_b64.as_ref().unwrap_or(from), *limit),
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
            Self::Publish { topic, values } => {
                let values = values.iter().map(|literal| literals.value(literal));
                CommandRequest::new_publish(topic, values.collect::<Result<Vec<_>, _>>()?)
            }
            Self::Info => return Ok(Asked::Facts),
            Self::Completions { shell, .. } => return Ok(Asked::Completions(*shell)),
            Self::Man => return Ok(Asked::Man),
            Self::Ping(ping) => return Ok(Asked::Pong(ping)),
            Self::Bench(bench) => return Ok(Asked::Bench(bench)),
            Self::Export(what) => return Ok(Asked::Export(what)),
            Self::Import(what) => return Ok(Asked::Import(what)),
            Self::Subscribe { topics, until } => return Ok(until.messages(topics, false)),
            Self::Psubscribe { patterns, until } => return Ok(until.messages(patterns, true)),
        };
        Ok(Asked::Answer(request))
    }
}

impl Until {
    fn messages<'a>(&self, names: &'a [String], patterns: bool) -> Asked<'a> {
        Asked::Messages(Listen {
            names,
            patterns,
            until: *self,
        })
    }

    /// When a subscription that begins now is over, if that is ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.within?)
    }
}

/// A time, of any length.
pub(crate) fn time(text: &str) -> Result<Duration, InvalidTime> {
    time::parse(text, |_| true)
}

/// A whole number in this range, which is told where it is not in it or is no number.
pub(crate) fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: Clone + Display + FromStr + PartialOrd + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
    }
}

/// A time that something can be done in.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    let time = time(text).map_err(|error| error.to_string())?;
    match time.is_zero() {
        true => Err("the time must be greater than zero; write 500ms, 5s or 2m".to_owned()),
        false => Ok(time),
    }
}

fn in_pairs(words: &[String], literals: &mut Literals) -> Result<Vec<Kvpair>, Failure> {
    let (pairs, rest) = words.as_chunks::<2>();
    if let [key] = rest {
        return Err(Failure::Usage(format!(
            "the key {key:?} has no value; write KEY VALUE KEY VALUE .."
        )));
    }
    pairs
        .iter()
        .map(|[key, literal]| Ok(Kvpair::new(key, literals.value(literal)?)))
        .collect()
}
