//! The plain view: one line per second, at most 100 columns.
//!
//! Promises: each line stands for itself, for pipes and logs. Must not: use colours or move the
//! cursor. Fails: when standard output is closed.

use std::io;
use std::time::Duration;

use crate::demo::output;
use crate::demo::picture::{DemoPhase, Picture};
use crate::demo::words::{faults, millis};
use postrider_testkit::figures::grouped;

/// A shop that is further behind its schedule says so.
const LATE: Duration = Duration::from_secs(1);

/// Prints a line when a second has passed.
#[derive(Debug, Default)]
pub(super) struct PlainView {
    next_second: u64,
}

impl PlainView {
    /// Prints the picture if it is time.
    pub(super) fn show(&mut self, picture: &Picture) -> io::Result<()> {
        let second = picture.elapsed.as_secs();
        if second < self.next_second.max(1) {
            return Ok(());
        }
        self.next_second = second + 1;
        output::line(&line(picture))
    }
}

fn line(picture: &Picture) -> String {
    let totals = &picture.totals;
    let shop = match picture.phase {
        DemoPhase::Writing => format!("in {:>6}/s", grouped(picture.rate_in)),
        DemoPhase::Draining => "draining   ".to_owned(),
        DemoPhase::Stopping => "stopping   ".to_owned(),
    };
    let mut parts = vec![
        format!("{:>3} s", picture.elapsed.as_secs()),
        shop,
        format!("out {:>6}/s", grouped(picture.rate_out)),
        match picture.ages.count {
            0 => "no ages".to_owned(),
            _ => format!("p50 {}  p99 {}", millis(picture.ages.p50), millis(picture.ages.p99)),
        },
        format!("backlog {}", grouped(totals.backlog_events)),
        judgement(picture),
    ];
    if picture.phase == DemoPhase::Writing && picture.late > LATE {
        parts.push(format!("{} s late", picture.late.as_secs()));
    }
    parts.push(format!("rolled back {}", grouped(totals.rolled_back_events)));
    joined(parts)
}

/// The parts that fit; the first five always do.
fn joined(mut parts: Vec<String>) -> String {
    loop {
        let line = parts.join("  ");
        if line.chars().count() <= output::COLUMNS || parts.pop().is_none() {
            return line;
        }
    }
}

fn judgement(picture: &Picture) -> String {
    let faults = faults(&picture.verdict);
    if faults.is_empty() { "order ok".to_owned() } else { format!("BROKEN: {}", faults.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::picture::tests::picture;

    #[test]
    fn line_fits_and_names_faults() {
        let mut picture = picture();
        let text = line(&picture);
        assert!(text.len() <= output::COLUMNS, "{text}");
        assert!(text.contains("order ok") && text.ends_with("rolled back 0"), "{text}");
        picture.verdict.out_of_order = 3;
        picture.rate_in = 100_000;
        picture.late = Duration::from_secs(90);
        let text = line(&picture);
        assert!(text.chars().count() <= output::COLUMNS, "{text}");
        assert!(text.contains("BROKEN"), "{text}");
        assert!(!text.contains("rolled back "), "it gives way: {text}");
    }
}
