//! How things are, in a sentence.
//!
//! Promises: what is wrong comes first; what is not known is not said. Must not: ask anybody.

use crate::metrics::health::{LogRefusal, NO_SESSION};
use crate::metrics::shape::{
    BacklogReport, BucketCondition, BucketReport, InstanceCondition, InstanceReport, ParkedCounts,
    TierReport,
};

/// What a sentence tells of an instance that its report does not have.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// How old events were when they were acknowledged, of the last seconds: half of them were younger.
    pub behind_seconds: Option<f64>,
    /// For how long a transaction that has written is open.
    pub open_transaction_seconds: f64,
    /// What does not go on by itself.
    pub log_refusal: Option<LogRefusal>,
}

/// A transaction that is open for longer is told.
const OPEN_SECONDS: f64 = 60.0;

/// Of an instance: `publishing 98,204/s, 0.03 s behind, nothing parked`.
pub fn of_instance(status: &InstanceReport, present: Present) -> String {
    let lead = match status.state {
        InstanceCondition::NoSession => return no_session(status),
        InstanceCondition::StandingBy => "standing by: another instance reads the log".to_owned(),
        InstanceCondition::Draining => "stopping: what is in flight lands".to_owned(),
        InstanceCondition::Paused => {
            let reason = status.paused.as_ref().map_or("", |pause| pause.reason.as_str());
            format!("publishing is paused: {reason}")
        }
        InstanceCondition::Stalled => "it does not get on".to_owned(),
        InstanceCondition::Publishing => return publishing(status, present),
    };
    match status.causes.first() {
        Some(cause) => format!("{lead}: {}: {}", cause.what, cause.words),
        None => lead,
    }
}

/// `no session with PostgreSQL for 9.5s: the server is away`.
fn no_session(status: &InstanceReport) -> String {
    let words = status.causes.iter().find(|cause| cause.what == "postgres");
    let words = words.map_or("", |cause| cause.words.as_str());
    let rest = words.strip_prefix(NO_SESSION).map(str::to_owned);
    let rest = rest.or_else(|| (!words.is_empty()).then(|| format!(": {words}")));
    format!("{NO_SESSION} with PostgreSQL{}", rest.unwrap_or_default())
}

fn publishing(status: &InstanceReport, present: Present) -> String {
    let rate = status.rate.out.unwrap_or(0.0);
    let pace = match present.behind_seconds {
        Some(age) if rate > 0.0 => {
            format!("publishing {}/s, {} behind", whole(rate.round() as u64), seconds(age))
        }
        _ => waits(&status.backlog),
    };
    let parked = status.parked.as_ref().map(|counts| format!(", {}", parked(counts)));
    let open = (present.open_transaction_seconds >= OPEN_SECONDS).then(|| {
        let open = seconds(present.open_transaction_seconds);
        format!(", a transaction has been open for {open} at least, and its events wait")
    });
    let refused = present.log_refusal.map(|refusal| match refusal {
        LogRefusal::Log(cause) => {
            format!(", the table is polled, as the log cannot be read: {cause}")
        }
        LogRefusal::Copy(cause) => format!(", rows of adopted tables wait to be copied: {cause}"),
    });
    [Some(pace), parked, open, refused].into_iter().flatten().collect()
}

/// Of the tier: `2 instances own 16 buckets, nothing waits, nothing parked`.
pub fn of_tier(tier: &TierReport) -> String {
    let alive = tier.alive();
    let lost = |bucket: &&BucketReport| {
        matches!(bucket.state, BucketCondition::Free | BucketCondition::Orphaned)
    };
    let lost = tier.buckets.iter().filter(lost).count();
    let strange = tier.buckets.iter().filter(|one| one.state == BucketCondition::Strange).count();
    let owners = match (&tier.paused, alive) {
        (Some(pause), _) => format!("publishing is paused by {}: {}", pause.by, pause.reason),
        (None, 0) => "no instance is alive".to_owned(),
        (None, _) if strange > 0 => {
            "the cursors are of another cluster, or of a later state of this one".to_owned()
        }
        (None, _) if lost > 0 => {
            format!("{lost} of {} have no living owner", count(tier.buckets.len() as u64, "bucket"))
        }
        (None, 1) => format!("1 instance owns {}", count(tier.buckets.len() as u64, "bucket")),
        (None, alive) => {
            format!("{alive} instances own {}", count(tier.buckets.len() as u64, "bucket"))
        }
    };
    format!("{owners}, {}, {}", waits(&tier.backlog), parked(&tier.parked))
}

fn waits(backlog: &BacklogReport) -> String {
    let or_more = if backlog.is_lower_bound { " or more" } else { "" };
    match (backlog.events, backlog.oldest_seconds) {
        (None, _) => "what waits was not counted".to_owned(),
        (Some(0), _) if backlog.is_lower_bound => {
            "nothing was seen to wait, and not all was counted".to_owned()
        }
        (Some(0), _) => "nothing waits".to_owned(),
        (Some(1), None) if !backlog.is_lower_bound => "1 event waits".to_owned(),
        (Some(1), Some(oldest)) if !backlog.is_lower_bound => {
            format!("1 event waits, for {}", seconds(oldest))
        }
        (Some(events), None) => format!("{}{or_more} wait", count(events, "event")),
        (Some(events), Some(oldest)) => {
            format!("{}{or_more} wait, the oldest for {}", count(events, "event"), seconds(oldest))
        }
    }
}

fn parked(counts: &ParkedCounts) -> String {
    match counts.events {
        0 => "nothing parked".to_owned(),
        events => format!(
            "{} of {} parked",
            count(events, "event"),
            count(counts.aggregates, "aggregate")
        ),
    }
}

/// `1 event`, `2,000 events`.
pub fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", whole(number))
}

/// With a comma between thousands.
pub fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.03 s`, `34 s`, `4 min`.
pub fn seconds(seconds: f64) -> String {
    match seconds.max(0.0) {
        short if short < 0.1 => format!("{short:.3} s"),
        short if short < 10.0 => format!("{short:.1} s"),
        some if some < 120.0 => format!("{some:.0} s"),
        some if some < 7_200.0 => format!("{:.0} min", some / 60.0),
        long if long < 172_800.0 => format!("{:.0} h", long / 3_600.0),
        long => format!("{:.0} d", long / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let wholes = [0, 999, 1_000, 98_204, 1_234_567].map(whole);
        assert_eq!(wholes, ["0", "999", "1,000", "98,204", "1,234,567"]);
        let spans = [-1.0, 0.0312, 0.31, 34.2, 300.0, 7_200.0, 864_000.0].map(seconds);
        assert_eq!(spans, ["0.000 s", "0.031 s", "0.3 s", "34 s", "5 min", "2 h", "10 d"]);
        assert_eq!(count(1, "event"), "1 event");
    }

    #[test]
    fn what_was_not_counted_is_not_nothing() {
        let backlog = |events, is_lower_bound, oldest_seconds| BacklogReport {
            events,
            is_lower_bound,
            oldest_seconds,
            ..BacklogReport::default()
        };
        assert_eq!(waits(&backlog(Some(0), false, None)), "nothing waits");
        assert_eq!(waits(&backlog(Some(1), false, Some(9.0))), "1 event waits, for 9.0 s");
        assert_eq!(
            waits(&backlog(Some(1), true, Some(9.0))),
            "1 event or more wait, the oldest for 9.0 s"
        );
        assert_eq!(
            waits(&backlog(Some(0), true, None)),
            "nothing was seen to wait, and not all was counted"
        );
        assert_eq!(waits(&backlog(None, true, None)), "what waits was not counted");
        assert_eq!(
            waits(&backlog(Some(5_000), true, Some(9.0))),
            "5,000 events or more wait, the oldest for 9.0 s"
        );
    }
}
