//! Markdown tables: a row per load and variant, and in each cell the median of the runs with their
//! minimum and maximum.

use std::fs;
use std::thread;
use std::time::SystemTime;

use crate::args::{Args, Variant};

/// The suffix of the name of a load whose messages kvs would compress.
pub(crate) const LARGE_MARK: &str = " \\*";

/// One figure of a run.
pub(crate) struct Column<F> {
    name: &'static str,
    unit: Unit,
    ratio: bool,
    figure: fn(&F) -> f64,
}

/// The unit of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Time,
    Bytes,
    Count,
    Percent,
    Number,
}

impl<F> Column<F> {
    pub(crate) const fn plain(name: &'static str, unit: Unit, figure: fn(&F) -> f64) -> Self {
        Self {
            name,
            unit,
            ratio: false,
            figure,
        }
    }

    /// Adds a second column: this median divided by that of the first variant.
    pub(crate) const fn with_ratio(name: &'static str, unit: Unit, figure: fn(&F) -> f64) -> Self {
        Self {
            name,
            unit,
            ratio: true,
            figure,
        }
    }
}

/// Where and when the measurement ran, on which servers.
pub(crate) fn preamble(args: &Args, variants: &[Variant]) -> String {
    if args.is_list() {
        return String::new();
    }
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut text = format!(
        "Measured on {} on {cores} cores ({}, Linux {}), {} of {} s each, in turn; \
         a cell has the median, the minimum and the maximum.\n\n",
        now.split('T').next().unwrap_or(&now),
        model.map_or("unknown", |(_, model)| model),
        kernel.trim(),
        match args.runs() {
            1 => "1 run".to_owned(),
            runs => format!("{runs} runs"),
        },
        args.run_time().as_secs_f64(),
    );
    if args.is_quick() {
        text += "**A quick run: these figures mean nothing.**\n\n";
    }
    for variant in variants {
        let version = variant.version().unwrap_or_default();
        let version = version.split(" sha=").next().unwrap_or(&version);
        text += &format!("- {}: {version}", variant.name);
        if variant.tls {
            text += " over TLS";
        }
        if !variant.args.is_empty() {
            text += &format!(", `{}`", variant.args.join(" "));
        }
        text.push('\n');
    }
    let large_args = match args.large_args() {
        "" => "kvs compresses messages of these loads, redis does not".to_owned(),
        args => format!("kvs is started with `{args}` as well"),
    };
    text += &format!("- marked{LARGE_MARK}: {large_args}\n\n");
    text
}

/// The first two lines of a table.
pub(crate) fn header<F>(what: &str, columns: &[Column<F>]) -> String {
    let mut names = vec![what, "server"];
    for column in columns {
        names.push(column.name);
        if column.ratio {
            names.push("ratio");
        }
    }
    format!(
        "| {} |\n|{}\n",
        names.join(" | "),
        " --- |".repeat(names.len())
    )
}

/// The rows of one load, from the runs of each variant, in the order of their names.
pub(crate) fn rows<F>(
    load: &str,
    names: &[&str],
    runs: &[Vec<F>],
    columns: &[Column<F>],
) -> String {
    let mut text = String::new();
    for (name, variant) in names.iter().zip(runs) {
        text += &format!("| {load} | {name}");
        for column in columns {
            let figures = sorted(variant, column);
            let median = figures[figures.len() / 2];
            text += &format!(" | {}", column.unit.show(median));
            if figures.len() > 1 {
                let (lowest, highest) = (figures[0], figures[figures.len() - 1]);
                let (lowest, highest) = (column.unit.show(lowest), column.unit.show(highest));
                text += &format!(" ({lowest} to {highest})");
            }
            if column.ratio {
                let first = sorted(&runs[0], column);
                text += &format!(" | {:.2}", median / first[first.len() / 2]);
            }
        }
        text += " |\n";
    }
    text
}

fn sorted<F>(runs: &[F], column: &Column<F>) -> Vec<f64> {
    let mut figures: Vec<_> = runs.iter().map(column.figure).collect();
    figures.sort_by(f64::total_cmp);
    figures
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Self::Time if figure < 1e6 => format!("{} µs", digits(figure / 1e3)),
            Self::Time => format!("{} ms", digits(figure / 1e6)),
            Self::Bytes if figure.abs() < 1024.0 * 1024.0 => {
                format!("{} KiB", digits(figure / 1024.0))
            }
            Self::Bytes => format!("{} MiB", digits(figure / 1024.0 / 1024.0)),
            Self::Count => format!("{figure:.0}"),
            Self::Percent => format!("{figure:.0} %"),
            Self::Number => digits(figure),
        }
    }
}

/// Three significant digits, at most three of them after the point.
fn digits(number: f64) -> String {
    let decimals = match number.abs() {
        below if below < 0.9995 => 3,
        below if below < 9.995 => 2,
        below if below < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}
