//! The result of a run, as it is written to summary.json; `load/README.md` explains the fields.
//!
//! Promises: the layout is named by `schema` and changes its number when a field changes its meaning.
//! Must not: measure.

use serde::{Deserialize, Serialize};

use crate::measure::clock::RecordClock;
use crate::measure::environment::Environment;
use crate::measure::latency::{PathStage, Percentiles};
use crate::workload::outbox::Ids;
use postrider_testkit::audit::Verdict;
use postrider_testkit::figures::grouped;

/// The name of this layout.
pub(crate) const SCHEMA: &str = "postrider-load/run/1";

/// Below this part of the wanted rate the writers count as saturated.
const REACHED: f64 = 0.99;

/// Writers that are so far behind at the end of the schedule count as saturated too.
const BEHIND_SECONDS: f64 = 0.5;

/// A run: what was asked, where it ran, what came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Names this layout.
    pub(crate) schema: String,
    /// What was asked.
    pub(crate) plan: AskedPlan,
    /// Where it ran.
    pub(crate) environment: Environment,
    /// What went in and out in the measured time.
    pub(crate) throughput: Throughput,
    /// Latencies of the events that were intended in the measured time.
    pub(crate) latency: LatencyFigures,
    /// CPU and memory in the measured time.
    pub(crate) cost: Cost,
    /// What the audit found, warm-up included.
    pub(crate) audit: Verdict,
    /// Thresholds and whether they held.
    pub(crate) thresholds: Vec<Judged>,
    /// One entry for each second.
    pub(crate) series: Vec<Second>,
    /// The distribution of the total latency: upper end of each step in ms, events in it.
    pub(crate) distribution: Vec<(f64, u64)>,
}

impl Summary {
    /// Says that the latency from the intended time grew because the writers could not keep up.
    pub(crate) fn saturation(&self) -> Option<String> {
        let (wanted, throughput) = (self.plan.rate, &self.throughput);
        let achieved = throughput.in_per_second + throughput.rolled_back_per_second;
        let behind = throughput.unsent as f64 > wanted * BEHIND_SECONDS;
        (achieved < wanted * REACHED || behind).then(|| {
            format!(
                "saturated: wanted {}/s, written {}/s, {} not sent; the writers fell behind, so \
                 latency from the intended time grows by design; where the machine has time left, \
                 more --writers help, as each waits for its commits",
                grouped(wanted as u64),
                grouped(achieved as u64),
                grouped(throughput.unsent),
            )
        })
    }
}

/// What was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AskedPlan {
    /// A name for the run, chosen by the user.
    pub(crate) name: String,
    /// When it ended, in seconds since 1970.
    pub(crate) finished_unix_seconds: u64,
    /// Wanted events per second.
    pub(crate) rate: f64,
    /// Seconds of warm-up.
    pub(crate) warmup_seconds: u64,
    /// Seconds that are measured.
    pub(crate) duration_seconds: u64,
    /// Events per transaction.
    pub(crate) tx_size: u32,
    /// Connections that write.
    pub(crate) writers: u16,
    /// Number of aggregates.
    pub(crate) aggregates: u32,
    /// Zipf exponent; 0 for even use.
    pub(crate) skew: f64,
    /// Length of each payload.
    pub(crate) payload_bytes: u32,
    /// Headers in each row.
    pub(crate) headers: u32,
    /// Who made the ids of the rows; null in runs before there was a choice: the column's default.
    #[serde(default)]
    pub(crate) ids: Option<Ids>,
    /// `events` or `orders`.
    pub(crate) workload: String,
    /// `table` or `message`.
    #[serde(default = "table")]
    pub(crate) capture: String,
    /// Of 100 transactions, how many were rolled back.
    pub(crate) rollback_percent: u32,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
}

/// What runs before there was a choice wrote to.
fn table() -> String {
    "table".to_owned()
}

/// What went in and out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Throughput {
    /// Committed events per second.
    pub(crate) in_per_second: f64,
    /// Delivered events per second, each event once.
    pub(crate) out_per_second: f64,
    /// Events that were written and rolled back per second.
    pub(crate) rolled_back_per_second: f64,
    /// Events of the schedule that were not sent, because the writers were behind at the end.
    pub(crate) unsent: u64,
    /// Committed and not yet delivered at the end of the measured time.
    pub(crate) backlog_at_end: u64,
    /// Seconds from the end of the schedule until everything was delivered.
    pub(crate) settle_seconds: f64,
}

/// Latencies by stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LatencyFigures {
    /// Intended time to consumer.
    pub(crate) total: Percentiles,
    /// Intended time to begin of the transaction.
    pub(crate) schedule: Percentiles,
    /// Begin to answer to the commit.
    pub(crate) insert: Percentiles,
    /// Answer to the commit to the record's stamp.
    pub(crate) commit_to_stamp: Percentiles,
    /// The record's stamp to the consumer.
    pub(crate) stamp_to_consume: Percentiles,
    /// Answer to the commit to the consumer.
    pub(crate) commit_to_consume: Percentiles,
    /// Whose clock stamped the records; none when there was no record.
    pub(crate) record_clock: Option<RecordClock>,
    /// Records that came before the answer to their commit; their latency from there counts as 0.
    pub(crate) before_commit_answer: u64,
    /// Records whose commit lay too far back to be known.
    pub(crate) commit_forgotten: u64,
}

impl LatencyFigures {
    /// The figures of a stage.
    pub(crate) fn of(&self, stage: PathStage) -> &Percentiles {
        match stage {
            PathStage::Total => &self.total,
            PathStage::Schedule => &self.schedule,
            PathStage::Insert => &self.insert,
            PathStage::CommitToStamp => &self.commit_to_stamp,
            PathStage::StampToConsume => &self.stamp_to_consume,
            PathStage::CommitToConsume => &self.commit_to_consume,
        }
    }
}

/// CPU and memory of the processes that share the work.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// The relay.
    pub(crate) relay: Option<ProcessCost>,
    /// The PostgreSQL server, inserts included.
    pub(crate) postgres: Option<ProcessCost>,
    /// The broker.
    pub(crate) kafka: Option<ProcessCost>,
    /// The load generator and auditor.
    pub(crate) generator: Option<ProcessCost>,
    /// The most WAL that the server kept for slots, in megabytes (10^6 bytes), where a relay reads the
    /// WAL.
    #[serde(default)]
    pub(crate) kept_log_peak_megabytes: Option<f64>,
}

impl Cost {
    /// Those that were watched, with their names.
    pub(crate) fn named(&self) -> Vec<(&'static str, ProcessCost)> {
        let all = [
            ("relay", self.relay),
            ("PostgreSQL", self.postgres),
            ("Kafka", self.kafka),
            ("load generator", self.generator),
        ];
        all.into_iter().filter_map(|(name, cost)| Some((name, cost?))).collect()
    }
}

/// One process tree over the measured time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProcessCost {
    /// CPU per delivered event, in microseconds.
    pub(crate) cpu_us_per_event: f64,
    /// Mean number of cores in use.
    pub(crate) cores: f64,
    /// Resident memory at the begin of the measured time, in megabytes (10^6 bytes).
    pub(crate) megabytes_at_start: f64,
    /// The same at its end.
    pub(crate) megabytes_at_end: f64,
    /// The highest of any process of the tree, since that process started.
    pub(crate) peak_megabytes: f64,
}

/// A threshold and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// As it was written.
    pub(crate) threshold: String,
    /// The figure.
    pub(crate) figure: f64,
    /// Whether it held.
    pub(crate) held: bool,
}

/// The part of the run to which a second belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunPhase {
    /// Before the measured time.
    Warmup,
    /// The measured time.
    Measure,
    /// After the schedule, while the rest is delivered.
    Settle,
}

impl RunPhase {
    /// The name in series.csv.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Warmup => "warmup",
            Self::Measure => "measure",
            Self::Settle => "settle",
        }
    }
}

/// One second of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Seconds since the start, at the end of this one.
    pub(crate) at: f64,
    /// How long it was; the last one of a run may be short.
    pub(crate) seconds: f64,
    /// Where it belongs.
    pub(crate) phase: RunPhase,
    /// Committed events per second.
    pub(crate) in_per_second: f64,
    /// Delivered events per second.
    pub(crate) out_per_second: f64,
    /// Committed and not yet delivered.
    pub(crate) backlog: u64,
    /// Repeats so far.
    pub(crate) repeats: u64,
    /// Faults so far: rolled back, out of order, altered, misplaced, invented.
    pub(crate) faults: u64,
    /// Total latency of the events delivered in this second.
    pub(crate) total: Percentiles,
    /// Commit to consumer.
    pub(crate) commit_to_consume: Percentiles,
    /// Intended time to begin.
    pub(crate) schedule: Percentiles,
    /// Begin to commit.
    pub(crate) insert: Percentiles,
    /// Cores and memory of each process tree.
    pub(crate) relay: Option<Sample>,
    /// The server.
    pub(crate) postgres: Option<Sample>,
    /// The broker.
    pub(crate) kafka: Option<Sample>,
    /// This process.
    pub(crate) generator: Option<Sample>,
}

/// One process tree in one second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Cores in use.
    pub(crate) cores: f64,
    /// Resident memory in megabytes.
    pub(crate) megabytes: f64,
}
