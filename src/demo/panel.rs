//! Draws what the live view shows.
//!
//! Promises: it fits any size of terminal, small ones by leaving out the lower parts; what a record holds moves no terminal.
//! Must not: know a terminal.

use std::time::Duration;

use postrider_testkit::figures::grouped;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Gauge, Row, Sparkline, Table};

use crate::demo::check::ShownRecord;
use crate::demo::picture::{DemoPhase, Picture, ShardFigures};
use crate::demo::words::{after_rollback, faults, millis};

/// Wider terminals leave the rest empty.
const COLUMNS_MAX: u16 = 120;
/// Label, figure, what is said of it.
const COLUMNS: [Constraint; 4] =
    [Constraint::Length(14), Constraint::Length(10), Constraint::Length(14), Constraint::Fill(1)];
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().fg(Color::DarkGray);
/// What is written.
const IN: Style = Style::new().fg(Color::Cyan);
/// What arrives.
const OUT: Style = Style::new().fg(Color::Green);
const GOOD: Style = OUT.add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const WARNING: Style = Style::new().fg(Color::Yellow);

/// The rows that are left, from the top.
struct PanelRows {
    left: Rect,
}

impl PanelRows {
    /// The next ones, as many as there are.
    fn take(&mut self, height: u16) -> Rect {
        let height = height.min(self.left.height);
        let taken = Rect { height, ..self.left };
        self.left.y += height;
        self.left.height -= height;
        taken
    }

    fn blank(&mut self) {
        self.take(1);
    }

    /// The next one in columns, behind its label.
    fn labelled(&mut self, frame: &mut Frame<'_>, label: &str) -> [Rect; 3] {
        let [first, figure, unit, rest] = Layout::horizontal(COLUMNS).areas(self.take(1));
        frame.render_widget(Line::styled(format!(" {label}"), FAINT), first);
        [figure, unit, rest]
    }

    /// The next one, with all that stands behind the label.
    fn words(&mut self, frame: &mut Frame<'_>, label: &str, words: Line<'_>) {
        let [figure, _, rest] = self.labelled(frame, label);
        frame.render_widget(words, figure.union(rest));
    }

    /// The next one, with a figure and what it is.
    fn figure(&mut self, frame: &mut Frame<'_>, label: &str, figure: String, words: Line<'_>) {
        let [place, _, rest] = self.labelled(frame, label);
        frame.render_widget(Line::styled(figure, STRONG).right_aligned(), place);
        frame.render_widget(words, rest);
    }
}

/// One frame.
pub(super) fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let area = frame.area();
    let mut rows = PanelRows { left: Rect { width: area.width.min(COLUMNS_MAX), ..area } };
    draw_head(frame, &mut rows, picture);
    rows.blank();
    draw_rates(frame, &mut rows, picture);
    rows.blank();
    draw_figures(frame, &mut rows, picture);
    rows.blank();
    rows.words(frame, "the check", verdict(picture));
    rows.blank();
    draw_shards(frame, &mut rows, &picture.shards);
    rows.blank();
    draw_records(frame, &mut rows, &picture.records);
    if let Some(warning) = &picture.warning {
        rows.blank();
        rows.words(frame, "warning", Line::styled(warning, WARNING));
    }
}

fn draw_head(frame: &mut Frame<'_>, rows: &mut PanelRows, picture: &Picture) {
    let title = Span::styled(" postrider demo   ", STRONG);
    let title = Line::from(vec![title, Span::raw(&picture.servers)]);
    let hint = Line::from(Span::styled("Ctrl-C ends it", FAINT)).right_aligned();
    let (line, needed) = (rows.take(1), title.width() + 2 + hint.width());
    frame.render_widget(title, line);
    if needed <= usize::from(line.width) {
        frame.render_widget(hint, line);
    }

    let (elapsed, planned) = (picture.elapsed.as_secs_f64(), picture.planned.as_secs_f64());
    let (words, share) = match picture.phase {
        DemoPhase::Writing => ("the shop is open", elapsed / planned.max(1.0)),
        DemoPhase::Draining => ("the shop has closed; the relay works off what is left", 1.0),
        DemoPhase::Stopping => ("the relay stops; the last records are read", 1.0),
    };
    let time = format!("{:>3} of {planned:.0} s", elapsed.min(planned).floor());
    let [figure, unit, rest] = rows.labelled(frame, &time);
    let place = Rect { width: (figure.width + unit.width).saturating_sub(2), ..figure };
    frame.render_widget(bar(share, STRONG), place);
    frame.render_widget(Line::raw(words), rest);
}

fn draw_rates(frame: &mut Frame<'_>, rows: &mut PanelRows, picture: &Picture) {
    let top = picture.history_in.iter().chain(&picture.history_out).copied().max().unwrap_or(0);
    for (label, style, now, history) in [
        ("committed", IN, picture.rate_in, &picture.history_in),
        ("delivered", OUT, picture.rate_out, &picture.history_out),
    ] {
        let [figure, _, rest] = rows.labelled(frame, label);
        frame.render_widget(per_second(now), figure);
        // The newest at the right.
        let newest = &history[history.len().saturating_sub(usize::from(rest.width))..];
        frame.render_widget(Sparkline::default().data(newest).max(top).style(style), rest);
    }
}

fn draw_figures(frame: &mut Frame<'_>, rows: &mut PanelRows, picture: &Picture) {
    match picture.ages.count {
        0 => {
            let words = "no event in the last five seconds";
            rows.words(frame, "age", Line::styled(words, FAINT));
        }
        _ => {
            let words = Line::from(vec![
                Span::styled(millis(picture.ages.p99), STRONG),
                Span::raw(" p99"),
                Span::styled("   from commit to consumer, last five seconds", FAINT),
            ]);
            let [figure, unit, rest] = rows.labelled(frame, "age");
            let p50 = Line::styled(millis(picture.ages.p50), STRONG).right_aligned();
            frame.render_widget(p50, figure);
            frame.render_widget(Line::raw(" p50"), unit);
            frame.render_widget(words, rest);
        }
    }
    let totals = &picture.totals;
    let gone = format!("events: {}", after_rollback(&picture.verdict));
    for (label, number, words) in [
        ("backlog", totals.backlog_events, "events committed, not yet at the consumer"),
        ("in all", totals.committed_events, "events committed"),
        ("rolled back", totals.rolled_back_events, &gone),
    ] {
        rows.figure(frame, label, grouped(number), Line::styled(words, FAINT));
    }
    if picture.phase == DemoPhase::Writing && picture.late > Duration::from_secs(1) {
        let (late, rate) = (picture.late.as_secs_f64(), grouped(picture.target_rate));
        let words = format!("{late:.1} s behind {rate} events/s: this machine takes no more");
        rows.words(frame, "the shop is", Line::styled(words, WARNING));
    }
}

fn verdict(picture: &Picture) -> Line<'static> {
    let faults = faults(&picture.verdict);
    if !faults.is_empty() {
        return Line::styled(format!("BROKEN  {}", faults.join(", ")), BAD);
    }
    let delivered = grouped(picture.verdict.delivered);
    let mut line = Line::from(vec![
        Span::styled("✔ holds so far", GOOD),
        Span::raw(format!(
            "  {delivered} delivered, each order's events in order, none rolled back"
        )),
    ]);
    if picture.verdict.repeats > 0 {
        let repeats = format!(", {} repeats", grouped(picture.verdict.repeats));
        line.push_span(Span::styled(repeats, WARNING));
    }
    line
}

fn draw_shards(frame: &mut Frame<'_>, rows: &mut PanelRows, shards: &[ShardFigures]) {
    if shards.is_empty() {
        rows.words(frame, "shards", Line::styled("the relay is starting", FAINT));
    }
    let top = shards.iter().map(|shard| shard.per_second).max().unwrap_or(0).max(1);
    for (index, shard) in shards.iter().enumerate() {
        let [figure, _, rest] = rows.labelled(frame, &format!("shard {index}"));
        let [place, total] =
            Layout::horizontal([Constraint::Max(60), Constraint::Length(22)]).areas(rest);
        frame.render_widget(per_second(shard.per_second), figure);
        frame.render_widget(bar(shard.per_second as f64 / top as f64, OUT), place);
        let words = format!("  {} in all", grouped(shard.published));
        frame.render_widget(Line::styled(words, FAINT), total);
    }
}

fn draw_records(frame: &mut Frame<'_>, rows: &mut PanelRows, records: &[ShownRecord]) {
    let height = u16::try_from(records.len() + 1).unwrap_or(u16::MAX);
    let [label, table] =
        Layout::horizontal([COLUMNS[0], Constraint::Fill(1)]).areas(rows.take(height));
    frame.render_widget(Line::styled(" last records", FAINT), label);
    let row = |record: &ShownRecord| {
        Row::new([
            Line::raw(record.topic.clone()),
            Line::styled(record.key.clone(), IN),
            Line::styled(record.kind.clone(), OUT),
            Line::raw(record.value.clone()),
        ])
    };
    // Wide enough for the shop's own, so that they stand still.
    let longest = |text: fn(&ShownRecord) -> &str, least: usize| {
        let most = records.iter().map(|record| text(record).chars().count()).max();
        let columns = most.unwrap_or(0).clamp(least, 30);
        Constraint::Length(u16::try_from(columns).expect("it is small"))
    };
    let widths = [
        longest(|record| &record.topic, 21),
        longest(|record| &record.key, 13),
        longest(|record| &record.kind, 18),
        Constraint::Fill(1),
    ];
    let heads = Row::new(["topic", "key", "type", "value"]).style(FAINT);
    frame.render_widget(Table::new(records.iter().rev().map(row), widths).header(heads), table);
}

fn per_second(rate: u64) -> Line<'static> {
    Line::styled(format!("{}/s", grouped(rate)), STRONG).right_aligned()
}

/// A bar of eighths of a column.
fn bar(share: f64, style: Style) -> Gauge<'static> {
    Gauge::default().ratio(share.clamp(0.0, 1.0)).use_unicode(true).label("").gauge_style(style)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::demo::picture::tests::picture;

    fn drawn(picture: &Picture, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is in memory");
        terminal.draw(|frame| draw(frame, picture)).expect("it is in memory");
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y) + "\n").collect()
    }

    #[test]
    fn fits_every_terminal() {
        let mut picture = picture();
        picture.warning = Some("a very long warning ".repeat(20));
        picture.late = Duration::from_secs(9);
        picture.planned = Duration::ZERO;
        for columns in [1, 7, 20, 40, 80, 110, 300] {
            for rows in [1, 5, 24, 60] {
                assert!(drawn(&picture, columns, rows).contains('p') || columns < 7);
            }
        }
        assert!(drawn(&picture, 110, 60).contains("a very long warning"));
    }

    #[test]
    fn shows_what_it_should() {
        let mut picture = picture();
        picture.records[0].value = "a\u{1b}[2Jb".to_owned();
        let shown = drawn(&picture, 110, 40);
        for part in [
            "PostgreSQL 15.18",
            "Ctrl-C ends it",
            "1,904/s",
            "1,911/s",
            "11 ms p50",
            "42 ms p99",
            "88",
            "shard 1",
            "✔ holds so far",
            "OrderPlaced",
            "6,812 in all",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'), "{shown}");
        picture.verdict.misplaced = 1;
        assert!(drawn(&picture, 110, 40).contains("BROKEN  1 misplaced"));
    }

    #[test]
    fn bars_and_sparks_follow_the_values() {
        let mut picture = picture();
        picture.shards[0].per_second = 0;
        let shown = drawn(&picture, 110, 40);
        let line = |label: &str| {
            let line = shown.lines().find(|line| line.trim_start().starts_with(label));
            line.expect("it is there").to_owned()
        };
        assert!(!line("shard 0").contains('█') && line("shard 1").contains("████"), "{shown}");
        assert!(line("committed").contains("▄▇") && line("delivered").contains("▃█"), "{shown}");
    }
}
