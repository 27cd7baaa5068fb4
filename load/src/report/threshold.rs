//! Thresholds: what a run must reach, such as `p99<100ms`.
//!
//! Promises: a threshold that cannot be judged is refused at the start, never passed in silence.
//! Must not: know how figures are measured. Fails: with the names that exist.

use std::str::FromStr;

use crate::measure::latency::{PathStage, Percentiles};

/// A figure that a threshold can name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Metric {
    /// A percentile of a stage, in milliseconds.
    Latency(PathStage, Percentile),
    /// Committed events per second.
    RateIn,
    /// Delivered events per second.
    RateOut,
    /// Missing events.
    Missing,
    /// Events out of order.
    OutOfOrder,
    /// Repeated events.
    Repeats,
    /// Relay CPU in microseconds per event.
    RelayCpu,
    /// Highest resident memory of the relay in megabytes.
    RelayMemory,
}

/// Which percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Percentile {
    /// The median.
    P50,
    /// 90 %.
    P90,
    /// 99 %.
    P99,
    /// 99.9 %.
    P999,
    /// The longest.
    Max,
}

impl Percentile {
    fn named(name: &str) -> Option<Self> {
        match name {
            "p50" => Some(Self::P50),
            "p90" => Some(Self::P90),
            "p99" => Some(Self::P99),
            "p99.9" => Some(Self::P999),
            "max" => Some(Self::Max),
            _ => None,
        }
    }

    /// This percentile in milliseconds.
    pub(crate) fn pick(self, figures: &Percentiles) -> f64 {
        match self {
            Self::P50 => figures.p50_ms,
            Self::P90 => figures.p90_ms,
            Self::P99 => figures.p99_ms,
            Self::P999 => figures.p999_ms,
            Self::Max => figures.max_ms,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

/// Relations by their sign; the longer signs first, for `<` starts `<=`.
const RELATIONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Equal),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

/// What a run must reach.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    /// As it was written.
    pub(crate) text: String,
    /// What it judges.
    pub(crate) metric: Metric,
    relation: Comparison,
    limit: f64,
}

impl Threshold {
    /// Whether the figure keeps it.
    pub(crate) fn holds(&self, figure: f64) -> bool {
        match self.relation {
            Comparison::Below => figure < self.limit,
            Comparison::AtMost => figure <= self.limit,
            Comparison::Above => figure > self.limit,
            Comparison::AtLeast => figure >= self.limit,
            Comparison::Equal => figure == self.limit,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, relation) = RELATIONS
            .into_iter()
            .find(|(sign, _)| text.contains(sign))
            .ok_or("a threshold needs one of < <= > >= ==, as in p99<100ms")?;
        let (name, limit) = text.split_once(sign).ok_or("a threshold needs a limit")?;
        let metric = parse_metric(name.trim())?;
        let limit = parse_limit(limit.trim(), metric)?;
        Ok(Self { text: text.to_owned(), metric, relation, limit })
    }
}

fn parse_metric(name: &str) -> Result<Metric, String> {
    let plain = match name {
        "rate_in" => Some(Metric::RateIn),
        "rate_out" => Some(Metric::RateOut),
        "missing" => Some(Metric::Missing),
        "out_of_order" => Some(Metric::OutOfOrder),
        "repeats" => Some(Metric::Repeats),
        "relay_cpu_us" => Some(Metric::RelayCpu),
        "relay_memory_mb" => Some(Metric::RelayMemory),
        _ => None,
    };
    let (stage, percentile) = match name.split_once('.') {
        Some((stage, percentile)) if PathStage::named(stage).is_some() => {
            (PathStage::named(stage), percentile)
        }
        _ => (Some(PathStage::Total), name),
    };
    let latency = stage.zip(Percentile::named(percentile));
    plain.or(latency.map(|(stage, percentile)| Metric::Latency(stage, percentile))).ok_or_else(
        || {
            let stages = PathStage::ALL.map(PathStage::name).join(", ");
            format!(
                "there is no figure {name}: use p50, p90, p99, p99.9 or max, alone or after one of \
             {stages} and a dot; or rate_in, rate_out, missing, out_of_order, repeats, \
             relay_cpu_us, relay_memory_mb"
            )
        },
    )
}

fn parse_limit(limit: &str, metric: Metric) -> Result<f64, String> {
    let digits_end = limit.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(limit.len());
    let (number, unit) = limit.split_at(digits_end);
    let number: f64 = number.parse().map_err(|_| format!("{limit} is not a number"))?;
    let unit = unit.trim();
    if !matches!(metric, Metric::Latency(..)) {
        let plain = unit.is_empty().then_some(number);
        return plain.ok_or_else(|| format!("{unit} is too much in {limit}: it has no unit"));
    }
    match unit {
        "us" | "µs" => Ok(number / 1_000.0),
        "ms" => Ok(number),
        "s" => Ok(number * 1_000.0),
        _ => Err(format!("{limit} needs a unit: us, ms or s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Threshold {
        text.parse().unwrap()
    }

    #[test]
    fn a_percentile_alone_is_of_the_total() {
        let threshold = parsed("p99<100ms");
        assert_eq!(threshold.metric, Metric::Latency(PathStage::Total, Percentile::P99));
        assert!(threshold.holds(99.9) && !threshold.holds(100.0));
    }

    #[test]
    fn stages_percentiles_and_units() {
        let threshold = parsed("commit_to_consume.p99.9 <= 1.5s");
        assert_eq!(threshold.metric, Metric::Latency(PathStage::CommitToConsume, Percentile::P999));
        assert!(threshold.holds(1_500.0) && !threshold.holds(1_500.1));
        assert!(parsed("p50<500us").holds(0.4) && !parsed("p50<500us").holds(0.6));
    }

    #[test]
    fn counts_and_rates() {
        assert!(parsed("missing==0").holds(0.0) && !parsed("missing==0").holds(1.0));
        assert!(parsed("rate_out>=99000").holds(99_000.0));
        assert!(!parsed("rate_in>99000").holds(99_000.0));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for text in ["p98<1ms", "p99<100", "p99<ms", "p99", "missing==0ms", "x.p99<1ms", "p99=1ms"]
        {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
