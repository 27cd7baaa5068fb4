//! The auditor of a run: does the topic hold exactly what was committed, in order per aggregate?
//!
//! Promises: every record of a run is judged by what its payload says of itself. A transaction that will be rolled
//! back says so, and uses up no version. Must not: know where records come from. Fails: as [`VersionAuditor`] does.

use postrider_testkit::audit::Verdict;
use postrider_testkit::audit::versions::{VersionAuditor, VersionSeen};

use crate::workload::event::{self, EventMark, Intent, PayloadReading};

/// What one record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// A committed event, for the first time.
    First(EventMark),
    /// A committed event again.
    Repeat,
    /// An event of another run, or not of the load generator.
    Foreign,
    /// A fault; it is counted.
    Fault,
}

/// Follows the records of one run.
#[derive(Debug)]
pub(crate) struct RunAuditor {
    run: u32,
    payload_bytes: u32,
    versions: VersionAuditor,
}

impl RunAuditor {
    /// An auditor for a run with this many aggregates, whose payloads have this length.
    pub(crate) fn new(run: u32, aggregates: u32, payload_bytes: u32) -> Self {
        Self { run, payload_bytes, versions: VersionAuditor::new(aggregates) }
    }

    /// How many committed events were seen, each counted once.
    pub(crate) fn delivered(&self) -> u64 {
        self.counts().delivered
    }

    /// The counts so far; what is missing is known only to [`RunAuditor::verdict`].
    pub(crate) fn counts(&self) -> &Verdict {
        self.versions.counts()
    }

    /// Takes the next record of a partition.
    pub(crate) fn observe(
        &mut self,
        partition: i32,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) -> Sighting {
        let named = key.and_then(event::aggregate_of_key);
        match event::decode(payload.unwrap_or_default(), self.payload_bytes) {
            PayloadReading::Whole(mark) | PayloadReading::Altered(mark) if mark.run != self.run => {
                self.foreign()
            }
            PayloadReading::Whole(mark) if named == Some(mark.aggregate) => {
                self.judge(partition, mark)
            }
            PayloadReading::Whole(_) | PayloadReading::Altered(_) => self.altered(),
            PayloadReading::Unreadable if named.is_some() => self.altered(),
            PayloadReading::Unreadable => self.foreign(),
        }
    }

    fn foreign(&mut self) -> Sighting {
        self.versions.saw_foreign();
        Sighting::Foreign
    }

    fn altered(&mut self) -> Sighting {
        self.versions.saw_altered();
        Sighting::Fault
    }

    fn judge(&mut self, partition: i32, mark: EventMark) -> Sighting {
        if mark.intent == Intent::RollBack {
            self.versions.saw_rolled_back();
            return Sighting::Fault;
        }
        match self.versions.saw(mark.aggregate, mark.version, partition) {
            VersionSeen::First => Sighting::First(mark),
            VersionSeen::Repeat => Sighting::Repeat,
            VersionSeen::Invented => Sighting::Fault,
        }
    }

    /// The judgement, given the last committed version of every aggregate.
    pub(crate) fn verdict(&self, committed_versions: &[u32]) -> Verdict {
        self.versions.verdict(committed_versions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 7;
    const PAYLOAD_BYTES: u32 = 200;

    fn mark(aggregate: u32, version: u32) -> EventMark {
        EventMark {
            run: RUN,
            aggregate,
            version,
            writer: 0,
            transaction: 1,
            intended_unix_us: 1,
            intent: Intent::Commit,
        }
    }

    fn show(auditor: &mut RunAuditor, partition: i32, mark: EventMark) -> Sighting {
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        mark.write_key(&mut key);
        mark.write_payload(PAYLOAD_BYTES, &mut payload);
        auditor.observe(partition, Some(&key), Some(&payload))
    }

    #[test]
    fn rolled_back_events_are_found_and_use_up_no_version() {
        let mut auditor = RunAuditor::new(RUN, 1, PAYLOAD_BYTES);
        show(&mut auditor, 0, mark(0, 1));
        show(&mut auditor, 0, EventMark { intent: Intent::RollBack, ..mark(0, 2) });
        show(&mut auditor, 0, mark(0, 2));
        let verdict = auditor.verdict(&[2]);
        assert_eq!((verdict.rolled_back, verdict.repeats, verdict.missing), (1, 0, 0));
        assert!(!verdict.holds());
    }

    #[test]
    fn a_wrong_key_or_payload_is_altered_and_its_event_missing() {
        let mut auditor = RunAuditor::new(RUN, 1, PAYLOAD_BYTES);
        let mut payload = Vec::new();
        mark(0, 1).write_payload(PAYLOAD_BYTES, &mut payload);
        auditor.observe(0, Some(b"order-1"), Some(&payload));
        auditor.observe(0, Some(b"order-0"), Some(&payload[..100]));
        auditor.observe(0, Some(b"order-0"), None);
        let verdict = auditor.verdict(&[1]);
        assert_eq!((verdict.altered, verdict.missing), (3, 1));
    }

    #[test]
    fn other_runs_and_other_records_are_foreign() {
        let mut auditor = RunAuditor::new(RUN, 1, PAYLOAD_BYTES);
        let other = EventMark { run: RUN + 1, ..mark(0, 9) };
        assert_eq!(show(&mut auditor, 0, other), Sighting::Foreign);
        assert_eq!(auditor.observe(0, None, Some(b"{}")), Sighting::Foreign);
        show(&mut auditor, 0, mark(0, 1));
        let verdict = auditor.verdict(&[1]);
        assert_eq!(verdict.foreign, 2);
        assert!(verdict.holds());
    }
}
