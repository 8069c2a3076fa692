//! How much of the machine has nothing to do, of the cores that the process may use.

use std::time::Duration;

/// Compares one look with the next.
#[derive(Debug, Default)]
pub(in crate::server) struct IdleCores {
    before: Option<Times>,
}

impl IdleCores {
    /// How many cores had nothing to do since the last look, such as 1.5; [`None`] at the first. Where the operating
    /// system does not tell, it is as if all were free.
    pub(in crate::server) fn look(&mut self) -> Option<f64> {
        let Some(now) = Times::now() else {
            return Some(f64::INFINITY);
        };
        let then = self.before.replace(now)?;
        let counted = now.counted.saturating_sub(then.counted);
        let idle = now.idle.saturating_sub(then.idle);
        // Some systems count nothing, and say that all is 0.
        let idle = idle.div_duration_f64(counted) * now.cores as f64;
        Some(if counted.is_zero() {
            f64::INFINITY
        } else {
            idle
        })
    }

    /// The next look is the first again.
    pub(in crate::server) fn forget(&mut self) {
        self.before = None;
    }
}

/// For how long the cores did what since the machine was started, all together.
#[derive(Debug, Clone, Copy)]
struct Times {
    cores: usize,
    /// Anything that is counted.
    counted: Duration,
    /// Nothing, or something that gives way: waiting for a disk, or what is nice.
    idle: Duration,
}

impl Times {
    #[cfg(target_os = "linux")]
    fn now() -> Option<Self> {
        use procfs::process::Process;
        use procfs::{CurrentSI, KernelStats};

        let allowed = Process::myself().ok()?.status().ok()?.cpus_allowed_list?;
        let is_allowed = |core| {
            let mut ranges = allowed.iter();
            ranges.any(|&(first, last)| (first..=last).contains(&core))
        };
        let mut times = Self {
            cores: 0,
            counted: Duration::ZERO,
            idle: Duration::ZERO,
        };
        for (core, time) in (0..).zip(KernelStats::current().ok()?.cpu_time) {
            if is_allowed(core) {
                let idle = time.idle_duration()
                    + time.nice_duration()
                    + time.iowait_duration().unwrap_or_default();
                let busy = time.user_duration()
                    + time.system_duration()
                    + time.irq_duration().unwrap_or_default()
                    + time.softirq_duration().unwrap_or_default()
                    + time.steal_duration().unwrap_or_default();
                times.cores += 1;
                times.counted += idle + busy;
                times.idle += idle;
            }
        }
        Some(times)
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn no_more_cores_are_idle_than_there_are() {
        let mut idle_cores = IdleCores::default();
        assert_eq!(idle_cores.look(), None);
        // Until the operating system has counted something.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let cores = Times::now().unwrap().cores;
        let idle = idle_cores.look().unwrap();
        // One was busy, here.
        assert!((0.0..cores as f64).contains(&idle), "{idle} of {cores}");
        idle_cores.forget();
        assert_eq!(idle_cores.look(), None);
    }
}
