//! `RUST_LOG`: what is logged, a level for everything and one for each module that has its own.
//!
//! It is read as everywhere in Rust, except that a mistake is an error. Elsewhere any word is a module, so that
//! `RUST_LOG=inof` is silence: all of a module that does not exist.

use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

use crate::toml_file::nearest;

/// The two crates that log anything: the library and this program. Their modules are called `kv::net`, `kvs::start`.
const CRATES: [&str; 2] = ["kv", "kvs"];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why `RUST_LOG` is refused.
#[derive(Debug, Error)]
#[error("RUST_LOG={directives:?}: {mistake}")]
pub(crate) struct InvalidDirectives {
    directives: String,
    mistake: Mistake,
}

#[derive(Debug, Error)]
enum Mistake {
    #[error("no log level is called {got:?}; {}", instead(got))]
    Level { got: String },
    #[error("{got:?} is neither a log level nor a module of kvs; {}", instead(got))]
    Word { got: String },
    #[error(
        "nothing that kvs logs is chosen; put a level for everything else before it, such as info,{first}"
    )]
    Nothing { first: String },
    #[error("{got:?} is not understood: {reason}; write MODULE=LEVEL, such as kv::net=debug")]
    Other { got: String, reason: ParseError },
}

/// Reads directives that are separated by commas. Without any, it is `info`.
pub(crate) fn parse(text: &str) -> Result<Targets, InvalidDirectives> {
    read(text).map_err(|mistake| InvalidDirectives {
        directives: text.to_owned(),
        mistake,
    })
}

fn read(text: &str) -> Result<Targets, Mistake> {
    // An empty one would be all of every module.
    let directives = text.split(',').map(str::trim);
    let directives: Vec<_> = directives
        .filter(|directive| !directive.is_empty())
        .collect();
    let Some(first) = directives.first() else {
        return Ok(Targets::new().with_default(LevelFilter::INFO));
    };
    let mut chooses = false;
    let mut read = Vec::new();
    for directive in &directives {
        let (target, level) = split(directive)?;
        chooses |= target.is_none_or(|target| target.is_empty() || is_ours(target));
        read.push(match target {
            Some(target) => format!("{target}={level}"),
            None => level.to_string(),
        });
    }
    if !chooses {
        let first = (*first).to_owned();
        return Err(Mistake::Nothing { first });
    }
    let read = read.join(",");
    read.parse()
        .map_err(|reason| Mistake::Other { got: read, reason })
}

/// What a directive is for, which is everything where it names no module, and the level that it has from then on.
fn split(directive: &str) -> Result<(Option<&str>, LevelFilter), Mistake> {
    let Some((target, level)) = directive.split_once('=') else {
        return match directive.parse() {
            Ok(level) => Ok((None, level)),
            Err(_) if is_ours(directive) => Ok((Some(directive), LevelFilter::TRACE)),
            Err(_) => {
                let got = directive.to_owned();
                Err(match near(&got) {
                    Some(_) => Mistake::Level { got },
                    None => Mistake::Word { got },
                })
            }
        };
    };
    let level = level.trim();
    let parsed = level.parse().map_err(|_| Mistake::Level {
        got: level.to_owned(),
    })?;
    Ok((Some(target.trim()), parsed))
}

/// Whether a target is one of our crates, one of their modules, or one of these with certain fields.
fn is_ours(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default();
    CRATES.contains(&name)
}

fn near(got: &str) -> Option<String> {
    nearest(got, LEVELS.map(str::to_owned))
}

fn instead(got: &str) -> String {
    match near(got) {
        Some(level) => format!("did you mean {level}?"),
        None => format!(
            "write {}, or MODULE=LEVEL, such as kv::net=debug",
            LEVELS.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_and_modules_are_taken_as_everywhere() {
        for (text, library, program) in [
            ("", Some(Level::INFO), Some(Level::INFO)),
            (" , ", Some(Level::INFO), Some(Level::INFO)),
            ("warn", Some(Level::WARN), Some(Level::WARN)),
            ("INFO,", Some(Level::INFO), Some(Level::INFO)),
            ("off", None, None),
            ("3", Some(Level::INFO), Some(Level::INFO)),
            ("kv", Some(Level::TRACE), Some(Level::TRACE)),
            ("kv::net,warn", Some(Level::TRACE), Some(Level::WARN)),
            (
                "info, kv::net = debug",
                Some(Level::DEBUG),
                Some(Level::INFO),
            ),
            ("kv=debug,hyper=off", Some(Level::DEBUG), Some(Level::DEBUG)),
            ("error,h2=trace", Some(Level::ERROR), Some(Level::ERROR)),
            ("kvs=off,info", Some(Level::INFO), None),
        ] {
            let targets = parse(text).unwrap();
            for (target, expected) in [("kv::net::session", library), ("kvs::start", program)] {
                let levels = [
                    Level::TRACE,
                    Level::DEBUG,
                    Level::INFO,
                    Level::WARN,
                    Level::ERROR,
                ];
                let logged = levels
                    .into_iter()
                    .find(|level| targets.would_enable(target, level));
                assert_eq!(logged, expected, "{text:?} {target}");
            }
        }
    }

    #[test]
    fn what_would_be_silence_by_mistake_is_refused_with_what_to_write() {
        for (text, message) in [
            (
                "inof",
                "no log level is called \"inof\"; did you mean info?",
            ),
            (
                "Debgu",
                "no log level is called \"Debgu\"; did you mean debug?",
            ),
            (
                "kv=inof",
                "no log level is called \"inof\"; did you mean info?",
            ),
            (
                "info,wran",
                "no log level is called \"wran\"; did you mean warn?",
            ),
            (
                "kv=loud",
                "no log level is called \"loud\"; write off, error, warn, info, debug, trace, or MODULE=LEVEL, such as kv::net=debug",
            ),
            (
                "hyper",
                "\"hyper\" is neither a log level nor a module of kvs; write off, error, warn, info, debug, trace, or MODULE=LEVEL, such as kv::net=debug",
            ),
            (
                "hyper=off",
                "nothing that kvs logs is chosen; put a level for everything else before it, such as info,hyper=off",
            ),
            (
                "kvv=debug",
                "nothing that kvs logs is chosen; put a level for everything else before it, such as info,kvv=debug",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("RUST_LOG={text:?}: {message}"));
        }
        let error = parse("kv[{peer]=debug").unwrap_err().to_string();
        assert!(error.contains("is not understood"), "{error}");
    }
}
