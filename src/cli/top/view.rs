//! What `postrider top` shows at a moment, as tables.
//!
//! Promises: what is not known is a dash. Must not: know a terminal.

use crate::cli::top::grid::{Grid, GridCell, Tone};
use crate::config::units::show_bytes;
use crate::legible;
use crate::metrics::sentence::{seconds, whole};
use crate::metrics::shape::{
    BucketCondition, BucketReport, InstanceCondition, InstanceReport, ParkedAggregate,
    ParkedReport, ShardCondition, ShardReport, TierInstance, TierInstanceCondition, TierReport,
};

/// A figure that was seen longer ago says so: a look is due each five seconds.
const OLD_SECONDS: f64 = 15.0;

/// Everything that was told at one moment.
#[derive(Debug, Default)]
pub(super) struct TopView {
    pub(super) instances: Vec<InstanceView>,
    pub(super) tier: Option<TierReport>,
    pub(super) parked: Option<ParkedReport>,
    /// Why nothing was told.
    pub(super) trouble: Option<String>,
}

/// What one instance told.
#[derive(Debug)]
pub(super) struct InstanceView {
    pub(super) authority: String,
    pub(super) report: std::result::Result<InstanceReport, String>,
}

/// Which table is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Shards,
    Buckets,
    Instances,
    Parked,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Shards, Self::Buckets, Self::Instances, Self::Parked];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shards => "shards",
            Self::Buckets => "buckets",
            Self::Instances => "instances",
            Self::Parked => "parked",
        }
    }
}

/// A line above the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeadLine {
    pub(super) text: String,
    pub(super) tone: Tone,
}

fn line(text: impl Into<String>, tone: Tone) -> HeadLine {
    HeadLine { text: text.into(), tone }
}

impl TopView {
    /// How things are.
    pub(super) fn head(&self) -> Vec<HeadLine> {
        let mut lines = Vec::new();
        lines.extend(self.trouble.iter().map(|cause| line(legible::name(cause), Tone::Bad)));
        for one in &self.instances {
            lines.extend(match &one.report {
                Ok(report) => told(report),
                Err(cause) => {
                    let cause = legible::name(cause);
                    vec![line(format!("{} gives no answer: {cause}", one.authority), Tone::Bad)]
                }
            });
        }
        if let Some(tier) = &self.tier {
            let ago = seconds(tier.seen_seconds_ago);
            let schema = in_schema(tier.control_schema.as_deref());
            let text = format!("tier{schema}: {} (seen {ago} ago)", legible::name(&tier.sentence));
            lines.push(line(text, Tone::Plain));
        }
        lines
    }

    /// A table.
    pub(super) fn grid(&self, tab: Tab) -> Grid {
        match tab {
            Tab::Shards => self.shards(),
            Tab::Buckets => self.buckets(),
            Tab::Instances => self.instances(),
            Tab::Parked => self.parked(),
        }
    }

    fn reports(&self) -> impl Iterator<Item = &InstanceReport> {
        self.instances.iter().filter_map(|one| one.report.as_ref().ok())
    }

    fn shards(&self) -> Grid {
        let heads =
            ["instance", "shard", "state", "events/s", "in flight", "held", "replaced", "buckets"];
        let rows = self.reports().flat_map(|report| {
            report.shards.iter().map(|shard| shard_row(&report.instance, shard))
        });
        let nothing = match self.instances.is_empty() {
            true => "PostgreSQL knows no shards: give an instance's URL",
            false => "no instance answers",
        };
        Grid::new(&heads, rows.collect(), nothing)
    }

    fn buckets(&self) -> Grid {
        let heads =
            ["bucket", "state", "waiting", "oldest", "parked", "owner", "epoch", "position"];
        let rows = self.tier.iter().flat_map(|tier| tier.buckets.iter().map(bucket_row));
        Grid::new(&heads, rows.collect(), "the tier was not seen yet")
    }

    fn instances(&self) -> Grid {
        let heads = ["instance", "state", "buckets", "shards", "events/s", "lease", "up"];
        let rate = |name: &str| {
            self.reports().find(|report| report.instance == name).and_then(|one| one.rate.out)
        };
        let rows = self.tier.iter().flat_map(|tier| tier.instances.iter());
        let rows = rows.map(|instance| instance_row(instance, rate(&instance.name)));
        Grid::new(&heads, rows.collect(), "no instance is known")
    }

    fn parked(&self) -> Grid {
        let heads = ["reason", "aggregate", "events", "since", "detail", "what helps"];
        let rows = self.parked.iter().flat_map(|parked| parked.listed.iter().map(parked_row));
        let nothing = match &self.parked {
            Some(_) => "nothing is parked",
            None => "what is parked was not seen yet",
        };
        Grid::new(&heads, rows.collect(), nothing)
    }
}

/// Two lines: the sentence, and the figures.
fn told(report: &InstanceReport) -> Vec<HeadLine> {
    let tone = match report.state {
        InstanceCondition::Publishing | InstanceCondition::StandingBy => Tone::Good,
        InstanceCondition::Draining | InstanceCondition::Paused => Tone::Warning,
        InstanceCondition::Stalled | InstanceCondition::NoSession => Tone::Bad,
    };
    let span = |known: Option<f64>| known.map_or_else(|| "-".to_owned(), seconds);
    let rate = |known: Option<f64>| {
        known.map_or_else(|| "-".to_owned(), |rate| whole(rate.max(0.0).round() as u64))
    };
    let empty = match (report.backlog.stands_still, report.backlog.time_to_empty_seconds) {
        (true, _) => "never, nothing moves".to_owned(),
        (false, known) => span(known),
    };
    let figures = format!(
        "  in {}/s  out {}/s  age p50 {} p99 {}  oldest {}{}  empty in {empty}  in flight {}  lease {}",
        rate(report.rate.r#in),
        rate(report.rate.out),
        span(report.age.p50),
        span(report.age.p99),
        span(report.backlog.oldest_seconds),
        seen(report.backlog.seen_seconds_ago),
        show_bytes(report.in_flight.bytes),
        span(report.lease.left_seconds),
    );
    let schema = in_schema(report.control_schema.as_deref());
    let sentence =
        format!("{}{schema}: {}", legible::name(&report.instance), legible::name(&report.sentence));
    let mut lines = vec![line(sentence, tone), line(figures, Tone::Plain)];
    lines.extend(report.causes.iter().map(|cause| {
        line(format!("  {}: {}", cause.what, legible::name(&cause.fix)), Tone::Warning)
    }));
    lines
}

/// How old a figure is, where that is old.
fn seen(seconds_ago: Option<f64>) -> String {
    match seconds_ago {
        Some(ago) if ago > OLD_SECONDS => format!(" (seen {} ago)", seconds(ago)),
        Some(_) | None => String::new(),
    }
}

/// Of which outbox it is told, where that is not the usual one.
fn in_schema(control_schema: Option<&str>) -> String {
    control_schema.map(|name| format!(", schema {}", legible::name(name))).unwrap_or_default()
}

fn shard_row(instance: &str, shard: &ShardReport) -> Vec<GridCell> {
    let tone = match shard.state {
        ShardCondition::Publishing => Tone::Good,
        ShardCondition::Idle => Tone::Plain,
        ShardCondition::Stalled => Tone::Bad,
    };
    let state = match shard.state {
        ShardCondition::Publishing => "publishing",
        ShardCondition::Idle => "idle",
        ShardCondition::Stalled => "stalled",
    };
    let buckets = shard.buckets.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    vec![
        GridCell::text(legible::name(instance)),
        GridCell::whole(shard.shard as u64),
        GridCell::text(state).toned(tone),
        GridCell::rate(shard.rate),
        GridCell::number(show_bytes(shard.in_flight_bytes), shard.in_flight_bytes as f64),
        GridCell::whole(shard.held),
        GridCell::whole(shard.replaced),
        GridCell::text(shard.words.as_deref().map_or(buckets, legible::name)),
    ]
}

fn bucket_row(bucket: &BucketReport) -> Vec<GridCell> {
    let tone = match bucket.state {
        BucketCondition::Idle | BucketCondition::Owned => Tone::Plain,
        BucketCondition::Publishing => Tone::Good,
        BucketCondition::Paused => Tone::Warning,
        BucketCondition::Free | BucketCondition::Orphaned | BucketCondition::Strange => Tone::Bad,
    };
    let waiting = match (bucket.unpublished, bucket.unpublished_is_lower_bound) {
        (None, _) => GridCell::number("?", 0.0),
        (Some(events), true) => {
            GridCell::number(format!("\u{2265}{}", whole(events)), events as f64)
        }
        (Some(events), false) => GridCell::whole(events),
    };
    vec![
        GridCell::whole(bucket.bucket.into()),
        GridCell::text(bucket.state.name()).toned(tone),
        waiting,
        GridCell::span(bucket.oldest_seconds),
        GridCell::whole(bucket.parked),
        GridCell::text(bucket.owner.as_deref().map_or_else(|| "-".to_owned(), legible::name)),
        GridCell::number(bucket.epoch.to_string(), bucket.epoch as f64),
        GridCell::number(bucket.position.to_string(), bucket.position as f64),
    ]
}

fn instance_row(instance: &TierInstance, rate: Option<f64>) -> Vec<GridCell> {
    let left = instance.lease_left_seconds;
    let (state, tone, lease) = match instance.state {
        TierInstanceCondition::Alive => ("alive", Tone::Good, seconds(left)),
        TierInstanceCondition::Dead => ("dead", Tone::Bad, format!("over for {}", seconds(-left))),
    };
    vec![
        GridCell::text(legible::name(&instance.name)),
        GridCell::text(state).toned(tone),
        GridCell::whole(instance.buckets),
        GridCell::whole(instance.shards.into()),
        GridCell::rate(rate),
        GridCell::number(lease, left),
        GridCell::span(Some(instance.age_seconds)),
    ]
}

fn parked_row(parked: &ParkedAggregate) -> Vec<GridCell> {
    let more = if parked.events_is_lower_bound { "\u{2265}" } else { "" };
    let events = format!("{more}{}", whole(parked.events));
    vec![
        GridCell::text(&parked.reason).toned(Tone::Warning),
        GridCell::text(legible::aggregate(&parked.aggregatetype, &parked.aggregateid)),
        GridCell::number(events, parked.events as f64),
        GridCell::span(Some(parked.since_seconds)),
        GridCell::text(legible::name(&parked.detail)),
        GridCell::text(if parked.is_requested { "it is to be tried again" } else { &parked.fix }),
    ]
}
