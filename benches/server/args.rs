//! The command line: what to measure, for how long, and on which servers.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Parser;

use crate::protocol::Protocol;

const AFTER_HELP: &str = "\
A variant is NAME or NAME=ARGUMENTS: kvs of this build with these arguments. NAME=@PATH ARGUMENTS is
another kvs binary. The name redis, or one that begins with redis-, is redis-server. A name that
ends in -tls, also redis-tls, is a server that speaks TLS. The arguments are split at spaces. Ratios
are relative to the first variant.

  cargo bench --bench server -- --only '16 connections'
  cargo bench --bench server -- --variant kvs --variant kvs-tls
  cargo bench --bench server -- --variant before=@/tmp/kvs --variant after --only hget";

/// The suffix of the names of variants that speak TLS.
const TLS_SUFFIX: &str = "-tls";

/// Measures kvs and redis-server under the same loads
#[derive(Debug, Parser)]
#[command(name = "server", after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A server to measure; may be repeated [default: kvs, and redis if it is installed; for the
    /// handshake, also kvs-tls]
    #[arg(long = "variant", value_name = "VARIANT")]
    variants: Vec<Variant>,

    /// Run only the loads whose name contains this; may be repeated
    #[arg(long, value_name = "SUBSTRING")]
    only: Vec<String>,

    /// How often to run each load on each variant, in turn
    #[arg(long, default_value_t = 5)]
    runs: usize,

    /// How long one run takes, after a warm-up of a third of that
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,

    /// How many connections the idle load opens
    #[arg(long, default_value_t = 10_000)]
    idle: usize,

    /// Arguments for kvs in the loads whose messages it would compress
    #[arg(
        long,
        value_name = "ARGUMENTS",
        default_value = "--compression off",
        allow_hyphen_values = true
    )]
    large_args: String,

    /// Run every kind of load on kvs for a few seconds, with and without TLS, to see that this
    /// program works; the figures mean nothing
    #[arg(long)]
    quick: bool,

    /// Print the names of the loads instead of running them
    #[arg(long)]
    list: bool,

    /// Passed by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server to measure, and how to start it.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// Whether it speaks TLS, with a certificate made for it.
    pub(crate) tls: bool,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

impl std::str::FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, args) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            return Err("a variant needs a name".to_owned());
        }
        let mut args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
        let kind = name.strip_suffix(TLS_SUFFIX);
        let (protocol, mut program) = match kind.unwrap_or(name).split('-').next() {
            Some("redis") => (Protocol::Redis, PathBuf::from("redis-server")),
            _ => (Protocol::Kvs, PathBuf::from(env!("CARGO_BIN_EXE_kvs"))),
        };
        if let Some(path) = args.first().and_then(|first| first.strip_prefix('@')) {
            program = path.into();
            args.remove(0);
        }
        Ok(Self {
            name: name.to_owned(),
            protocol,
            tls: kind.is_some(),
            program,
            args,
        })
    }
}

impl Variant {
    /// The first line of its `--version`, or [`None`] if it cannot be run.
    pub(crate) fn version(&self) -> Option<String> {
        let output = Command::new(&self.program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Some(text.lines().next()?.to_owned())
    }

    /// This variant with the arguments for loads with large messages.
    pub(crate) fn for_large(&self, args: &Args) -> Self {
        let mut variant = self.clone();
        if self.protocol == Protocol::Kvs {
            let more = args.large_args.split_whitespace().map(str::to_owned);
            variant.args.extend(more);
        }
        variant
    }
}

impl Args {
    /// The variants to measure that are installed.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        let usual = match self.quick {
            true => ["kvs", "kvs-tls"],
            false => ["kvs", "redis"],
        };
        self.variants_or(usual.map(|name| name.parse().unwrap()).into())
    }

    /// The variants chosen on the command line, or else these, if they are installed.
    pub(crate) fn variants_or(&self, usual: Vec<Variant>) -> Vec<Variant> {
        let named = match self.variants.is_empty() {
            false => self.variants.clone(),
            true => usual,
        };
        let (there, missing): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|variant| variant.version().is_some());
        for variant in missing {
            eprintln!(
                "{} is left out: {} cannot be run",
                variant.name,
                variant.program.display()
            );
        }
        assert!(
            !there.is_empty(),
            "nothing to measure: no variant is installed"
        );
        there
    }

    /// These variants, plus kvs over TLS if the command line chose none.
    pub(crate) fn with_tls(&self, variants: &[Variant]) -> Vec<Variant> {
        let mut variants = variants.to_vec();
        if self.variants.is_empty() && !variants.iter().any(|variant| variant.tls) {
            variants.push("kvs-tls".parse().unwrap());
        }
        variants
    }

    /// Whether to run the load of this name. With `--list`, prints the name instead.
    pub(crate) fn wants(&self, load: &str) -> bool {
        let wanted = self.only.is_empty() || self.only.iter().any(|part| load.contains(part));
        if wanted && self.list {
            println!("{load}");
        }
        wanted && !self.list
    }

    pub(crate) fn runs(&self) -> usize {
        if self.quick { 1 } else { self.runs.max(1) }
    }

    pub(crate) fn run_time(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.15 } else { self.seconds })
    }

    pub(crate) fn warm_up_time(&self) -> Duration {
        self.run_time() / 3
    }

    /// This number of connections or entries, or a hundredth of it in a quick run.
    pub(crate) fn scaled(&self, full: usize) -> usize {
        match self.quick {
            true if full > 100 => full / 100,
            _ => full,
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.scaled(self.idle)
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    pub(crate) fn is_list(&self) -> bool {
        self.list
    }

    pub(crate) fn large_args(&self) -> &str {
        &self.large_args
    }
}
