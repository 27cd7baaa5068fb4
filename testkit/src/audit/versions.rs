//! The auditor of counted events: a few bytes per aggregate.
//!
//! Promises: every lost, invented, disordered or misplaced event is counted. Memory is bounded: six bytes per
//! aggregate, plus a bounded list of gaps. Must not: know where records come from. Fails: never; what it cannot
//! tell exactly (too many gaps at once) it says in [`Verdict::exact`].
//!
//! How it knows: the committed events of an aggregate carry versions 1, 2, 3, ... without a gap. So the last
//! version seen is all that must be kept per aggregate: the next one is `last + 1`; a higher one leaves a gap; a
//! lower one fills a gap (out of order) or is a repeat. Gaps that stay are missing.

use hashbrown::HashMap;

use crate::audit::verdict::Verdict;

/// How many gaps are kept before the auditor only counts them.
const GAP_LIMIT: usize = 1 << 20;

/// No record of this aggregate was seen yet.
const NO_PARTITION: u16 = u16::MAX;

/// What a committed event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionSeen {
    /// It was seen for the first time.
    First,
    /// It was seen before.
    Repeat,
    /// Nobody has such an aggregate.
    Invented,
}

/// Versions `first..=last` of an aggregate that a later version overtook.
#[derive(Clone, Copy, Debug)]
struct VersionGap {
    first: u32,
    last: u32,
}

/// Follows the versions of aggregates that have numbers.
#[derive(Debug)]
pub struct VersionAuditor {
    last: Vec<u32>,
    partition: Vec<u16>,
    gaps: HashMap<u32, Vec<VersionGap>>,
    gap_count: usize,
    counts: Verdict,
}

impl VersionAuditor {
    /// An auditor of so many aggregates.
    pub fn new(aggregates: u32) -> Self {
        Self {
            last: vec![0; aggregates as usize],
            partition: vec![NO_PARTITION; aggregates as usize],
            gaps: HashMap::new(),
            gap_count: 0,
            counts: Verdict::default(),
        }
    }

    /// The counts so far; what is missing is known only to [`VersionAuditor::verdict`].
    pub fn counts(&self) -> &Verdict {
        &self.counts
    }

    /// A record is not of this audit.
    pub fn saw_foreign(&mut self) {
        self.counts.foreign += 1;
    }

    /// A record is not what was written.
    pub fn saw_altered(&mut self) {
        self.counts.altered += 1;
    }

    /// An event arrived whose transaction was rolled back.
    pub fn saw_rolled_back(&mut self) {
        self.counts.rolled_back += 1;
    }

    /// A committed event is the next record of its partition.
    pub fn saw(&mut self, aggregate: u32, version: u32, partition: i32) -> VersionSeen {
        let Some(last) = self.last.get_mut(aggregate as usize) else {
            self.counts.invented += 1;
            return VersionSeen::Invented;
        };
        let previous = *last;
        *last = previous.max(version);
        self.check_partition(partition, aggregate);
        if version > previous {
            if version > previous + 1 {
                self.open_gap(aggregate, VersionGap { first: previous + 1, last: version - 1 });
            }
            self.counts.delivered += 1;
            return VersionSeen::First;
        }
        if self.fill_gap(aggregate, version) {
            self.counts.out_of_order += 1;
            self.counts.delivered += 1;
            return VersionSeen::First;
        }
        self.counts.repeats += 1;
        VersionSeen::Repeat
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

    fn open_gap(&mut self, aggregate: u32, gap: VersionGap) {
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
        let before = VersionGap { first: gap.first, last: version - 1 };
        let after = VersionGap { first: version + 1, last: gap.last };
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
    pub fn verdict(&self, committed_versions: &[u32]) -> Verdict {
        let mut verdict = self.counts;
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

    fn audit(versions: &[u32], committed: u32) -> Verdict {
        let mut auditor = VersionAuditor::new(1);
        for &version in versions {
            auditor.saw(0, version, 0);
        }
        auditor.verdict(&[committed])
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
    fn an_aggregate_of_which_nothing_came_is_missing() {
        let mut auditor = VersionAuditor::new(2);
        auditor.saw(0, 1, 0);
        assert_eq!(auditor.verdict(&[1, 3]).missing, 3);
    }

    #[test]
    fn a_version_or_aggregate_that_nobody_committed_is_invented() {
        assert_eq!(audit(&[1, 2, 3], 2).invented, 1);
        let mut auditor = VersionAuditor::new(1);
        assert_eq!(auditor.saw(5, 1, 0), VersionSeen::Invented);
        assert_eq!(auditor.verdict(&[0]).invented, 1);
    }

    #[test]
    fn another_partition_is_misplaced() {
        let mut auditor = VersionAuditor::new(1);
        auditor.saw(0, 1, 0);
        auditor.saw(0, 2, 1);
        assert_eq!(auditor.verdict(&[2]).misplaced, 1);
    }

    #[test]
    fn a_wide_gap_is_one_entry_and_fills_from_any_side() {
        let mut auditor = VersionAuditor::new(1);
        for version in [10, 5, 1, 9, 2, 3, 4, 6, 7, 8] {
            auditor.saw(0, version, 0);
        }
        let verdict = auditor.verdict(&[10]);
        assert_eq!((verdict.out_of_order, verdict.missing, verdict.repeats), (9, 0, 0));
        assert_eq!(auditor.gap_count, 0);
    }

    #[test]
    fn more_gaps_than_are_kept_make_the_verdict_inexact() {
        let mut auditor = VersionAuditor::new(1);
        auditor.gap_count = GAP_LIMIT;
        auditor.saw(0, 2, 0);
        let verdict = auditor.verdict(&[2]);
        assert!(!verdict.exact && !verdict.holds());
    }
}
