//! Figures and verdicts in words.
//!
//! Promises: the same words in the live view, in plain lines and in the summary. Must not: print.

use std::time::Duration;

use postrider_testkit::audit::{FaultCount, Verdict};
use postrider_testkit::figures::grouped;

/// Milliseconds, with a tenth below ten.
pub(super) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{} ms", grouped(millis as u64)) }
}

/// The faults that were found, in words; empty when there are none. Events that have not arrived
/// are a fault only at the end.
pub(super) fn faults(verdict: &Verdict) -> Vec<String> {
    let found = verdict.lasting_faults().into_iter().filter(|fault| fault.count > 0);
    found.map(|fault| described(&fault)).collect()
}

fn described(fault: &FaultCount) -> String {
    let meaning = fault.meaning.map(|meaning| format!(" ({meaning})")).unwrap_or_default();
    format!("{} {}{meaning}", grouped(fault.count), fault.word)
}

/// What became of the events that were rolled back.
pub(super) fn after_rollback(verdict: &Verdict) -> String {
    match verdict.rolled_back {
        0 => "never published".to_owned(),
        published => format!("{} of them were published", grouped(published)),
    }
}

/// How the demo came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DemoEnd {
    /// Everything that was committed had its time to arrive.
    Finished,
    /// Something failed on the way.
    BrokenOff,
}

/// The last word.
pub(super) fn conclusion(verdict: &Verdict, course: DemoEnd) -> String {
    let mut faults = faults(verdict);
    if verdict.missing > 0 && course == DemoEnd::Finished {
        faults.insert(0, described(&verdict.missing_fault()));
    }
    if !faults.is_empty() {
        return format!("BROKEN: {}", faults.join(", "));
    }
    if course == DemoEnd::BrokenOff {
        let missing = grouped(verdict.missing);
        return format!(
            "not finished: {missing} committed events had not arrived when it broke off"
        );
    }
    if verdict.committed == 0 {
        return "nothing was checked: no event was committed".to_owned();
    }
    "holds: every committed event arrived, each order's in order, nothing else did".to_owned()
}

/// Whether the demo has shown what it is there to show.
pub(super) fn is_proven(verdict: &Verdict, course: DemoEnd) -> bool {
    course == DemoEnd::Finished && verdict.committed > 0 && verdict.holds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(millis(Duration::from_micros(1_240)), "1.2 ms");
        assert_eq!(millis(Duration::from_millis(1_234)), "1,234 ms");
    }

    #[test]
    fn conclusion_names_every_fault() {
        let clean = Verdict { committed: 5, delivered: 5, repeats: 2, ..Verdict::default() };
        assert!(conclusion(&clean, DemoEnd::Finished).starts_with("holds"));
        assert!(is_proven(&clean, DemoEnd::Finished));
        let broken = Verdict { missing: 1, rolled_back: 2, out_of_order: 3, ..clean };
        let text = conclusion(&broken, DemoEnd::Finished);
        for part in ["BROKEN", "1 missing", "2 rolled back but", "3 out of order"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!is_proven(&broken, DemoEnd::Finished));
        assert!(!is_proven(&Verdict::default(), DemoEnd::Finished), "nothing is no proof");
    }

    #[test]
    fn broken_off_is_no_proof_and_no_fault() {
        let clean = Verdict { committed: 5, delivered: 5, ..Verdict::default() };
        assert!(!is_proven(&clean, DemoEnd::BrokenOff));
        let open = Verdict { delivered: 4, missing: 1, ..clean };
        assert!(conclusion(&open, DemoEnd::BrokenOff).starts_with("not finished: 1 "));
        let broken = Verdict { invented: 1, ..open };
        assert!(conclusion(&broken, DemoEnd::BrokenOff).starts_with("BROKEN: 1 invented"));
    }
}
