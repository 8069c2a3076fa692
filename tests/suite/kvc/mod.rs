//! The built kvc, run as a person or a script runs it.

#[cfg(target_os = "linux")]
mod addresses;
mod bench;
mod bench_ended;
mod bench_waits;
mod everyday;
mod help;
mod hints;
mod import;
mod import_csv;
mod import_json;
mod import_limits;
mod more;
mod older;
mod origins;
mod piped;
mod promises;
mod repl;
mod repl_connect;
mod repl_ended;
mod repl_lost;
mod transfer;
mod transfer_live;
