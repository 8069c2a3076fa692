//! How much of the machine has nothing to do, of the cores that the process may use.

use std::time::{Duration, Instant};

/// Compares one look with the next.
#[derive(Debug, Default)]
pub(super) struct IdleCores {
    before: Option<(Instant, Duration)>,
}

impl IdleCores {
    /// How many cores had nothing to do since the last look, such as 1.5; [`None`] at the first. Where the operating
    /// system does not tell, it is as if all were free.
    pub(super) fn look(&mut self) -> Option<f64> {
        let now = Instant::now();
        let Some(idle) = idle_time() else {
            return Some(f64::INFINITY);
        };
        let (then, idle_then) = self.before.replace((now, idle))?;
        let time = now.duration_since(then).as_secs_f64();
        (time > 0.0).then(|| idle.saturating_sub(idle_then).as_secs_f64() / time)
    }

    /// The next look is the first again.
    pub(super) fn forget(&mut self) {
        self.before = None;
    }
}

/// For how long the cores have had nothing to do since the machine was started, together.
#[cfg(target_os = "linux")]
fn idle_time() -> Option<Duration> {
    use procfs::process::Process;
    use procfs::{CurrentSI, KernelStats};

    let allowed = Process::myself().ok()?.status().ok()?.cpus_allowed_list?;
    let is_allowed = |core| {
        let mut ranges = allowed.iter();
        ranges.any(|&(first, last)| (first..=last).contains(&core))
    };
    let cores = (0..).zip(KernelStats::current().ok()?.cpu_time);
    let allowed = cores.filter(|(core, _)| is_allowed(*core));
    Some(allowed.map(|(_, core)| core.idle_duration()).sum())
}

#[cfg(not(target_os = "linux"))]
fn idle_time() -> Option<Duration> {
    None
}
