//! Flags that several commands have.
//!
//! Promises: a flag that two commands have is described here, once.

use std::path::PathBuf;

use clap::Args;

use crate::audit::topic::EventSink;
use crate::measure::environment::parse_note;
use crate::output::OutputFormat;
use crate::workload::event::SMALLEST_PAYLOAD_BYTES;
use crate::workload::outbox::{EventSource, Ids};
use crate::workload::plan::EventPlan;

/// Where the events go in.
#[derive(Clone, Debug, Args)]
pub(super) struct SourceArgs {
    /// The database with the outbox.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The outbox table.
    #[arg(long, default_value = "public.outbox")]
    outbox: String,
}

impl From<SourceArgs> for EventSource {
    fn from(args: SourceArgs) -> Self {
        Self { database_url: args.database_url, outbox: args.outbox }
    }
}

/// Where the events come out.
#[derive(Clone, Debug, Args)]
pub(super) struct SinkArgs {
    /// Kafka bootstrap servers.
    #[arg(long, default_value = "localhost:9092")]
    brokers: String,
    /// The topic that the relay publishes to.
    #[arg(long, default_value = "outbox.event.order")]
    topic: String,
    /// Partitions of the topic, when it has to be created.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,
    /// The broker's process id, to measure its CPU and memory.
    #[arg(long, value_name = "PID")]
    pub(super) kafka_pid: Option<u32>,
}

impl From<SinkArgs> for EventSink {
    fn from(args: SinkArgs) -> Self {
        Self { brokers: args.brokers, topic: args.topic, partitions: args.partitions }
    }
}

/// What the events look like.
#[derive(Clone, Debug, Args)]
pub(super) struct ShapeArgs {
    /// Events per transaction.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tx_size: u32,
    /// Length of each payload, in bytes.
    #[arg(long, default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(i64::from(SMALLEST_PAYLOAD_BYTES)..=10_000_000))]
    payload_bytes: u32,
    /// Headers in each row, in addition to those of the relay; 0 leaves the column out.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    headers: u32,
    /// Who makes an event's id, where the table's `id` is a UUID: the writer, or the column's default, which
    /// costs the database more.
    #[arg(long, value_enum, default_value = "given")]
    ids: Ids,
    /// Number of aggregates (distinct keys).
    #[arg(long, default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    aggregates: u32,
    /// Connections that write; each owns a part of the aggregates.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=500))]
    writers: u16,
    /// Of 100 transactions, how many are rolled back; their events must never appear. Usually none,
    /// and 2 with --workload orders.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=90))]
    rollback_percent: Option<u32>,
    /// Seed of the choices of aggregates.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl ShapeArgs {
    /// The plan, where this part of the transactions is rolled back unless the flag says otherwise.
    pub(super) fn plan(&self, usual_rollback_percent: u32) -> EventPlan {
        EventPlan {
            tx_size: self.tx_size,
            payload_bytes: self.payload_bytes,
            headers: self.headers,
            ids: self.ids,
            aggregates: self.aggregates,
            writers: self.writers,
            rollback_percent: self.rollback_percent.unwrap_or(usual_rollback_percent),
            seed: self.seed,
        }
    }
}

/// What `run` and `drain` do with what they find.
#[derive(Clone, Debug, Args)]
pub(super) struct ResultArgs {
    /// Audit what the topic holds; a fault ends the command with exit code 7.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pub(super) verify: bool,
    /// Folder for the results and the relay's log.
    #[arg(long, default_value = "postrider-load-out")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    form: FormArgs,
}

impl ResultArgs {
    /// How the result is printed.
    pub(super) fn form(&self) -> OutputFormat {
        self.form.form()
    }
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct FormArgs {
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl FormArgs {
    /// How the result is printed.
    pub(super) fn form(self) -> OutputFormat {
        if self.json { OutputFormat::Json } else { OutputFormat::Text }
    }
}

/// What `bench` and `peers`, which do a set of runs, have in common.
#[derive(Clone, Debug, Args)]
pub(super) struct SetArgs {
    /// The relay's command line; flags are added to it. No shell is involved.
    #[arg(long, value_name = "COMMAND")]
    pub(super) relay: String,
    /// Agree that the tables are emptied before each run.
    #[arg(long, required = true)]
    truncate: bool,
    /// How often to repeat everything.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) runs: u32,
}

/// What is remembered with a result.
#[derive(Clone, Debug, Args)]
pub(super) struct NoteArgs {
    /// Something to remember with the result, as key=value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_note)]
    pub(super) note: Vec<(String, String)>,
}

/// A duration of at least a second, in seconds.
pub(super) fn parse_seconds(text: &str) -> Result<u64, String> {
    match parse_seconds_or_none(text)? {
        0 => Err("at least one second is needed".to_owned()),
        seconds => Ok(seconds),
    }
}

/// A duration in seconds; 0 is one.
pub(super) fn parse_seconds_or_none(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(format!("{text} is no duration: use whole seconds, or 60s, 10m, 1h")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text} is no duration"))?;
    let seconds = number.checked_mul(factor).filter(|&seconds| seconds <= 864_000);
    seconds.ok_or_else(|| format!("{text} is longer than ten days"))
}

/// A number with a smallest and a largest value; `what` says what is wrong with another.
pub(super) fn parse_between(
    text: &str,
    (least, most): (f64, f64),
    what: &str,
) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{text} is no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_seconds("90"), Ok(90));
        assert_eq!(parse_seconds("10m"), Ok(600));
        assert_eq!(parse_seconds_or_none("0s"), Ok(0));
        for wrong in ["0", "1.5s", "s", "3d", "99999999999999999999h", "1000h"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
