//! `RUST_LOG`: what is logged, a level for everything and one for each module that has its own.
//!
//! It is read as everywhere in Rust, except that a mistake is an error. Elsewhere any word is a module, so that
//! `RUST_LOG=inof` is silence: all of a module that does not exist. So is `RUST_LOG=kv::sever=debug`.

use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

use crate::toml_file::nearest;

/// The two crates that log anything: the library and this program. Their modules are called `kv::server`, `kvs::start`.
const CRATES: [&str; 2] = ["kv", "kvs"];

/// All of their modules and the crates themselves, in order, as build.rs finds them.
const MODULES: &[&str] = include!(concat!(env!("OUT_DIR"), "/modules.rs"));

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
        "nothing that kvs logs is chosen; put a level for everything else before it, such as info,{first}"
    )]
    Nothing { first: String },
    #[error("{got:?} is not understood: {reason}; write MODULE=LEVEL, such as kv::server=debug")]
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

/// What a directive is for, which is everything where it names no module, and the level that it has from then on.
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
        return Err(match near(&got) {
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

/// Refuses directives that something else than a comma separates. There may be spaces around the `=`.
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

/// Refuses a target that names one of our crates, in any spelling, but not one of their modules.
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

/// The names on the way to a module, whatever stands between them.
fn parts_of(module: &str) -> Vec<String> {
    let is_between = |c: char| !c.is_alphanumeric() && c != '_';
    module
        .split(is_between)
        .filter(|part| !part.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// What may be meant by the name of a module that does not exist, of which these are the parts.
fn meant(parts: &[String]) -> String {
    match parts.split_last() {
        // Such as kv:debug.
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

/// Follows the parts of a name, of which the first is a crate, as far as there are modules like them. Gives the module
/// that it comes to, and whether that is all the way.
fn nearest_module(parts: &[String]) -> (String, bool) {
    let mut parts = parts.iter();
    let mut module = parts.next().cloned().unwrap_or_default();
    for part in parts {
        let parent = format!("{module}::");
        let children = MODULES
            .iter()
            .filter_map(|known| known.strip_prefix(&*parent))
            .filter(|child| !child.contains("::"));
        // Not by likeness, which tells little about names this short: one error in three letters is allowed.
        let distances = children.map(|child| (strsim::osa_distance(part, child), child));
        let alike = distances.filter(|(distance, child)| distance * 3 <= child.len());
        match alike.min() {
            Some((_, child)) => module = parent.clone() + child,
            None => return (module, false),
        }
    }
    (module, true)
}

/// Whether a target is one of our crates, one of their modules, or one of these with certain fields.
fn is_ours(target: &str) -> bool {
    let name = module_of(target).split("::").next().unwrap_or_default();
    CRATES.contains(&name)
}

/// A target without the fields that it asks for.
fn module_of(target: &str) -> &str {
    target.split('[').next().unwrap_or_default()
}

fn near(got: &str) -> Option<String> {
    nearest(got, LEVELS.map(str::to_owned))
}

fn instead_of_word(got: &str) -> String {
    match nearest(got, CRATES.map(str::to_owned)) {
        Some(module) => format!("did you mean {module}?"),
        None => instead(got),
    }
}

fn instead(got: &str) -> String {
    match near(got) {
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
    fn levels_and_modules_are_taken_as_everywhere() {
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
            for (target, expected) in [("kv::server::accepted", library), ("kvs::start", program)] {
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
                "no log level is called \"loud\"; write off, error, warn, info, debug, trace, or MODULE=LEVEL, such as kv::server=debug",
            ),
            (
                "hyper",
                "\"hyper\" is neither a log level nor a module of kvs; write off, error, warn, info, debug, trace, or MODULE=LEVEL, such as kv::server=debug",
            ),
            (
                "hyper=off",
                "nothing that kvs logs is chosen; put a level for everything else before it, such as info,hyper=off",
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
    fn a_module_that_does_not_exist_is_refused_with_one_that_does() {
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
    fn what_separates_directives_is_a_comma() {
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
    fn every_module_that_exists_is_taken() {
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
