//! `kvc bench`: puts load on a server and measures it.
//!
//! A run stores the keys, puts the load on the server, reports, and removes the keys if asked to.
//! Each of these is a load of its own, on connections of its own, made by the same lean loop
//! ([`lane`]). For each request the loop does little more than copy it and look at the status of
//! the answer: the server is to be measured, not the client.

mod answer;
mod args;
mod check;
mod cleanup;
mod keys;
mod lane;
mod load;
mod mix;
mod plan;
mod progress;
mod report;
mod script;
mod stream;
mod tally;
mod text;
mod timer;
mod worker;

use std::io::{self, Write};
use std::sync::Arc;

use kv::abi::{CommandRequest, status};

use crate::connection::Options;
use crate::connection::{connect, within};
use crate::failure::Failure;
use crate::output::json;
use crate::output::{Format, say};

use check::Figure;
use cleanup::how_to_remove;
use keys::Keys;
use load::{Interrupt, Outcome};
use mix::{Kind, Mix};
use plan::{Pace, Plan, Until};
use report::{Checked, Report};
use script::{Content, Script};
use stream::Endpoint;

pub(crate) use args::BenchArgs;

/// The most bytes of values, and the most keys, in a request that stores keys.
const FILL_BYTES: usize = 64 * 1024;
const FILL_KEYS: usize = 500;

/// The divisor for the keys per request if their previous values are too large for an answer.
const FEWER: usize = 4;

/// The load for storing and removing keys.
const FILL_CONNECTIONS: usize = 16;
const FILL_PIPELINE: usize = 4;

/// The files that the process has open beside its connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Puts the load on the server, and prints the report.
pub(crate) async fn bench(options: &Options, load: &BenchArgs) -> Result<(), Failure> {
    let output = load.output(options);
    load.check(output)?;
    allow_descriptors(load)?;
    let endpoint = Arc::new(Endpoint {
        address: options.addr.clone(),
        connector: options.tls.connector()?,
        compression: options.compression,
        timeout: options.timeout,
    });
    greet(options).await?;
    let touches_table = load.mix.touches_table();
    let mut interrupt = Interrupt::new();
    if touches_table && !load.no_fill {
        on_every_key(
            Kind::Hmset,
            "storing",
            (options, load),
            &endpoint,
            &mut interrupt,
        )
        .await?;
    }
    let mut outcome = measure(load, &endpoint, &mut interrupt).await;
    let tls = endpoint.connector.is_some();
    let report = Report::new(load, (options.addr.to_string(), tls), &outcome);
    print(&report, output)?;
    if let Some(hint) =
        report::bottleneck(report.client_busy, report.client_waiting, outcome.elapsed)
    {
        say(&bottleneck(&report, hint));
    }
    let failure = outcome.failure.take().or_else(|| unmeasured(&report));
    if touches_table && load.cleanup {
        match &failure {
            None => {
                on_every_key(
                    Kind::Hmdel,
                    "removing",
                    (options, load),
                    &endpoint,
                    &mut interrupt,
                )
                .await?;
            }
            Some(_) => say(&format!(
                "the keys in table {:?} were left there; {}",
                load.table,
                how_to_remove(options, load)
            )),
        }
    }
    failure.map_or_else(|| verdict(&report, &outcome), Err)
}

/// Checks that a server answers, and reports everything there is to say if none does.
async fn greet(options: &Options) -> Result<(), Failure> {
    let client = connect(options).await?;
    within(options, client.execute(CommandRequest::new_ping())).await?;
    client.close().await;
    Ok(())
}

/// Stores or removes every key once.
///
/// Both commands answer with the previous values. If those do not fit into an answer, nothing was
/// done, and it starts over with fewer keys per request: only the server knows how large these
/// values are.
async fn on_every_key(
    kind: Kind,
    purpose: &'static str,
    (options, load): (&Options, &BenchArgs),
    endpoint: &Arc<Endpoint>,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    let mut batch = (FILL_BYTES / (load.size as usize).max(1)).clamp(1, FILL_KEYS);
    loop {
        let plan = every_key(kind, purpose, load, batch, endpoint);
        let outcome = load::run(plan, interrupt).await;
        if let Some(failure) = outcome.failure {
            return Err(failure);
        }
        if outcome.interrupted {
            return Err(Failure::Interrupted(format!(
                "ended by Ctrl-C while {purpose} the keys in table {:?}; some of them are there; \
                 {}",
                load.table,
                how_to_remove(options, load)
            )));
        }
        match outcome.tally.first_error {
            Some((status::TOO_LARGE, _)) if batch > 1 => batch = (batch / FEWER).max(1),
            Some((status, message)) => return Err(Failure::Server { status, message }),
            None => return Ok(()),
        }
    }
}

fn every_key(
    kind: Kind,
    purpose: &'static str,
    load: &BenchArgs,
    batch: usize,
    endpoint: &Arc<Endpoint>,
) -> Plan {
    let keys = u64::from(load.keys);
    let content = Content {
        table: &load.table,
        size: load.size as usize,
        batch,
    };
    Plan {
        purpose,
        endpoint: Arc::clone(endpoint),
        script: Script::new(&Mix::only(kind), content, Keys::Sequential { keys }),
        pace: Pace::Closed {
            pipeline: FILL_PIPELINE,
            until: Until::Requests(keys.div_ceil(batch as u64)),
        },
        warm_up: None,
        until_error: true,
        connections: FILL_CONNECTIONS.min(load.connections as usize),
        threads: 1,
    }
}

async fn measure(load: &BenchArgs, endpoint: &Arc<Endpoint>, interrupt: &mut Interrupt) -> Outcome {
    let content = Content {
        table: &load.table,
        size: load.size as usize,
        batch: load.batch as usize,
    };
    let keys = Keys::new(load.distribution, load.keys.into());
    let plan = Plan {
        purpose: "measuring",
        endpoint: Arc::clone(endpoint),
        script: Script::new(&load.mix, content, keys),
        pace: load.pace(),
        warm_up: load.warm_up(),
        until_error: false,
        connections: load.connections as usize,
        threads: load.threads as usize,
    };
    load::run(plan, interrupt).await
}

fn print(report: &Report, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Json => json::line(report).map(|line| line + "\n"),
        // Other formats were refused.
        _ => Ok(text::text(report)),
    };
    let mut stdout = io::stdout();
    let printed = text.and_then(|text| {
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    });
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::stdout(&error)),
        _ => Ok(()),
    }
}

/// The failure if Ctrl-C came before anything was measured.
fn unmeasured(report: &Report) -> Option<Failure> {
    (report.interrupted && report.requests == 0)
        .then(|| Failure::Interrupted("ended by Ctrl-C before anything was measured".to_owned()))
}

/// The exit code for a load that ran to its end.
fn verdict(report: &Report, outcome: &Outcome) -> Result<(), Failure> {
    let errors_are_checked = report.checks.iter().any(|c| c.figure == Figure::Errors);
    if let (Some((status, message)), false) = (&outcome.tally.first_error, errors_are_checked) {
        return Err(Failure::Server {
            status: *status,
            message: format!(
                "{message} ({} of {} answers)",
                report.errors, report.requests
            ),
        });
    }
    let failed = report.checks.iter().filter(|checked| !checked.passed);
    let failed: Vec<_> = failed.map(failed_check).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Negative(Some(failed.join("; "))))
}

fn failed_check(checked: &Checked) -> String {
    let name = checked.figure.name();
    let got = checked.got.map_or("not measured".to_owned(), |got| {
        text::with_unit(got, checked.figure.is_time())
    });
    format!("check {} failed: {name} was {got}", checked.check)
}

fn bottleneck(report: &Report, hint: &str) -> String {
    let percent = |part: f64| part * 100.0;
    let waiting = report.client_waiting.map(percent);
    format!(
        "the client may be the bottleneck: one of its threads was busy for {:.0} % of the time, \
         and waited for a core for {:.0} %; {hint}",
        percent(report.client_busy),
        waiting.unwrap_or(0.0)
    )
}

/// Each connection is an open file.
#[cfg(unix)]
fn allow_descriptors(load: &BenchArgs) -> Result<(), Failure> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let wanted = u64::from(load.connections) + OTHER_DESCRIPTORS;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        return Err(Failure::Local(format!(
            "{} connections need {wanted} open files, and {} are allowed; raise that with ulimit \
             -n, or give fewer",
            load.connections,
            limit.maximum.unwrap_or(0)
        )));
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
        .map_err(|error| Failure::Local(format!("cannot allow {wanted} open files: {error}")))
}

#[cfg(not(unix))]
fn allow_descriptors(_: &BenchArgs) -> Result<(), Failure> {
    Ok(())
}
