//! The figures as OpenMetrics.
//!
//! Promises: names end with their unit, counters with `_total`; a figure that is not known is left out.
//! Must not: count anything itself. Fails: when the text cannot be written.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::metrics::counters::{Monitor, ShardGauge};

/// All figures at this moment.
pub(super) fn text(monitor: Arc<Monitor>) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(monitor)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Figures(Arc<Monitor>);

type Read = fn(&ShardGauge) -> &AtomicU64;

const COUNTERS: &[(&str, &str, Read)] = &[
    ("postrider_events_published", "Events that Kafka has acknowledged", |gauge| &gauge.published),
    ("postrider_events_parked", "Events that were set aside", |gauge| &gauge.parked),
];

const GAUGES: &[(&str, &str, Read)] = &[
    ("postrider_held_aggregates", "Aggregates that wait behind a parked event", |gauge| {
        &gauge.held_aggregates
    }),
    ("postrider_in_flight_bytes", "Bytes between claim and acknowledgement", |gauge| {
        &gauge.in_flight_bytes
    }),
];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let shards = self.0.shards();
        for (name, help, read) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (number, gauge) in shards.iter().enumerate() {
                let value = read(gauge).load(Ordering::Relaxed);
                let labels = [("shard", number.to_string())];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        for (name, help, read) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (number, gauge) in shards.iter().enumerate() {
                let value = read(gauge).load(Ordering::Relaxed) as i64;
                let labels = [("shard", number.to_string())];
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        gauge(&mut encoder, "postrider_working", "1 while a session works", {
            Some(i64::from(self.0.is_working()))
        })?;
        self.encode_slot(&mut encoder)
    }
}

impl Figures {
    /// Known to the instance that reads the log.
    fn encode_slot(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let slot = self.0.slot();
        let bytes = |value: Option<u64>| value.map(|value| value as i64);
        gauge(
            encoder,
            "postrider_slot_retained_bytes",
            "What the server keeps of its log for the replication slot",
            slot.and_then(|slot| bytes(Some(slot.retained_bytes))),
        )?;
        gauge(
            encoder,
            "postrider_slot_safe_bytes",
            "What may be written until the slot is lost, where max_slot_wal_keep_size is set",
            slot.and_then(|slot| bytes(slot.safe_bytes)),
        )?;
        gauge(
            encoder,
            "postrider_slot_age_seconds",
            "Since when the slot was not confirmed further, although the log went on",
            slot.and_then(|slot| bytes(Some(slot.age_seconds))),
        )
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: Option<i64>,
) -> Result<(), Error> {
    match value {
        None => Ok(()),
        Some(value) => {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::counters::SlotFigures;

    #[test]
    fn all_figures_are_written() {
        let monitor = Arc::new(Monitor::default());
        monitor.shard(1).published.store(7, Ordering::Relaxed);
        monitor.shard(0).in_flight_bytes.store(512, Ordering::Relaxed);
        let before = text(Arc::clone(&monitor)).expect("it can be written");
        assert!(!before.contains("slot"), "{before}");
        monitor.set_working(true);
        monitor.set_slot(Some(SlotFigures {
            retained_bytes: 4096,
            safe_bytes: None,
            age_seconds: 3,
        }));
        let text = text(monitor).expect("it can be written");
        for line in [
            "postrider_events_published_total{shard=\"1\"} 7",
            "postrider_events_published_total{shard=\"0\"} 0",
            "postrider_in_flight_bytes{shard=\"0\"} 512",
            "postrider_working 1",
            "postrider_slot_retained_bytes 4096",
            "postrider_slot_age_seconds 3",
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in {text}");
        }
        assert!(!text.contains("safe_bytes"), "what is not known is left out: {text}");
    }
}
