//! Resource usage of the process, as reported by the operating system.

/// Resource usage of the process at one moment. Unknown figures are 0.
pub(super) struct Figures {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

/// [`None`] if `/proc` cannot be read.
#[cfg(target_os = "linux")]
pub(super) fn figures() -> Option<Figures> {
    use procfs::process::{LimitValue, Process};

    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = stat.utime + stat.stime;
    let max_fds = process.limits().ok()?.max_open_files.soft_limit;
    Some(Figures {
        cpu_seconds: ticks as f64 / procfs::ticks_per_second() as f64,
        resident_bytes: stat.rss * procfs::page_size(),
        virtual_bytes: stat.vsize,
        threads: u64::try_from(stat.num_threads).unwrap_or_default(),
        open_fds: process.fd_count().unwrap_or_default() as u64,
        max_fds: match max_fds {
            LimitValue::Value(limit) => limit,
            LimitValue::Unlimited => u64::MAX,
        },
    })
}

/// Always [`None`]: figures are only available on Linux.
#[cfg(not(target_os = "linux"))]
pub(super) fn figures() -> Option<Figures> {
    None
}
