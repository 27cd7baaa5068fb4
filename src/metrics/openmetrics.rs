//! The figures as OpenMetrics.
//!
//! Promises: names end with their unit, counters with `_total`; a figure that is not known is left out.
//! Must not: count anything itself. Fails: when the text cannot be written.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::catalogue::CATALOGUE;
use crate::metrics::counters::Monitor;
use crate::metrics::family::{Family, FigureKind, FigureValue, LabelledFigure};

/// All figures at this moment.
///
/// # Errors
/// When the text cannot be written.
pub fn text(monitor: Arc<Monitor>) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MonitorCollector(monitor)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct MonitorCollector(Arc<Monitor>);

impl Collector for MonitorCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in CATALOGUE {
            let samples = family.read(&self.0);
            if !samples.is_empty() {
                encode(family, &samples, &mut encoder)?;
            }
        }
        Ok(())
    }
}

fn encode(
    family: &Family,
    samples: &[LabelledFigure],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    let (stem, unit) = family.stem_and_unit();
    let kind = match family.kind {
        FigureKind::Counter => MetricType::Counter,
        FigureKind::Gauge => MetricType::Gauge,
        FigureKind::Histogram => MetricType::Histogram,
        FigureKind::Info => MetricType::Info,
    };
    let mut metric = encoder.encode_descriptor(stem, family.help, unit.as_ref(), kind)?;
    for LabelledFigure { labels, figure } in samples {
        match family.kind {
            FigureKind::Info => metric.encode_info(labels)?,
            _ if labels.is_empty() => encode_figure(family.kind, figure, &mut metric)?,
            _ => encode_figure(family.kind, figure, &mut metric.encode_family(labels)?)?,
        }
    }
    Ok(())
}

fn encode_figure(
    kind: FigureKind,
    figure: &FigureValue,
    metric: &mut MetricEncoder<'_>,
) -> Result<(), Error> {
    match figure {
        FigureValue::Count(count) => metric.encode_counter::<NoLabelSet, _, u64>(count, None),
        FigureValue::Seconds(seconds) if kind == FigureKind::Counter => {
            metric.encode_counter::<NoLabelSet, _, u64>(seconds, None)
        }
        FigureValue::Whole(number) => metric.encode_gauge(number),
        FigureValue::Seconds(seconds) => metric.encode_gauge(seconds),
        FigureValue::Counted(counted) => {
            let (sum, count) = (counted.sum_seconds, counted.count);
            metric.encode_histogram::<NoLabelSet>(sum, count, &counted.buckets, None)
        }
    }
}

impl Family {
    /// The unit, which the encoder writes behind the name, and the name without it.
    fn stem_and_unit(&self) -> (&'static str, Option<Unit>) {
        for unit in [Unit::Seconds, Unit::Bytes] {
            let stem =
                self.name.strip_suffix(unit.as_str()).and_then(|stem| stem.strip_suffix('_'));
            if let Some(stem) = stem {
                return (stem, Some(unit));
            }
        }
        (self.name, None)
    }
}

#[cfg(test)]
#[path = "openmetrics_tests.rs"]
mod tests;
