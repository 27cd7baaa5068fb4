//! What the live view shows, as lines.
//!
//! Promises: no line is wider, and there are no more lines, than the terminal has room for.
//! Must not: know a terminal.

use std::time::Duration;

use crate::demo::check::ShownRecord;
use crate::demo::picture::{DemoPhase, Picture, ShardFigures};
use crate::demo::styled::{Style, StyledLine, fit};
use crate::demo::words::{after_rollback, faults, millis};
use postrider_testkit::figures::grouped;

/// Wider terminals leave the rest empty.
const COLUMNS_MAX: usize = 120;
const LABEL: usize = 14;
const FIGURE: usize = 24;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// The whole panel.
pub(super) fn lines(picture: &Picture, columns: usize, rows: usize) -> Vec<StyledLine> {
    let columns = columns.min(COLUMNS_MAX);
    let mut lines = head(picture, columns);
    lines.push(StyledLine::default());
    lines.extend(rates(picture, columns));
    lines.push(StyledLine::default());
    lines.extend(figures(picture));
    lines.push(StyledLine::default());
    lines.push(verdict(picture));
    lines.push(StyledLine::default());
    lines.extend(shards(&picture.shards, columns));
    lines.push(StyledLine::default());
    lines.extend(records(&picture.records, columns));
    if let Some(warning) = &picture.warning {
        lines.push(StyledLine::default());
        lines.push(label("warning").and(Style::Warning, warning));
    }
    let mut lines: Vec<StyledLine> = lines.into_iter().map(|line| line.cut(columns)).collect();
    lines.truncate(rows);
    lines
}

fn head(picture: &Picture, columns: usize) -> Vec<StyledLine> {
    let title = StyledLine::default()
        .and(Style::Strong, " postrider demo")
        .at(LABEL + 4)
        .and(Style::Normal, &picture.servers);
    let hint = "Ctrl-C ends it";
    let title = match title.width() + hint.len() + 2 <= columns {
        true => title.and_until(columns, Style::Faint, hint),
        false => title,
    };
    let (elapsed, planned) = (picture.elapsed.as_secs_f64(), picture.planned.as_secs_f64());
    let (word, share) = match picture.phase {
        DemoPhase::Writing => ("the shop is open", elapsed / planned),
        DemoPhase::Draining => ("the shop has closed; the relay works off what is left", 1.0),
        DemoPhase::Stopping => ("the relay stops; the last records are read", 1.0),
    };
    let time = format!("{:>3} of {planned:.0} s", elapsed.min(planned).floor());
    let progress = label(&time)
        .and(Style::Strong, bar(share, 24))
        .and(Style::Faint, rail(share, 24))
        .and(Style::Normal, "  ")
        .and(Style::Normal, word);
    vec![title, progress]
}

fn rates(picture: &Picture, columns: usize) -> Vec<StyledLine> {
    let room = columns.saturating_sub(LABEL + FIGURE + 1);
    let top = picture.history_in.iter().chain(&picture.history_out).copied().max().unwrap_or(0);
    let rate = |name, style, now, history: &[u64]| {
        label(name)
            .and_until(LABEL + 10, Style::Strong, &format!("{}/s", grouped(now)))
            .at(LABEL + FIGURE)
            .and(style, sparks(history, top, room))
    };
    vec![
        rate("committed", Style::In, picture.rate_in, &picture.history_in),
        rate("delivered", Style::Out, picture.rate_out, &picture.history_out),
    ]
}

fn figures(picture: &Picture) -> Vec<StyledLine> {
    let totals = &picture.totals;
    let ages = match picture.ages.count {
        0 => label("age").and(Style::Faint, "no event in the last five seconds"),
        _ => label("age")
            .and_until(LABEL + 10, Style::Strong, &millis(picture.ages.p50))
            .and(Style::Normal, " p50")
            .at(LABEL + FIGURE)
            .and(Style::Strong, millis(picture.ages.p99))
            .and(Style::Normal, " p99")
            .and(Style::Faint, "   from commit to consumer, last five seconds"),
    };
    let gone = after_rollback(&picture.verdict);
    let number = |name: &str, number: u64, words: &str| {
        label(name)
            .and_until(LABEL + 10, Style::Strong, &grouped(number))
            .at(LABEL + FIGURE)
            .and(Style::Faint, words)
    };
    let mut lines = vec![
        ages,
        number("backlog", totals.backlog_events, "events committed, not yet at the consumer"),
        number("in all", totals.committed_events, "events committed"),
        number("rolled back", totals.rolled_back_events, &format!("events: {gone}")),
    ];
    if picture.phase == DemoPhase::Writing && picture.late > Duration::from_secs(1) {
        let words = format!(
            "{:.1} s behind {} events/s: this machine takes no more",
            picture.late.as_secs_f64(),
            grouped(picture.target_rate)
        );
        lines.push(label("the shop is").and(Style::Warning, words));
    }
    lines
}

fn verdict(picture: &Picture) -> StyledLine {
    let faults = faults(&picture.verdict);
    let line = label("the check");
    if !faults.is_empty() {
        return line.and(Style::Bad, format!("BROKEN  {}", faults.join(", ")));
    }
    let line = line.and(Style::Good, "✔ holds so far").and(
        Style::Normal,
        format!(
            "  {} delivered, each order's events in order, none rolled back",
            grouped(picture.verdict.delivered)
        ),
    );
    match picture.verdict.repeats {
        0 => line,
        repeats => line.and(Style::Warning, format!(", {} repeats", grouped(repeats))),
    }
}

fn shards(shards: &[ShardFigures], columns: usize) -> Vec<StyledLine> {
    if shards.is_empty() {
        return vec![label("shards").and(Style::Faint, "the relay is starting")];
    }
    let top = shards.iter().map(|shard| shard.per_second).max().unwrap_or(0).max(1);
    let room = columns.saturating_sub(LABEL + FIGURE + 22).min(60);
    let line = |(index, shard): (usize, &ShardFigures)| {
        let share = shard.per_second as f64 / top as f64;
        label(&format!("shard {index}"))
            .and_until(LABEL + 10, Style::Strong, &format!("{}/s", grouped(shard.per_second)))
            .at(LABEL + FIGURE)
            .and(Style::Out, bar(share, room))
            .and(Style::Faint, rail(share, room))
            .and(Style::Faint, format!("  {} in all", grouped(shard.published)))
    };
    shards.iter().enumerate().map(line).collect()
}

fn records(records: &[ShownRecord], columns: usize) -> Vec<StyledLine> {
    let widths = Widths::of(records);
    let mut lines = vec![
        label("last records")
            .and(Style::Faint, "topic")
            .at(LABEL + widths.topic)
            .and(Style::Faint, "key")
            .at(LABEL + widths.topic + widths.key)
            .and(Style::Faint, "type")
            .at(LABEL + widths.topic + widths.key + widths.kind)
            .and(Style::Faint, "value"),
    ];
    for record in records.iter().rev() {
        let line = label("")
            .and(Style::Normal, fit(&record.topic, widths.topic - 1))
            .at(LABEL + widths.topic)
            .and(Style::In, fit(&record.key, widths.key - 1))
            .at(LABEL + widths.topic + widths.key)
            .and(Style::Out, fit(&record.kind, widths.kind - 1))
            .at(LABEL + widths.topic + widths.key + widths.kind);
        let room = columns.saturating_sub(line.width());
        lines.push(line.and(Style::Normal, fit(&record.value, room)));
    }
    lines
}

/// Columns of the table of records, with the blank behind each.
struct Widths {
    topic: usize,
    key: usize,
    kind: usize,
}

impl Widths {
    /// Wide enough for the shop's own, so that they stand still.
    fn of(records: &[ShownRecord]) -> Self {
        let longest = |text: fn(&ShownRecord) -> &str, least: usize| {
            let most = records.iter().map(|record| text(record).chars().count()).max();
            most.unwrap_or(0).clamp(least, 30) + 1
        };
        Self {
            topic: longest(|record| &record.topic, 21),
            key: longest(|record| &record.key, 13),
            kind: longest(|record| &record.kind, 18),
        }
    }
}

fn label(text: &str) -> StyledLine {
    StyledLine::default().and(Style::Normal, " ").and(Style::Faint, text).at(LABEL)
}

/// A bar of eighths of a column.
fn bar(share: f64, columns: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * columns as f64 * 8.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// The rest of the bar.
fn rail(share: f64, columns: usize) -> String {
    "·".repeat(columns.saturating_sub(bar(share, columns).chars().count()))
}

/// The latest values as columns of eighths, the newest at the right.
fn sparks(history: &[u64], top: u64, columns: usize) -> String {
    let newest = &history[history.len().saturating_sub(columns)..];
    let spark = |value: &u64| match (*value, top) {
        (0, _) | (_, 0) => ' ',
        (value, top) => SPARKS[(value * 8).div_ceil(top).clamp(1, 8) as usize - 1],
    };
    newest.iter().map(spark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::picture::tests::picture;

    fn text(lines: &[StyledLine]) -> String {
        lines.iter().map(|line| line.text() + "\n").collect()
    }

    #[test]
    fn fits_every_terminal() {
        let mut picture = picture();
        picture.warning = Some("a very long warning ".repeat(20));
        picture.late = Duration::from_secs(9);
        for columns in [0, 1, 7, 20, 40, 80, 110, 300] {
            for rows in [0, 1, 5, 24, 60] {
                let lines = lines(&picture, columns, rows);
                assert!(lines.len() <= rows);
                for line in &lines {
                    assert!(line.width() <= columns, "{columns}: {}", line.text());
                }
            }
        }
    }

    #[test]
    fn shows_what_it_should() {
        let mut picture = picture();
        let shown = text(&lines(&picture, 110, 40));
        for part in
            ["PostgreSQL 15.18", "1,904/s", "1,911/s", "11 ms p50", "42 ms p99", "88", "shard 1"]
        {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        assert!(shown.contains("✔ holds so far") && shown.contains("OrderPlaced"), "{shown}");
        picture.verdict.misplaced = 1;
        assert!(text(&lines(&picture, 110, 40)).contains("BROKEN  1 misplaced"));
    }

    #[test]
    fn bars_and_sparks_follow_the_values() {
        assert_eq!(bar(0.5, 3), "█▌");
        assert_eq!(bar(0.5, 3).chars().count() + rail(0.5, 3).chars().count(), 3);
        assert_eq!(sparks(&[0, 1, 4, 8], 8, 3), "▁▄█");
        assert_eq!(sparks(&[0, 0], 0, 5), "  ");
    }
}
