//! What the operating system says of this process, under the names that Prometheus gave it.
//!
//! Promises: reads a few small files of `/proc`. Must not: keep anything. Fails: never; where there is no `/proc`, nothing
//! is told.

use std::fs;

/// The kernel counts in these, whatever its own clock is (`sysconf(_SC_CLK_TCK)` on Linux).
const TICKS_PER_SECOND: f64 = 100.0;
/// `/proc/self/stat` counts memory in pages.
const STATUS_UNIT_BYTES: u64 = 1_024;

/// The figures of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ProcessFigures {
    pub(super) cpu_seconds: f64,
    pub(super) start_time_seconds: f64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
}

impl ProcessFigures {
    /// As it is now.
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let (cpu_seconds, start_time_seconds) = times(&stat, &boot)?;
        let status = fs::read_to_string("/proc/self/status").ok();
        let open = fs::read_dir("/proc/self/fd").ok();
        Some(Self {
            cpu_seconds,
            start_time_seconds,
            resident_bytes: status.and_then(|status| resident_bytes(&status)),
            open_fds: open.map(|open| open.count() as u64),
        })
    }
}

/// Processor time, and the moment of the start, by `/proc/self/stat` and `/proc/stat`.
fn times(stat: &str, boot: &str) -> Option<(f64, f64)> {
    // The name is in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = |number: usize| fields.get(number)?.parse::<f64>().ok();
    // The fields 14, 15 and 22 of proc(5), of which the first two are cut off.
    let cpu = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
    let booted = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    let booted: f64 = booted.trim().parse().ok()?;
    Some((cpu, booted + ticks(19)? / TICKS_PER_SECOND))
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().split(' ').next()?.parse().ok()?;
    Some(kilobytes * STATUS_UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_leads_nobody_astray() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 8 0 4200 1 2";
        let boot = "cpu 1 2 3\nbtime 1700000000\nprocesses 9\n";
        assert_eq!(times(stat, boot), Some((1.75, 1_700_000_042.0)));
        assert_eq!(times("7 (a) S 1", boot), None);
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn this_process_has_figures() {
        let Some(process) = ProcessFigures::read() else { return };
        assert!(process.start_time_seconds > 1_600_000_000.0 && process.cpu_seconds >= 0.0);
        assert!(
            process.resident_bytes > Some(1 << 20) && process.open_fds > Some(0),
            "{process:?}"
        );
    }
}
