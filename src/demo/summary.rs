//! What is said at the end.
//!
//! Promises: the verdict in words, the figures behind it, and how to go on. Must not: judge anew.
//! Fails: never; it only makes lines.

use crate::demo::ages::AgePercentiles;
use crate::demo::check::Totals;
use crate::demo::words::{DemoEnd, after_rollback, conclusion, millis};
use postrider_testkit::audit::Verdict;
use postrider_testkit::figures::grouped;

/// What the demo has found.
#[derive(Clone, Debug)]
pub(super) struct DemoFindings {
    pub(super) servers: String,
    pub(super) totals: Totals,
    pub(super) verdict: Verdict,
    pub(super) ages: AgePercentiles,
    pub(super) course: DemoEnd,
    /// Events per second at best.
    pub(super) peak_rate: u64,
}

/// The summary, line by line.
pub(super) fn lines(findings: &DemoFindings) -> Vec<String> {
    let (totals, verdict, ages) = (&findings.totals, &findings.verdict, &findings.ages);
    let age = match ages.count {
        0 => "not measured: the demo ended within its first seconds".to_owned(),
        _ => format!(
            "p50 {}, p99 {} from commit to consumer (without the first two seconds)",
            millis(ages.p50),
            millis(ages.p99)
        ),
    };
    let repeats = match verdict.repeats {
        0 => "no repeats".to_owned(),
        repeats => format!("{} repeats (same id: consumers drop them)", grouped(repeats)),
    };
    vec![
        String::new(),
        format!("ran on       {}", findings.servers),
        format!(
            "committed    {} events in {} transactions",
            grouped(totals.committed_events),
            grouped(totals.committed_transactions)
        ),
        format!(
            "rolled back  {} events in {} transactions: {}",
            grouped(totals.rolled_back_events),
            grouped(totals.rolled_back_transactions),
            after_rollback(verdict)
        ),
        format!("delivered    {} events, {repeats}", grouped(verdict.delivered)),
        format!("the check    {}", conclusion(verdict, findings.course)),
        format!("peak rate    {} events/s delivered", grouped(findings.peak_rate)),
        format!("age          {age}"),
        String::new(),
        "next: three commands for your own database".to_owned(),
        r#"  postrider migrate up --database-url "$DATABASE_URL""#.to_owned(),
        r#"  psql "$DATABASE_URL" -c "insert into outbox (aggregatetype, aggregateid,"#.to_owned(),
        r#"      type, payload) values ('order', '1', 'OrderPlaced', '{\"total\": 42}')""#
            .to_owned(),
        r#"  postrider run --database-url "$DATABASE_URL" --brokers localhost:9092"#.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolled_back_is_not_called_unpublished_when_it_was_published() {
        let mut findings = DemoFindings {
            servers: "a, b".to_owned(),
            totals: Totals { rolled_back_events: 7, ..Totals::default() },
            verdict: Verdict { committed: 3, delivered: 3, ..Verdict::default() },
            ages: AgePercentiles::default(),
            course: DemoEnd::Finished,
            peak_rate: 12,
        };
        assert!(lines(&findings).join("\n").contains("never published"));
        findings.verdict.rolled_back = 2;
        let text = lines(&findings).join("\n");
        assert!(!text.contains("never published"), "{text}");
        assert!(text.contains("2 of them were published"), "{text}");
    }
}
