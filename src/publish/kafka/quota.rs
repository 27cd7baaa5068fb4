//! What the brokers tell of a quota: for how long they leave a client's requests lying.
//!
//! Promises: a producer that a quota mutes is known for one as long as the mute lasts. Must not: ask a broker.
//! Fails: never; statistics that cannot be read tell nothing.
//!
//! A broker answers a record at once, names the pause that the quota asks for, and reads nothing more of the
//! connection until it is over: no acknowledgement, and no answer to any other question. That looks like a
//! broker that is lost, and to replace the producer would only send again what it has.
//!
//! Source: Kafka's KIP-219; librdkafka's STATISTICS.md, `brokers.{name}.throttle`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::publish::kafka::clients::ProducerConfig;

/// How often librdkafka tells: more often than a silence is looked into.
const STATISTICS: (&str, &str) = ("statistics.interval.ms", "3000");

/// The configuration of a producer that hears of quotas; what the operator says holds.
pub(super) fn with_statistics(config: &ProducerConfig) -> ProducerConfig {
    let mut config = config.clone();
    if config.get(STATISTICS.0).is_none() {
        config.set(STATISTICS.0, STATISTICS.1);
    }
    config
}

/// Until when the brokers leave requests lying.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    until: Mutex<Option<Instant>>,
}

/// Of librdkafka's statistics what is useful here.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, BrokerStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    throttle: Option<Pauses>,
}

/// The pauses in milliseconds that answers named since the last statistics.
#[derive(Deserialize)]
struct Pauses {
    #[serde(default)]
    max: i64,
}

impl Throttle {
    /// Takes note of statistics: the longest pause that was told since the last ones, if any was.
    pub(super) fn told(&self, statistics: &[u8], now: Instant) -> Option<Duration> {
        let pause = longest_pause(statistics).filter(|pause| !pause.is_zero())?;
        // When it was told is not known: a moment ago at the latest.
        let until = now + pause;
        let mut known = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(known.map_or(until, |known| known.max(until)));
        Some(pause)
    }

    /// Whether requests are left lying now.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }
}

fn longest_pause(statistics: &[u8]) -> Option<Duration> {
    let statistics: Statistics = serde_json::from_slice(statistics).ok()?;
    let pauses = statistics.brokers.into_values().filter_map(|broker| broker.throttle);
    let millis = pauses.map(|pauses| pauses.max.max(0).cast_unsigned()).max()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUTED: &[u8] = br#"{"name": "rdkafka#producer-1", "brokers": {
        "b:1/1": {"name": "b:1/1", "throttle": {"min": 0, "max": 14000, "avg": 7}, "toppars": {}},
        "b:2/2": {"name": "b:2/2", "throttle": {"min": 0, "max": 9, "avg": 7}}, "c": {}}, "topics": {}}"#;

    #[test]
    fn a_mute_lasts_as_long_as_was_told() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let second = |seconds| start + Duration::from_secs(seconds);
        assert!(!throttle.is_on(start));
        assert_eq!(throttle.told(MUTED, start), Some(Duration::from_secs(14)));
        assert!(throttle.is_on(second(13)) && !throttle.is_on(second(14)));
        let calm = br#"{"brokers": {"b:1/1": {"throttle": {"max": 0}}}}"#;
        assert_eq!(throttle.told(calm, second(3)), None);
        assert!(throttle.is_on(second(13)), "later statistics do not end it");
    }

    #[test]
    fn what_is_no_statistics_tells_nothing() {
        for text in [
            &b""[..],
            b"[]",
            b"{\"brokers\": 1}",
            b"{}",
            b"{\"brokers\": {\"b\": {\"throttle\": {\"max\": -1}}}}",
        ] {
            assert_eq!(Throttle::default().told(text, Instant::now()), None);
        }
    }
}
