//! Whether the process is alive: the law of `/livez` and of the service manager's watchdog.
//!
//! Promises: who asks now and then learns it when nobody looks any more how things are, as where the runtime hangs.
//! Must not: judge whether the relay gets on: to start it again would not help.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::counters::Monitor;
use crate::metrics::health::HealthCheck;

/// Asks whether an instance is alive.
#[derive(Debug)]
pub struct Vitals {
    monitor: Arc<Monitor>,
    /// How many looks there were, and when there was last one more.
    looked: Mutex<(u64, Instant)>,
}

impl Vitals {
    /// Of this instance; nobody has asked before `now`.
    pub fn new(monitor: Arc<Monitor>, now: Instant) -> Self {
        Self { monitor, looked: Mutex::new((0, now)) }
    }

    /// What is known of the runtime and of each thread that publishes or polls.
    pub fn checks(&self, now: Instant) -> Vec<HealthCheck> {
        let health = self.monitor.health();
        let unlooked = self.unlooked(health.looks(), now).as_millis();
        health.live(u64::try_from(unlooked).unwrap_or(u64::MAX))
    }

    /// Since when nobody looks how things are, as far as those know who asked.
    fn unlooked(&self, looks: u64, now: Instant) -> Duration {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.0 != looks {
            *looked = (looks, now);
        }
        now.saturating_duration_since(looked.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::health::Readings;

    #[test]
    fn a_runtime_where_nobody_looks_is_dead() {
        let (monitor, now) = (Arc::new(Monitor::default()), Instant::now());
        let vitals = Vitals::new(Arc::clone(&monitor), now);
        let is_well = |seconds| {
            let checks = vitals.checks(now + Duration::from_secs(seconds));
            checks.iter().all(HealthCheck::is_well)
        };
        assert!(is_well(29));
        assert!(!is_well(30));
        monitor.health().look(Readings::default());
        assert!(is_well(31), "somebody has looked");
        assert!(is_well(60));
        let words = vitals.checks(now + Duration::from_secs(62))[0].to_string();
        assert_eq!(words, "[-]runtime nobody has looked for 31s");
    }
}
