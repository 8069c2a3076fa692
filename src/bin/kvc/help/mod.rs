//! The texts that stand below the help of a command.
//!
//! Lines that begin with a blank are shown as they are, and have to fit 80 columns. Others are one paragraph up to an
//! empty line, and are broken where the terminal ends.

pub(crate) mod mistakes;

use clap::Command;
use clap::builder::StyledStr;

/// What stands over the flags that every command has, below its own.
const OF_EVERY_COMMAND: &str = "Options of every command";

pub(crate) const SESSIONS: &str = "\
Without a command, at a terminal: a prompt, with history, completion and help (try help there).

Without a command, otherwise: runs the lines of standard input over one connection, each a command with its
words and quotes as in a shell; # begins a comment, and a backslash at the end of a line joins it with the
next. Lines are UTF-8 and end with LF or CRLF. The first error ends it, with the exit code of that line and
\"line N: ..\" on standard error, and nothing after it is executed: so a write is sent when everything before it
is answered, and reads are sent ahead. A no (a key is missing, hexist is false) is no error, and exits with 1 in
the end. --keep-going runs every line until the server is gone, sends writes ahead too, and exits with the code
of the first error.";

pub(crate) const VALUES: &str = "\
Values are strings unless they say otherwise:
  int:5  float:1.5  bool:true    a number or a truth value
  hex:00ff  b64:AP8=             bytes
  @FILE  -                       the bytes of a file, or of standard input
  str:int:5                      a string that looks like one of these
  -- -x                          one that begins with -, behind all flags";

pub(crate) const PATTERNS: &str = "\
In a pattern ? stands for any character, * for any number of them, [a-z] for one of these and [!a-z] for one
that is not. [*], [?] and [[] stand for these characters themselves.";

pub(crate) const MESSAGES: &str = "\
One line a message, as it comes: its values, with tabs between them. With several topics, or a pattern,
the topic comes first. A tab or a line break in one of these is written as \\t, \\n or \\r, so that a line can
always be split. A backslash is written as it is: where that makes a difference, use json.

  --output raw    exactly the bytes of the values, and nothing between them;
                  a terminal obeys what is in them, but at the prompt, where
                  control characters are escaped in every format
  --output json   an object a line, and ndjson the same:
    {\"subscription\":1,\"topic\":\"news\",\"values\":[{\"string\":\"hello\"}]}
                  with \"pattern\":\"new*\" for a pattern, and \"missed\":\"3\" where
                  three were missed
  --output csv    after the header message,topic,type,value a row for each
                  value, with the number of its message from 1; one without
                  type and value for a message that has none
  --output table  a line a message, with the topics below each other and two
                  blanks between values

Standard error says when it has subscribed, and when messages were missed because they came faster than
they were taken. While standard output takes nothing, nothing is read: a server whose messages are not
taken for its write_timeout, 30s by default, cuts the connection (exit code 4).
It ends with Ctrl-C, after --count messages, after the time that --for gives, or when nobody is left to
read them. --for ends it only while standard output is read: what has come is printed first, and waits
for a reader that has stopped. --timeout covers the connection and the subscription, not the messages.

Examples:
  kvc subscribe news --for 10m
  kvc subscribe jobs.done --count 1 --for 30s || echo 'not done yet'

Exit codes: 0 done; 1 fewer messages than --count came within --for; 2 usage; 3 the server refused, or ended the connection and said why; 4 the server
cannot be reached, is gone, or did not answer in time; 6 standard output cannot be written to.";

pub(crate) const PUBLISH_EXIT_CODES: &str = "\
Exit codes: 0 done, whether or not there are subscriptions; 2 usage; 3 the server answered an error;
4 the server cannot be reached, is gone, or does not answer in time; 6 a value is malformed, or its file
cannot be read.";

pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the answer is no (hget, hmget: a key is missing; hexist, hmexist: false; bench: a
check fails; subscribe: fewer messages than --count came within --for); 2 usage; 3 the server answered an
error; 4 the server cannot be reached, is gone, does not answer in time, or breaks the protocol; 6 a local
file or standard input cannot be read, standard output cannot be written to, or a value is malformed; 130
import or export was stopped by Ctrl-C, or bench before it measured anything. That the reader of standard
output has gone away (kvc hgetall t | head -1) is no error.";

pub(crate) const HGET_EXAMPLES: &str = "\
Examples:
  kvc hget users alice
  kvc hget files logo.png --output raw > logo.png";

pub(crate) const HSCAN_EXAMPLES: &str = "\
Where it ends before the table does, standard error says how to go on: with --from, or with --from-b64 where the
key has invisible characters. kvc export prints a table as a whole, whatever its size.

Examples:
  kvc hscan users --limit 100
  kvc hscan users --from bob --limit 100";

pub(crate) const HSET_EXAMPLES: &str = "\
Examples:
  kvc hset users alice 'Alice Liddell'
  kvc hset scores alice int:42
  kvc hset files logo.png @logo.png";

pub(crate) const HMSET_EXAMPLES: &str = "\
Examples:
  kvc hmset scores alice int:42 bob float:1.5
  kvc hmset users alice 'Alice Liddell' bob 'Bob Dodgson'";

/// The command line with its help as it is shown: a command's own flags before those of all, and the texts below it in
/// paragraphs that clap breaks, which would else break lines that are broken already.
pub(crate) fn laid_out(command: Command) -> Command {
    let command = command.mut_args(|argument| match argument.is_global_set() {
        true => argument.help_heading(OF_EVERY_COMMAND),
        false => argument,
    });
    with_paragraphs(command).mut_subcommands(with_paragraphs)
}

fn with_paragraphs(mut command: Command) -> Command {
    if let Some(text) = command.get_after_help().map(paragraphs) {
        command = command.after_help(text);
    }
    if let Some(text) = command.get_after_long_help().map(paragraphs) {
        command = command.after_long_help(text);
    }
    command
}

/// The text with a line for each paragraph.
fn paragraphs(text: &StyledStr) -> String {
    let mut joined = String::new();
    let mut flows = false;
    for line in text.to_string().lines() {
        let goes_on = !line.is_empty() && !line.starts_with(' ');
        if !joined.is_empty() {
            joined.push(if flows && goes_on { ' ' } else { '\n' });
        }
        joined += line;
        flows = goes_on;
    }
    joined
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_is_indented_fits_80_columns() {
        let root = crate::args::Args::command();
        for command in std::iter::once(&root).chain(root.get_subcommands()) {
            let texts = [command.get_after_help(), command.get_after_long_help()];
            for text in texts.into_iter().flatten() {
                for line in text.to_string().lines() {
                    // An example is a command, and some of bench's are long.
                    let room = if line.starts_with("  kvc bench") {
                        100
                    } else {
                        80
                    };
                    let fits = !line.starts_with(' ') || line.chars().count() <= room;
                    assert!(fits, "{}: {line}", command.get_name());
                }
            }
        }
    }

    #[test]
    fn a_paragraph_is_a_line_and_what_is_indented_stays() {
        let text = "one\ntwo\n\nthree\n  a\n  b\nfour\nfive";
        let joined = "one two\n\nthree\n  a\n  b\nfour five";
        assert_eq!(paragraphs(&StyledStr::from(text)), joined);
    }
}
