//! The report for people: what was asked of the server, how long the answers took, and what to make
//! of it.

use std::fmt::Write;

use super::report::{Latency, Report};
use crate::output::escape::printable;

/// The report, as text.
pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, text: &mut String) -> std::fmt::Result {
    writeln!(text, "{}", load(report))?;
    writeln!(text, "{}\n", content(report))?;
    table(report, text)?;
    writeln!(
        text,
        "\nthroughput  {} requests a second, {:.1} MB/s",
        grouped(report.rate.round() as u64),
        report.mb_per_second
    )?;
    writeln!(text, "answers     {}", answers(report))?;
    writeln!(text, "latency     {}", latency(report))?;
    if let Some(schedule) = schedule(report) {
        writeln!(text, "schedule    {schedule}")?;
    }
    writeln!(text, "client      {}", client(report))?;
    for checked in &report.checks {
        let got = checked.got;
        let got = got.map_or("nothing was measured".to_owned(), |got| {
            with_unit(got, checked.figure.is_time())
        });
        let how = if checked.passed { "passed" } else { "failed" };
        writeln!(text, "check       {} {how}: {got}", checked.check)?;
    }
    Ok(())
}

fn load(report: &Report) -> String {
    let how = match (&report.schedule, report.pipeline) {
        (Some(schedule), _) => format!("{} requests a second", grouped(schedule.rate)),
        (None, pipeline) => {
            let pipeline = pipeline.unwrap_or(1) as u64;
            format!("{} under way on each", counted(pipeline, "request"))
        }
    };
    let before = match report.warmup_seconds {
        0.0 => String::new(),
        seconds => format!(" after {seconds} s of warm-up"),
    };
    let ended = if report.interrupted {
        ", ended by Ctrl-C"
    } else {
        ""
    };
    format!(
        "{}{}: {}, {how}, {}, {:.1} s{before}{ended}",
        report.address,
        if report.tls { " over TLS" } else { "" },
        counted(report.connections.into(), "connection"),
        counted(report.threads.into(), "thread"),
        report.elapsed_seconds
    )
}

fn content(report: &Report) -> String {
    format!(
        "{} with {}, {}, values of {}, in table \"{}\"",
        report.mix,
        counted(report.keys.into(), "key"),
        report.distribution,
        counted(report.size.into(), "byte"),
        printable(&report.table)
    )
}

fn table(report: &Report, text: &mut String) -> std::fmt::Result {
    let head = [
        "", "requests", "a second", "mean", "p50", "p90", "p99", "p99.9", "max",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, command) in &report.commands {
        rows.push(row(
            name,
            Some((command.requests, command.rate)),
            command.latency_us,
        ));
    }
    if report.commands.len() > 1 {
        rows.push(row(
            "all",
            Some((report.requests, report.rate)),
            report.latency_us,
        ));
    }
    if let Some(schedule) = &report.schedule {
        rows.push(row("once sent", None, schedule.service_us));
    }
    let width = |column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(line, "{cell:<width$}")?,
                _ => write!(line, "  {cell:>width$}")?,
            }
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn row(name: &str, numbers: Option<(u64, f64)>, latency: Latency) -> Vec<String> {
    let (requests, rate) = match numbers {
        Some((requests, rate)) => (grouped(requests), grouped(rate.round() as u64)),
        None => (String::new(), String::new()),
    };
    let times = [
        latency.mean,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.max,
    ];
    let times = times.map(|time| time.map_or("-".to_owned(), microseconds));
    [vec![name.to_owned(), requests, rate], times.to_vec()].concat()
}

fn answers(report: &Report) -> String {
    let mut line = format!(
        "{}, {}",
        counted(report.errors, "error"),
        match report.misses {
            1 => "1 miss".to_owned(),
            misses => format!("{} misses", grouped(misses)),
        }
    );
    if report.unanswered > 0 {
        let _ = write!(line, ", {} unanswered", grouped(report.unanswered));
    }
    if let Some(error) = &report.first_error {
        let _ = write!(line, "; the first error was {}", printable(error));
    }
    line
}

fn latency(report: &Report) -> String {
    let mut line = if report.schedule.is_some() {
        "open loop, counted from when a request was due: corrected for coordinated omission"
    } else {
        "closed loop: a stalled server gets fewer requests, which hides waiting times; see --rate"
    }
    .to_owned();
    match report.unanswered.saturating_add(report.unsent()) {
        0 => {}
        1 => line += "; 1 request has no answer, and counts with the time it had waited",
        more => {
            let _ = write!(
                line,
                "; {} requests have no answer, and count with the time they had waited",
                grouped(more)
            );
        }
    }
    line
}

fn schedule(report: &Report) -> Option<String> {
    let schedule = report.schedule.as_ref()?;
    let mut line = format!(
        "{} of {} sent, ",
        grouped(schedule.sent),
        counted(schedule.due, "request")
    );
    let latest = microseconds(schedule.latest_us);
    let _ = match schedule.late {
        0 => write!(line, "none of them more than 1 ms late (at most {latest})"),
        late => write!(
            line,
            "{} of them more than 1 ms late, by {latest} at most",
            grouped(late)
        ),
    };
    let cut = report.interrupted || report.failure.is_some();
    match schedule.sent < schedule.due {
        false => {}
        true if cut => line += "; the others were not sent before the end",
        true => {
            line += "; the server did not accept the others in time: the rate is too high for it";
        }
    }
    Some(line)
}

fn client(report: &Report) -> String {
    let mut line = match report.client_cpu_us_per_request {
        Some(cost) => format!("{cost:.2} µs of CPU a request"),
        None => format!("{:.3} s of CPU", report.client_cpu_seconds),
    };
    let _ = write!(line, ", {:.0} % busy", report.client_busy * 100.0);
    if let Some(waiting) = report.client_waiting {
        let _ = write!(line, ", {:.0} % waiting for a core", waiting * 100.0);
    }
    line
}

/// A figure with its unit.
pub(crate) fn with_unit(figure: f64, is_time: bool) -> String {
    if is_time {
        microseconds(figure)
    } else if figure.fract() == 0.0 {
        grouped(figure as u64)
    } else {
        format!("{figure:.1}")
    }
}

/// A time with three digits: `92.1 µs`, `1.23 ms`.
fn microseconds(time: f64) -> String {
    let (number, unit) = match time {
        time if time < 1e3 => (time, "µs"),
        time if time < 1e6 => (time / 1e3, "ms"),
        time => (time / 1e6, "s"),
    };
    match number {
        number if number < 9.995 => format!("{number:.2} {unit}"),
        number if number < 99.95 => format!("{number:.1} {unit}"),
        number => format!("{number:.0} {unit}"),
    }
}

fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// `1234567` as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        for (time, text) in [
            (0.0, "0.00 µs"),
            (92.13, "92.1 µs"),
            (999.9, "1000 µs"),
            (1234.0, "1.23 ms"),
            (45_600.0, "45.6 ms"),
            (2_500_000.0, "2.50 s"),
        ] {
            assert_eq!(microseconds(time), text);
        }
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(grouped(123), "123");
        assert_eq!(counted(1, "key"), "1 key");
        assert_eq!(with_unit(2.5, false), "2.5");
        assert_eq!(with_unit(1500.0, false), "1 500");
    }
}
