//! The command that removes the keys of a load that ended early.
//!
//! It is meant to be pasted, perhaps into another shell: it names the server, and its words are
//! quoted.

use std::fmt::Display;

use super::args::BenchArgs;
use crate::connection::Options;
use crate::hidden::is_hidden;

/// The command, and what it does.
pub(crate) fn how_to_remove(options: &Options, load: &BenchArgs) -> String {
    let keys = load.keys.to_string();
    let mut words = vec!["kvc".to_owned(), "bench".to_owned()];
    words.extend(server(options));
    words.extend(flag("table", Some(&load.table)));
    words.extend(flag("keys", Some(&keys)));
    words.extend(["--requests", "1", "--no-fill", "--cleanup"].map(str::to_owned));
    let quoted = shlex::try_join(words.iter().map(String::as_str));
    // What cannot be shown cannot be pasted, and a line break would break the message too.
    match quoted {
        Ok(line) if !line.contains(is_hidden) => format!("{line} removes them"),
        _ => "the same command with --requests 1 --no-fill --cleanup removes them".to_owned(),
    }
}

/// The words that name the server: the target and the flags beside it, or the address and all TLS
/// options in effect, whatever set them.
fn server(options: &Options) -> Vec<String> {
    let sources = &options.target.sources;
    let by_target = sources.is_flag("target");
    let says = |name| !by_target || sources.is_flag(name);
    let mut words = Vec::new();
    if by_target {
        let config = options.target.config.as_ref();
        words.extend(flag("config", config.map(|path| path.display())));
        words.extend(flag("target", options.target.target.as_ref()));
    }
    if says("addr") {
        words.extend(flag("addr", Some(&options.addr)));
    }
    let tls = &options.tls;
    if let Some(on) = tls.tls.filter(|_| says("tls")) {
        words.push(format!("--tls={on}"));
    }
    for (name, id, path) in [
        ("tls-ca", "tls_ca", &tls.tls_ca),
        ("tls-cert", "tls_cert", &tls.tls_cert),
        ("tls-key", "tls_key", &tls.tls_key),
    ] {
        let path = path.as_ref().filter(|_| says(id));
        words.extend(flag(name, path.map(|path| path.display())));
    }
    let name = tls.tls_server_name.as_ref();
    words.extend(flag(
        "tls-server-name",
        name.filter(|_| says("tls_server_name")),
    ));
    words
}

/// A flag and its value. A value that starts with - has to be attached with =.
fn flag(name: &str, value: Option<impl Display>) -> Vec<String> {
    match value.map(|value| value.to_string()) {
        None => Vec::new(),
        Some(value) if value.starts_with('-') => vec![format!("--{name}={value}")],
        Some(value) => vec![format!("--{name}"), value],
    }
}
