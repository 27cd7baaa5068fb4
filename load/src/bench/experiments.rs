//! The published experiments: a fixed set, so that figures of different days can be compared.
//!
//! Promises: the same groups and names at every scale. Must not: run anything. Fails: never.

use clap::ValueEnum;
use serde::Serialize;

/// Experiments that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// Sustained traffic.
    Live,
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
    /// What is added to the relay's command line.
    pub(crate) relay_flags: String,
    /// What is done.
    pub(crate) work: Work,
}

/// The whole set; `scale` is a factor on events and seconds.
pub(crate) fn all(scale: f64) -> Vec<Experiment> {
    let seconds = |seconds: f64| ((seconds * scale) as u64).max(2);
    let live = |rate: f64, tx_size: u32, length: f64| Experiment {
        group: Group::Live,
        name: format!("{rate:.0}/s, {tx_size} per transaction"),
        relay_flags: String::new(),
        work: Work::Live { rate, tx_size, seconds: seconds(length) },
    };
    let mut set = vec![live(100_000.0, 100, 600.0), live(10_000.0, 1, 60.0)];
    set.extend(drains(scale));
    set.push(Experiment {
        group: Group::Idle,
        name: "no traffic".to_owned(),
        relay_flags: String::new(),
        work: Work::Idle { seconds: seconds(60.0) },
    });
    set
}

fn drains(scale: f64) -> Vec<Experiment> {
    let drain = |group, name: String, flags: String, events: f64, tx_size, payload_bytes| {
        let events = ((events * scale) as u64).max(1_000);
        let work = Work::Drain { events, tx_size, payload_bytes };
        Experiment { group, name, relay_flags: flags, work }
    };
    let plain = String::new;
    let mut set = vec![drain(Group::Drain, "5 million".to_owned(), plain(), 5e6, 100, 200)];
    let flags = |group, flag: &'static str, values: &'static [u32]| {
        values.iter().map(move |value| {
            let flags = format!("{flag}{value}");
            drain(group, flags.clone(), flags, 1e6, 100, 200)
        })
    };
    set.extend(flags(Group::Shards, "--shards ", &[1, 2, 4, 8, 16]));
    set.extend(flags(Group::Pages, "--page-rows ", &[500, 2_000, 5_000, 20_000]));
    set.extend(flags(Group::Linger, "-X linger.ms=", &[1, 5, 20, 50]));
    for (bytes, events) in [(100, 1e6), (1_000, 1e6), (10_000, 2e5)] {
        set.push(drain(Group::Payload, format!("{bytes} B"), plain(), events, 100, bytes));
    }
    for tx_size in [1, 10, 100] {
        let name = format!("{tx_size} per transaction");
        set.push(drain(Group::Transactions, name, plain(), 2e5, tx_size, 200));
    }
    for (name, events) in [("10^5 rows", 1e5), ("10^6 rows", 1e6), ("10^7 rows", 1e7)] {
        set.push(drain(Group::Backlog, name.to_owned(), plain(), events, 100, 200));
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
    fn the_scale_changes_sizes_and_not_names() {
        let (whole, tenth) = (all(1.0), all(0.1));
        let names = |set: &[Experiment]| set.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&whole), names(&tenth));
        let events = |set: &[Experiment]| {
            set.iter().find_map(|one| match one.work {
                Work::Drain { events, .. } => Some(events),
                Work::Live { .. } | Work::Idle { .. } => None,
            })
        };
        assert_eq!((events(&whole), events(&tenth)), (Some(5_000_000), Some(500_000)));
    }
}
