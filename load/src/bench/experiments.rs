//! The published experiments: a fixed set, so that figures of different days can be compared.
//!
//! Promises: the same groups and names at every scale. Must not: run anything.

use clap::ValueEnum;
use serde::Serialize;

use crate::measure::slot::RelayReads;

/// Experiments that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// Sustained traffic.
    Live,
    /// The capture modes, beside each other.
    Capture,
    /// A large backlog.
    Drain,
    /// `--shards`.
    Shards,
    /// `--page-rows`.
    Pages,
    /// librdkafka's `linger.ms`.
    Linger,
    /// Length of the payload.
    Payload,
    /// Events per transaction.
    Transactions,
    /// No traffic at all.
    Idle,
    /// Does the cost per event grow with the backlog?
    Backlog,
}

/// How the relay reads events: its `--capture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CaptureMode {
    /// From the table.
    Poll,
    /// From the table's changes in the WAL.
    Wal,
    /// From messages in the WAL.
    Message,
}

impl CaptureMode {
    /// As the relay's flag has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Wal => "wal",
            Self::Message => "message",
        }
    }

    /// Where the relay reads then.
    pub(crate) const fn reads(self) -> RelayReads {
        match self {
            Self::Poll => RelayReads::Table,
            Self::Wal | Self::Message => RelayReads::Wal,
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// An open loop.
    Live {
        /// Events per second.
        rate: f64,
        /// Events per transaction.
        tx_size: u32,
        /// Measured seconds.
        seconds: u64,
    },
    /// A backlog.
    Drain {
        /// Its events.
        events: u64,
        /// Events per transaction.
        tx_size: u32,
        /// Length of each payload.
        payload_bytes: u32,
    },
    /// Nothing.
    Idle {
        /// Measured seconds.
        seconds: u64,
    },
}

/// One experiment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Experiment {
    /// Where it belongs.
    pub(crate) group: Group,
    /// Its name inside the group.
    pub(crate) name: String,
    /// How events are read.
    pub(crate) capture: CaptureMode,
    /// What is added to the relay's command line, besides `--capture`.
    pub(crate) relay_flags: String,
    /// What is done.
    pub(crate) work: Work,
    /// It is not repeated more often, whatever was asked: it is long.
    pub(crate) runs_max: u32,
}

impl Experiment {
    /// How often it is done when so many runs were asked for.
    pub(crate) fn runs(&self, asked: u32) -> u32 {
        asked.min(self.runs_max)
    }

    /// About how long one run takes, on two cores that everybody shares.
    pub(crate) fn estimated_seconds(&self) -> f64 {
        let reader = if self.capture == CaptureMode::Poll { 0.0 } else { LOG_READER_SECONDS };
        reader
            + match self.work {
                Work::Live { seconds, .. } => {
                    (WARM_UP_SECONDS + seconds) as f64 + LIVE_ROUND_SECONDS
                }
                Work::Idle { seconds } => seconds as f64 + IDLE_ROUND_SECONDS,
                Work::Drain { events, tx_size, payload_bytes } => {
                    let transactions = events as f64 / f64::from(tx_size);
                    let excess_bytes = payload_bytes.saturating_sub(200);
                    let megabytes = events as f64 * f64::from(excess_bytes) / 1e6;
                    DRAIN_ROUND_SECONDS
                        + events as f64 * SECONDS_PER_EVENT
                        + transactions * SECONDS_PER_TRANSACTION
                        + megabytes * SECONDS_PER_MEGABYTE
                }
            }
    }
}

/// Before the measured time of a live experiment.
pub(crate) const WARM_UP_SECONDS: u64 = 5;

// What the estimate is made of; measured on the machine of `load/runs`.
const LOG_READER_SECONDS: f64 = 3.0;
const LIVE_ROUND_SECONDS: f64 = 3.0;
const IDLE_ROUND_SECONDS: f64 = 6.0;
const DRAIN_ROUND_SECONDS: f64 = 4.0;
/// To write, relay and audit one event of 200 bytes.
const SECONDS_PER_EVENT: f64 = 12e-6;
/// To commit, with four writers.
const SECONDS_PER_TRANSACTION: f64 = 120e-6;
/// What is longer than that.
const SECONDS_PER_MEGABYTE: f64 = 0.02;

/// The whole set; `scale` is a factor on events and seconds.
pub(crate) fn all(scale: f64) -> Vec<Experiment> {
    let mut set = vec![
        live(Group::Live, CaptureMode::Poll, (100_000.0, 100), scaled_seconds(45, scale)),
        live(Group::Live, CaptureMode::Poll, (10_000.0, 1), scaled_seconds(20, scale)),
    ];
    set.extend(captures(scale));
    set.extend(drains(scale));
    for (mode, name) in
        [(CaptureMode::Poll, "no traffic, poll"), (CaptureMode::Wal, "no traffic, wal")]
    {
        let work = Work::Idle { seconds: scaled_seconds(15, scale) };
        set.push(experiment(Group::Idle, name.to_owned(), mode, work));
    }
    set
}

fn experiment(group: Group, name: String, capture: CaptureMode, work: Work) -> Experiment {
    Experiment { group, name, capture, relay_flags: String::new(), work, runs_max: u32::MAX }
}

fn scaled_seconds(seconds: u64, scale: f64) -> u64 {
    ((seconds as f64 * scale) as u64).max(2)
}

fn live(group: Group, mode: CaptureMode, (rate, tx_size): (f64, u32), seconds: u64) -> Experiment {
    let name = format!("{}, {rate:.0}/s, {tx_size} per transaction", mode.name());
    experiment(group, name, mode, Work::Live { rate, tx_size, seconds })
}

/// The same work in each capture mode, so that they can be compared in one run.
fn captures(scale: f64) -> Vec<Experiment> {
    let at = [
        (CaptureMode::Poll, 20_000.0),
        (CaptureMode::Wal, 20_000.0),
        (CaptureMode::Message, 20_000.0),
        (CaptureMode::Poll, 70_000.0),
        (CaptureMode::Wal, 70_000.0),
        (CaptureMode::Message, 100_000.0),
        (CaptureMode::Message, 150_000.0),
    ];
    let seconds = scaled_seconds(12, scale);
    let mut set: Vec<Experiment> = at
        .into_iter()
        .map(|(mode, rate)| live(Group::Capture, mode, (rate, 100), seconds))
        .collect();
    for mode in [CaptureMode::Poll, CaptureMode::Wal] {
        let work = drain(1e6, 100, 200, scale);
        let name = format!("{}, drain of a million", mode.name());
        set.push(experiment(Group::Capture, name, mode, work));
    }
    set
}

fn drain(events: f64, tx_size: u32, payload_bytes: u32, scale: f64) -> Work {
    Work::Drain { events: ((events * scale) as u64).max(1_000), tx_size, payload_bytes }
}

fn drains(scale: f64) -> Vec<Experiment> {
    let polled = |group, name: String, work| experiment(group, name, CaptureMode::Poll, work);
    let large = drain(5e6, 100, 200, scale);
    let mut set = vec![polled(Group::Drain, "5 million".to_owned(), large)];
    let flags = |group, flag: &'static str, values: &'static [u32]| {
        values.iter().map(move |value| {
            let relay_flags = format!("{flag}{value}");
            let work = drain(5e5, 100, 200, scale);
            Experiment { relay_flags: relay_flags.clone(), ..polled(group, relay_flags, work) }
        })
    };
    set.extend(flags(Group::Shards, "--shards ", &[1, 2, 4, 8, 16]));
    set.extend(flags(Group::Pages, "--page-rows ", &[500, 2_000, 5_000, 20_000]));
    set.extend(flags(Group::Linger, "-X linger.ms=", &[1, 5, 20, 50]));
    for (bytes, events) in [(100, 5e5), (1_000, 5e5), (10_000, 1e5)] {
        let work = drain(events, 100, bytes, scale);
        set.push(polled(Group::Payload, format!("{bytes} B"), work));
    }
    for tx_size in [1, 10, 100] {
        let work = drain(2e5, tx_size, 200, scale);
        set.push(polled(Group::Transactions, format!("{tx_size} per transaction"), work));
    }
    for (name, events) in [("10^5 rows", 1e5), ("10^6 rows", 1e6), ("10^7 rows, one run", 1e7)] {
        let one = polled(Group::Backlog, name.to_owned(), drain(events, 100, 200, scale));
        let runs_max = if events > 5e6 { 1 } else { u32::MAX };
        set.push(Experiment { runs_max, ..one });
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_experiments_with_names_of_their_own() {
        let set = all(1.0);
        for group in Group::value_variants() {
            let names: Vec<&String> =
                set.iter().filter(|one| one.group == *group).map(|one| &one.name).collect();
            assert!(!names.is_empty(), "{group:?}");
            let distinct: hashbrown::HashSet<&&String> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "{group:?}");
        }
    }

    #[test]
    fn the_whole_set_takes_about_half_an_hour() {
        let runs = |one: &Experiment| one.estimated_seconds() * f64::from(one.runs(3));
        let minutes = all(1.0).iter().map(runs).sum::<f64>() / 60.0;
        assert!((25.0..35.0).contains(&minutes), "{minutes}");
    }

    #[test]
    fn the_scale_changes_sizes_and_not_names() {
        let (whole, tenth) = (all(1.0), all(0.1));
        let names = |set: &[Experiment]| set.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&whole), names(&tenth));
        let events = |set: &[Experiment]| {
            set.iter().filter(|one| one.group == Group::Drain).find_map(|one| match one.work {
                Work::Drain { events, .. } => Some(events),
                Work::Live { .. } | Work::Idle { .. } => None,
            })
        };
        assert_eq!((events(&whole), events(&tenth)), (Some(5_000_000), Some(500_000)));
    }
}
