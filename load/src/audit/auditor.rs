//! The auditor: does the topic hold exactly what was committed, in order per aggregate?
//!
//! Promises: every lost, invented, rolled back, disordered, altered or misplaced event of a run is
//! counted; repeats are counted apart, for at-least-once allows them. Memory is bounded: six bytes
//! per aggregate, plus a bounded list of gaps. Must not: know where records come from. Fails: never;
//! what it cannot tell exactly (too many gaps at once) it says in [`Verdict::exact`].
//!
//! How it knows: the committed events of an aggregate carry versions 1, 2, 3, ... without a gap, and
//! a transaction that will be rolled back says so in its payload and uses up no version. So the last
//! version seen is all that must be kept per aggregate: the next one is `last + 1`; a higher one
//! leaves a gap; a lower one fills a gap (out of order) or is a repeat. Gaps that stay are missing.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::workload::event::{self, Fate, Mark, Reading};

/// How many gaps are kept before the auditor only counts them.
const GAP_LIMIT: usize = 1 << 20;

/// No record of this aggregate was seen yet.
const NO_PARTITION: u16 = u16::MAX;

/// What one record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// A committed event, for the first time.
    First(Mark),
    /// A committed event again.
    Repeat,
    /// An event of another run, or not of the load generator.
    Foreign,
    /// A fault; it is counted.
    Fault,
}

/// What the auditor found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Committed events of the run.
    pub(crate) committed: u64,
    /// Committed events that the topic holds, each counted once.
    pub(crate) delivered: u64,
    /// Committed events that the topic does not hold.
    pub(crate) missing: u64,
    /// Events of transactions that were rolled back, yet are in the topic.
    pub(crate) rolled_back: u64,
    /// Events that nobody committed: a version or an aggregate that does not exist.
    pub(crate) invented: u64,
    /// Events whose first appearance comes after a later event of their aggregate.
    pub(crate) out_of_order: u64,
    /// Events whose key or payload is not what was written.
    pub(crate) altered: u64,
    /// Events in another partition than their aggregate's earlier ones.
    pub(crate) misplaced: u64,
    /// Events that were there before; at-least-once allows them.
    pub(crate) repeats: u64,
    /// Records that are not of this run.
    pub(crate) foreign: u64,
    /// False when there were more gaps than are kept: the counts are then lower bounds.
    pub(crate) exact: bool,
}

impl Verdict {
    /// Whether the promises held; repeats and foreign records are no fault.
    pub(crate) fn holds(&self) -> bool {
        self.missing + self.faults() == 0 && self.delivered == self.committed && self.exact
    }

    /// What is wrong whatever may still come.
    pub(crate) fn faults(&self) -> u64 {
        self.rolled_back + self.invented + self.out_of_order + self.altered + self.misplaced
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let bound =
            if self.exact { "" } else { " (too many gaps at once: counts are lower bounds)" };
        format!(
            "{} of {} delivered, {} missing, {} rolled back but published, {} invented, \
             {} out of order, {} altered, {} misplaced, {} repeats{bound}",
            self.delivered,
            self.committed,
            self.missing,
            self.rolled_back,
            self.invented,
            self.out_of_order,
            self.altered,
            self.misplaced,
            self.repeats,
        )
    }
}

/// Versions `first..=last` of an aggregate that a later version overtook.
#[derive(Clone, Copy, Debug)]
struct Gap {
    first: u32,
    last: u32,
}

/// Follows the records of one run.
#[derive(Debug)]
pub(crate) struct Auditor {
    run: u32,
    payload_bytes: u32,
    last: Vec<u32>,
    partition: Vec<u16>,
    gaps: HashMap<u32, Vec<Gap>>,
    gap_count: usize,
    counts: Verdict,
}

impl Auditor {
    /// An auditor for a run with this many aggregates, whose payloads have this length.
    pub(crate) fn new(run: u32, aggregates: u32, payload_bytes: u32) -> Self {
        Self {
            run,
            payload_bytes,
            last: vec![0; aggregates as usize],
            partition: vec![NO_PARTITION; aggregates as usize],
            gaps: HashMap::new(),
            gap_count: 0,
            counts: Verdict { exact: true, ..Verdict::default() },
        }
    }

    /// How many committed events were seen, each counted once.
    pub(crate) fn delivered(&self) -> u64 {
        self.counts.delivered
    }

    /// The counts so far; what is missing is known only to [`Auditor::verdict`].
    pub(crate) fn counts(&self) -> &Verdict {
        &self.counts
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
            Reading::Whole(mark) | Reading::Altered(mark) if mark.run != self.run => self.foreign(),
            Reading::Whole(mark) if named == Some(mark.aggregate) => self.judge(partition, mark),
            Reading::Whole(_) | Reading::Altered(_) => self.altered(),
            Reading::Unreadable if named.is_some() => self.altered(),
            Reading::Unreadable => self.foreign(),
        }
    }

    fn foreign(&mut self) -> Sighting {
        self.counts.foreign += 1;
        Sighting::Foreign
    }

    fn altered(&mut self) -> Sighting {
        self.counts.altered += 1;
        Sighting::Fault
    }

    fn judge(&mut self, partition: i32, mark: Mark) -> Sighting {
        if mark.fate == Fate::RollBack {
            self.counts.rolled_back += 1;
            return Sighting::Fault;
        }
        let Some(last) = self.last.get_mut(mark.aggregate as usize) else {
            self.counts.invented += 1;
            return Sighting::Fault;
        };
        let previous = *last;
        *last = previous.max(mark.version);
        self.check_partition(partition, mark.aggregate);
        if mark.version == previous + 1 {
            self.counts.delivered += 1;
            return Sighting::First(mark);
        }
        if mark.version > previous {
            self.open_gap(mark.aggregate, Gap { first: previous + 1, last: mark.version - 1 });
            self.counts.delivered += 1;
            return Sighting::First(mark);
        }
        if self.fill_gap(mark.aggregate, mark.version) {
            self.counts.out_of_order += 1;
            self.counts.delivered += 1;
            return Sighting::First(mark);
        }
        self.counts.repeats += 1;
        Sighting::Repeat
    }

    fn check_partition(&mut self, partition: i32, aggregate: u32) {
        let here = u16::try_from(partition).unwrap_or(NO_PARTITION - 1);
        let home = &mut self.partition[aggregate as usize];
        if *home == NO_PARTITION {
            *home = here;
        } else if *home != here {
            self.counts.misplaced += 1;
        }
    }

    fn open_gap(&mut self, aggregate: u32, gap: Gap) {
        if self.gap_count == GAP_LIMIT {
            self.counts.exact = false;
            return;
        }
        self.gap_count += 1;
        self.gaps.entry(aggregate).or_default().push(gap);
    }

    /// Takes a version out of the gap that it lies in; false when there is none.
    fn fill_gap(&mut self, aggregate: u32, version: u32) -> bool {
        let Some(gaps) = self.gaps.get_mut(&aggregate) else { return false };
        let Some(at) = gaps.iter().position(|gap| (gap.first..=gap.last).contains(&version)) else {
            return false;
        };
        let gap = gaps.swap_remove(at);
        let before = Gap { first: gap.first, last: version - 1 };
        let after = Gap { first: version + 1, last: gap.last };
        gaps.extend([before, after].into_iter().filter(|part| part.first <= part.last));
        let parts =
            usize::from(before.first <= before.last) + usize::from(after.first <= after.last);
        self.gap_count = self.gap_count + parts - 1;
        if gaps.is_empty() {
            self.gaps.remove(&aggregate);
        }
        true
    }

    /// The judgement, given the last committed version of every aggregate.
    pub(crate) fn verdict(&self, committed_versions: &[u32]) -> Verdict {
        let mut verdict = self.counts.clone();
        verdict.committed = committed_versions.iter().map(|&version| u64::from(version)).sum();
        for (aggregate, &last) in self.last.iter().enumerate() {
            let committed = committed_versions.get(aggregate).copied().unwrap_or(0);
            verdict.invented += u64::from(last.saturating_sub(committed));
            verdict.missing += u64::from(committed.saturating_sub(last));
            verdict.missing += self.missing_inside(aggregate as u32, committed);
        }
        verdict
    }

    fn missing_inside(&self, aggregate: u32, committed: u32) -> u64 {
        let Some(gaps) = self.gaps.get(&aggregate) else { return 0 };
        gaps.iter()
            .filter(|gap| gap.first <= committed)
            .map(|gap| u64::from(gap.last.min(committed) - gap.first + 1))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 7;
    const PAYLOAD_BYTES: u32 = 200;

    fn mark(aggregate: u32, version: u32) -> Mark {
        Mark {
            run: RUN,
            aggregate,
            version,
            writer: 0,
            transaction: 1,
            intended_unix_us: 1,
            fate: Fate::Commit,
        }
    }

    fn show(auditor: &mut Auditor, partition: i32, mark: Mark) -> Sighting {
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        mark.write_key(&mut key);
        mark.write_payload(PAYLOAD_BYTES, &mut payload);
        auditor.observe(partition, Some(&key), Some(&payload))
    }

    fn audit(versions: &[u32], committed: u32) -> Verdict {
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
        for &version in versions {
            show(&mut auditor, 0, mark(0, version));
        }
        auditor.verdict(&[committed])
    }

    #[test]
    fn a_verdict_is_told_in_the_words_of_every_auditor_here() {
        let told = audit(&[1, 3, 2, 3, 9], 4).summary();
        let words = "4 of 4 delivered, 1 missing, 0 rolled back but published, 5 invented, \
                     1 out of order, 0 altered, 0 misplaced, 1 repeats";
        assert_eq!(told, words);
    }

    #[test]
    fn a_complete_ordered_topic_holds() {
        let verdict = audit(&[1, 2, 3, 4], 4);
        assert!(verdict.holds());
        assert_eq!((verdict.delivered, verdict.committed), (4, 4));
    }

    #[test]
    fn a_missing_event_is_found_inside_and_at_the_end() {
        for topic in [&[1, 2, 4][..], &[1, 2, 3], &[2, 3, 4]] {
            let verdict = audit(topic, 4);
            assert_eq!(verdict.missing, 1, "{topic:?}");
            assert_eq!(verdict.out_of_order, 0, "{topic:?}");
            assert!(!verdict.holds());
        }
    }

    #[test]
    fn an_aggregate_of_which_nothing_came_is_missing() {
        let mut auditor = Auditor::new(RUN, 2, PAYLOAD_BYTES);
        show(&mut auditor, 0, mark(0, 1));
        assert_eq!(auditor.verdict(&[1, 3]).missing, 3);
    }

    #[test]
    fn swapped_events_are_out_of_order_and_not_missing() {
        let verdict = audit(&[1, 3, 2, 4], 4);
        assert_eq!((verdict.out_of_order, verdict.missing, verdict.repeats), (1, 0, 0));
        assert!(!verdict.holds());
    }

    #[test]
    fn repeats_are_counted_and_are_no_fault() {
        let verdict = audit(&[1, 2, 3, 2, 3, 4], 4);
        assert_eq!((verdict.repeats, verdict.out_of_order, verdict.missing), (2, 0, 0));
        assert!(verdict.holds());
    }

    #[test]
    fn a_repeat_does_not_hide_what_is_missing() {
        let verdict = audit(&[1, 2, 2, 4], 4);
        assert_eq!((verdict.repeats, verdict.missing), (1, 1));
    }

    #[test]
    fn order_is_judged_after_dropping_repeats() {
        let verdict = audit(&[1, 3, 2, 3, 4], 4);
        assert_eq!((verdict.out_of_order, verdict.repeats), (1, 1));
    }

    #[test]
    fn rolled_back_events_are_found_and_use_up_no_version() {
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
        show(&mut auditor, 0, mark(0, 1));
        show(&mut auditor, 0, Mark { fate: Fate::RollBack, ..mark(0, 2) });
        show(&mut auditor, 0, mark(0, 2));
        let verdict = auditor.verdict(&[2]);
        assert_eq!((verdict.rolled_back, verdict.repeats, verdict.missing), (1, 0, 0));
        assert!(!verdict.holds());
    }

    #[test]
    fn a_version_or_aggregate_that_nobody_committed_is_invented() {
        assert_eq!(audit(&[1, 2, 3], 2).invented, 1);
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
        assert_eq!(show(&mut auditor, 0, mark(5, 1)), Sighting::Fault);
        assert_eq!(auditor.verdict(&[0]).invented, 1);
    }

    #[test]
    fn another_partition_is_misplaced() {
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
        show(&mut auditor, 0, mark(0, 1));
        show(&mut auditor, 1, mark(0, 2));
        assert_eq!(auditor.verdict(&[2]).misplaced, 1);
    }

    #[test]
    fn a_wrong_key_or_payload_is_altered_and_its_event_missing() {
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
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
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
        let other = Mark { run: RUN + 1, ..mark(0, 9) };
        assert_eq!(show(&mut auditor, 0, other), Sighting::Foreign);
        assert_eq!(auditor.observe(0, None, Some(b"{}")), Sighting::Foreign);
        show(&mut auditor, 0, mark(0, 1));
        let verdict = auditor.verdict(&[1]);
        assert_eq!(verdict.foreign, 2);
        assert!(verdict.holds());
    }

    #[test]
    fn a_wide_gap_is_one_entry_and_fills_from_any_side() {
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
        for version in [10, 5, 1, 9, 2, 3, 4, 6, 7, 8] {
            show(&mut auditor, 0, mark(0, version));
        }
        let verdict = auditor.verdict(&[10]);
        assert_eq!((verdict.out_of_order, verdict.missing, verdict.repeats), (9, 0, 0));
        assert_eq!(auditor.gap_count, 0);
    }

    #[test]
    fn more_gaps_than_are_kept_make_the_verdict_inexact() {
        let mut auditor = Auditor::new(RUN, 1, PAYLOAD_BYTES);
        auditor.gap_count = GAP_LIMIT;
        show(&mut auditor, 0, mark(0, 2));
        let verdict = auditor.verdict(&[2]);
        assert!(!verdict.exact && !verdict.holds());
    }
}
