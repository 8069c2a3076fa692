//! `RUST_LOG`: the level of everything, and of modules that have their own.
//!
//! It is parsed as usual in Rust, except that mistakes are errors. Elsewhere any word is a module,
//! so that `RUST_LOG=inof` logs nothing but a module that does not exist.
//! `RUST_LOG=kv::sever=debug` would be silence too.

use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

use crate::toml_file::nearest;

/// The two crates that log: the library and this program. Their modules are `kv::..` and `kvs::..`.
const CRATES: [&str; 2] = ["kv", "kvs"];

/// The crates and all their modules, sorted. build.rs generates the list.
const MODULES: &[&str] = include!(concat!(env!("OUT_DIR"), "/modules.rs"));

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why `RUST_LOG` is invalid.
#[derive(Debug, Error)]
#[error("RUST_LOG={directives:?}: {mistake}")]
pub(crate) struct InvalidDirectives {
    directives: String,
    mistake: Mistake,
}

#[derive(Debug, Error)]
enum Mistake {
    #[error("unknown log level {got:?}; {}", instead(got))]
    Level { got: String },
    #[error(
        "{got:?} is neither a log level nor a module of kvs; {}",
        instead_of_word(got)
    )]
    Word { got: String },
    #[error("kvs has no module called {got:?}; did you mean {meant}?")]
    Module { got: String, meant: String },
    #[error("{got:?} is not one directive; separate directives with commas: {separated}")]
    Separator { got: String, separated: String },
    #[error(
        "no directive selects anything that kvs logs; put a level for everything else first, such \
         as info,{first}"
    )]
    Nothing { first: String },
    #[error("{got:?} is not understood: {reason}; write MODULE=LEVEL, such as kv::server=debug")]
    Other { got: String, reason: ParseError },
}

/// Parses directives separated by commas. Without any, the level is `info`.
pub(crate) fn parse(text: &str) -> Result<Targets, InvalidDirectives> {
    parse_all(text).map_err(|mistake| InvalidDirectives {
        directives: text.to_owned(),
        mistake,
    })
}

fn parse_all(text: &str) -> Result<Targets, Mistake> {
    // An empty directive would enable everything.
    let directives = text.split(',').map(str::trim);
    let directives: Vec<_> = directives
        .filter(|directive| !directive.is_empty())
        .collect();
    let Some(first) = directives.first() else {
        return Ok(Targets::new().with_default(LevelFilter::INFO));
    };
    let mut chooses = false;
    let mut misspelled = None;
    let mut read = Vec::new();
    for directive in &directives {
        let (target, level) = split(directive)?;
        let of_ours = target.is_none_or(|target| target.is_empty() || is_ours(target));
        chooses |= of_ours;
        if let Some(target) = target.filter(|_| !of_ours) {
            let meant = nearest(target, CRATES.map(str::to_owned));
            misspelled = misspelled.or(meant.map(|meant| (target.to_owned(), meant)));
        }
        read.push(match target {
            Some(target) => format!("{target}={level}"),
            None => level.to_string(),
        });
    }
    if !chooses {
        let first = (*first).to_owned();
        return Err(match misspelled {
            Some((got, meant)) => Mistake::Module { got, meant },
            None => Mistake::Nothing { first },
        });
    }
    let read = read.join(",");
    read.parse()
        .map_err(|reason| Mistake::Other { got: read, reason })
}

/// Splits a directive into its module, or [`None`] if it is for everything, and its level.
fn split(directive: &str) -> Result<(Option<&str>, LevelFilter), Mistake> {
    check_separators(directive)?;
    let Some((target, level)) = directive.split_once('=') else {
        if let Ok(level) = directive.parse() {
            return Ok((None, level));
        }
        check_module(directive)?;
        if is_ours(directive) {
            return Ok((Some(directive), LevelFilter::TRACE));
        }
        let got = directive.to_owned();
        return Err(match nearest_level(&got) {
            Some(_) => Mistake::Level { got },
            None => Mistake::Word { got },
        });
    };
    let (target, level) = (target.trim(), level.trim());
    let parsed = level.parse().map_err(|_| Mistake::Level {
        got: level.to_owned(),
    })?;
    check_module(target)?;
    Ok((Some(target), parsed))
}

/// Refuses directives separated by anything but a comma. Spaces around `=` are allowed.
fn check_separators(directive: &str) -> Result<(), Mistake> {
    let sides: Vec<Vec<_>> = directive
        .split('=')
        .map(|side| {
            side.split(|c: char| c == ';' || c.is_whitespace())
                .filter(|word| !word.is_empty())
                .collect()
        })
        .collect();
    if sides.iter().all(|words| words.len() < 2) {
        return Ok(());
    }
    let sides: Vec<_> = sides.iter().map(|words| words.join(",")).collect();
    Err(Mistake::Separator {
        got: directive.to_owned(),
        separated: sides.join("="),
    })
}

/// Refuses a target that begins with one of our crates, in any case and with any separators, but is
/// not one of their modules.
fn check_module(target: &str) -> Result<(), Mistake> {
    let module = module_of(target);
    let parts = parts_of(module);
    let of_ours = parts.first().is_some_and(|first| is_ours(first));
    if !of_ours || MODULES.contains(&module) {
        return Ok(());
    }
    Err(Mistake::Module {
        got: module.to_owned(),
        meant: meant(&parts),
    })
}

/// The parts of a module's path in lower case, whatever separates them.
fn parts_of(module: &str) -> Vec<String> {
    let is_between = |c: char| !c.is_alphanumeric() && c != '_';
    module
        .split(is_between)
        .filter(|part| !part.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The directive that may be meant by an unknown module with these parts.
fn meant(parts: &[String]) -> String {
    match parts.split_last() {
        // For example kv:debug.
        Some((level, parts)) if !parts.is_empty() && LEVELS.contains(&level.as_str()) => {
            return format!("{}={level}", meant(parts));
        }
        _ => {}
    }
    let (own, is_whole) = nearest_module(parts);
    if is_whole {
        return own;
    }
    let rest = parts.iter().skip(1).cloned();
    for other in CRATES {
        let parts: Vec<_> = [other.to_owned()].into_iter().chain(rest.clone()).collect();
        if let (module, true) = nearest_module(&parts) {
            return module;
        }
    }
    own
}

/// Follows the parts, which begin with a crate, down the tree of modules as far as they resemble
/// existing ones. Returns the module reached, and whether every part matched.
fn nearest_module(parts: &[String]) -> (String, bool) {
    let mut parts = parts.iter();
    let mut module = parts.next().cloned().unwrap_or_default();
    for part in parts {
        let parent = format!("{module}::");
        let children = MODULES
            .iter()
            .filter_map(|known| known.strip_prefix(&*parent))
            .filter(|child| !child.contains("::"));
        // Similarity measures say little about names this short: allow one error in three letters.
        let distances = children.map(|child| (strsim::osa_distance(part, child), child));
        let alike = distances.filter(|(distance, child)| distance * 3 <= child.len());
        match alike.min() {
            Some((_, child)) => module = parent.clone() + child,
            None => return (module, false),
        }
    }
    (module, true)
}

/// Whether a target begins with one of our crates. It may have a filter on fields.
fn is_ours(target: &str) -> bool {
    let name = module_of(target).split("::").next().unwrap_or_default();
    CRATES.contains(&name)
}

/// A target without its filter on fields.
fn module_of(target: &str) -> &str {
    target.split('[').next().unwrap_or_default()
}

fn nearest_level(got: &str) -> Option<String> {
    nearest(got, LEVELS.map(str::to_owned))
}

fn instead_of_word(got: &str) -> String {
    match nearest(got, CRATES.map(str::to_owned)) {
        Some(module) => format!("did you mean {module}?"),
        None => instead(got),
    }
}

fn instead(got: &str) -> String {
    match nearest_level(got) {
        Some(level) => format!("did you mean {level}?"),
        None => format!(
            "write {}, or MODULE=LEVEL, such as kv::server=debug",
            LEVELS.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn accepts_levels_and_modules_as_usual() {
        for (text, library, program) in [
            ("", Some(Level::INFO), Some(Level::INFO)),
            (" , ", Some(Level::INFO), Some(Level::INFO)),
            ("warn", Some(Level::WARN), Some(Level::WARN)),
            ("INFO,", Some(Level::INFO), Some(Level::INFO)),
            ("off", None, None),
            ("3", Some(Level::INFO), Some(Level::INFO)),
            ("kv", Some(Level::TRACE), Some(Level::TRACE)),
            ("kv::server,warn", Some(Level::TRACE), Some(Level::WARN)),
            (
                "info, kv::server = debug",
                Some(Level::DEBUG),
                Some(Level::INFO),
            ),
            ("kv=debug,hyper=off", Some(Level::DEBUG), Some(Level::DEBUG)),
            ("error,h2=trace", Some(Level::ERROR), Some(Level::ERROR)),
            ("kvs=off,info", Some(Level::INFO), None),
        ] {
            let targets = parse(text).unwrap();
            for (target, expected) in [("kv::server::handler", library), ("kvs::start", program)] {
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
    fn refuses_directives_that_would_silence_the_log_by_mistake() {
        for (text, message) in [
            ("inof", "unknown log level \"inof\"; did you mean info?"),
            ("Debgu", "unknown log level \"Debgu\"; did you mean debug?"),
            ("kv=inof", "unknown log level \"inof\"; did you mean info?"),
            (
                "info,wran",
                "unknown log level \"wran\"; did you mean warn?",
            ),
            (
                "kv=loud",
                "unknown log level \"loud\"; write off, error, warn, info, debug, trace, or \
                 MODULE=LEVEL, such as kv::server=debug",
            ),
            (
                "hyper",
                "\"hyper\" is neither a log level nor a module of kvs; write off, error, warn, \
                 info, debug, trace, or MODULE=LEVEL, such as kv::server=debug",
            ),
            (
                "hyper=off",
                "no directive selects anything that kvs logs; put a level for everything else \
                 first, such as info,hyper=off",
            ),
            (
                "kvv=debug",
                "kvs has no module called \"kvv\"; did you mean kv?",
            ),
            (
                "kvv",
                "\"kvv\" is neither a log level nor a module of kvs; did you mean kv?",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("RUST_LOG={text:?}: {message}"));
        }
        let error = parse("kv[{peer]=debug").unwrap_err().to_string();
        assert!(error.contains("is not understood"), "{error}");
    }

    #[test]
    fn refuses_an_unknown_module_with_a_known_one() {
        for (text, got, meant) in [
            ("kv::sever=debug", "kv::sever", "kv::server"),
            ("info,kv::sever=debug", "kv::sever", "kv::server"),
            ("kv::serve", "kv::serve", "kv::server"),
            ("kv::server::", "kv::server::", "kv::server"),
            (
                "kv::sever::acepted=debug",
                "kv::sever::acepted",
                "kv::server::accepted",
            ),
            ("kv::server::nope=debug", "kv::server::nope", "kv::server"),
            ("kvs::nope", "kvs::nope", "kvs"),
            ("kvs::server=debug,info", "kvs::server", "kv::server"),
            ("kv::sever[{peer}]=debug", "kv::sever", "kv::server"),
            ("KV=info", "KV", "kv"),
            ("info,kv::Server=debug", "kv::Server", "kv::server"),
            ("kv.server=debug", "kv.server", "kv::server"),
            ("kv:server", "kv:server", "kv::server"),
            ("kv:debug", "kv:debug", "kv=debug"),
            ("kv::bin::kvs=debug", "kv::bin::kvs", "kv"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            let message = format!("kvs has no module called {got:?}; did you mean {meant}?");
            assert_eq!(error, format!("RUST_LOG={text:?}: {message}"));
        }
    }

    #[test]
    fn refuses_directives_not_separated_by_commas() {
        for (text, got, separated) in [
            ("info kv=debug", "info kv=debug", "info,kv=debug"),
            ("warn,kv=debug info", "kv=debug info", "kv=debug,info"),
            ("info;kv = debug", "info;kv = debug", "info,kv=debug"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            let message = format!(
                "{got:?} is not one directive; separate directives with commas: {separated}"
            );
            assert_eq!(error, format!("RUST_LOG={text:?}: {message}"));
        }
    }

    #[test]
    fn accepts_every_module() {
        for module in MODULES {
            assert!(parse(&format!("{module}=debug")).is_ok(), "{module}");
        }
        for module in [
            module_path!().trim_end_matches("::tests"),
            "kv",
            "kv::server",
            "kv::client::driver",
            "kvs",
            "kvs::bounded_file",
            "kvs::size",
        ] {
            assert!(MODULES.contains(&module), "{module}");
        }
    }
}
