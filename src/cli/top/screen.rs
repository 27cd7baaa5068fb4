//! Draws what `postrider top` shows, and listens to keys.
//!
//! Promises: the terminal is given back on every way out, also by a panic; what rows say moves no terminal. Must not: ask
//! anybody. Fails: when the terminal refuses.

use std::io;
use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{Event, KeyEventKind, poll, read};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Paragraph, Row, Table, Wrap};
use tokio::sync::mpsc;

use crate::cli::top::grid::{Grid, GridCell, SortDirection, Tone};
use crate::cli::top::keys::{AfterKey, Choices, Flowing, Typing};
use crate::cli::top::view::{HeadLine, Tab, TopView};

/// How often it is looked for something new.
const FRAME: Duration = Duration::from_millis(100);
/// A column is not wider, but for the last.
const COLUMN_MAX: usize = 36;
const HELP: &str = "\
Tab  the next table, Shift-Tab the one before
s    sort by the next column, S turn the order
/    filter: rows that have all words; Enter keeps it, Esc ends it
p    hold still, and go on
\u{2191} \u{2193}  move, also by pages
q    quit

Any key goes back.";

/// Shows what comes until somebody quits.
pub(super) fn show(mut views: mpsc::Receiver<TopView>) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let ended = follow(&mut terminal, &mut views);
    ratatui::try_restore()?;
    ended
}

fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    views: &mut mpsc::Receiver<TopView>,
) -> io::Result<()> {
    let (mut choices, mut view) = (Choices::default(), None);
    loop {
        if let Ok(new) = views.try_recv()
            && choices.flowing == Flowing::Live
        {
            view = Some(new);
        }
        terminal.draw(|frame| draw(frame, view.as_ref(), &mut choices))?;
        if !poll(FRAME)? {
            continue;
        }
        if let Event::Key(key) = read()?
            && key.kind != KeyEventKind::Release
        {
            let columns = view.as_ref().map_or(0, |view| view.grid(choices.tab).heads.len());
            if choices.press(key, columns) == AfterKey::Quit {
                return Ok(());
            }
        }
    }
}

/// One picture. The first row that is shown is kept within the table.
pub(super) fn draw(frame: &mut Frame<'_>, view: Option<&TopView>, choices: &mut Choices) {
    let Some(view) = view else {
        frame.render_widget(Paragraph::new("waiting for the first answer"), frame.area());
        return;
    };
    let lines = view.head();
    let head = Paragraph::new(lines.iter().map(head_line).collect::<Vec<_>>());
    let head = head.wrap(Wrap { trim: false });
    let area = frame.area();
    let head_rows = head_rows(&lines, area.width);
    let parts = Layout::vertical([
        Constraint::Length(head_rows.min(area.height / 2)),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]);
    let [top, tabs, middle, foot] = parts.areas(area);
    frame.render_widget(head, top);
    frame.render_widget(tab_line(choices.tab), tabs);
    let grid = view.grid(choices.tab).arranged(&choices.filter, choices.order());
    if choices.typing == Typing::Help {
        frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" keys ")), middle);
    } else {
        draw_grid(frame, middle, &grid, choices);
    }
    frame.render_widget(foot_line(choices, grid.rows.len()), foot);
}

/// Long lines are wrapped.
fn head_rows(lines: &[HeadLine], width: u16) -> u16 {
    let rows = |line: &HeadLine| line.text.chars().count().div_ceil(usize::from(width).max(1));
    u16::try_from(lines.iter().map(|line| rows(line).max(1)).sum::<usize>()).unwrap_or(u16::MAX)
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warning => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

fn head_line(line: &HeadLine) -> Line<'_> {
    Line::styled(line.text.as_str(), style(line.tone))
}

fn tab_line(shown: Tab) -> Line<'static> {
    let tab = |tab: Tab| {
        let plain = Style::new().add_modifier(Modifier::DIM);
        let chosen = Style::new().add_modifier(Modifier::REVERSED);
        Span::styled(format!(" {} ", tab.name()), if tab == shown { chosen } else { plain })
    };
    Line::from(Tab::ALL.map(tab).to_vec())
}

fn foot_line(choices: &Choices, rows: usize) -> Line<'_> {
    let dim = Style::new().add_modifier(Modifier::DIM);
    let mut spans = Vec::new();
    if choices.flowing == Flowing::Held {
        spans.push(Span::styled(" held still ", Style::new().add_modifier(Modifier::REVERSED)));
    }
    if choices.typing == Typing::Filter || !choices.filter.is_empty() {
        spans.push(Span::raw(format!(" /{} ({rows} rows)", choices.filter)));
    }
    if choices.typing == Typing::Filter {
        spans.push(Span::styled("\u{2588}", dim));
    } else {
        spans.push(Span::styled(" Tab tables  s sort  / filter  p hold  ? help  q quit", dim));
    }
    Line::from(spans)
}

fn draw_grid(frame: &mut Frame<'_>, area: Rect, grid: &Grid, choices: &mut Choices) {
    if grid.rows.is_empty() {
        let words = if choices.filter.is_empty() { grid.none } else { "no row has these words" };
        frame.render_widget(Paragraph::new(words), area);
        return;
    }
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    choices.first_row = choices.first_row.min(grid.rows.len().saturating_sub(room));
    let head = grid.heads.iter().enumerate().map(|(column, head)| {
        let sign = match choices.order().filter(|order| order.column == column) {
            None => "",
            Some(order) if order.direction == SortDirection::Rising => "\u{2191}",
            Some(_) => "\u{2193}",
        };
        aligned(format!("{}{sign}", head.to_uppercase()), is_number(grid, column))
    });
    let head = Row::new(head.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::DIM));
    let rows = grid
        .rows
        .iter()
        .skip(choices.first_row)
        .take(room)
        .map(|row| Row::new(row.iter().map(drawn).collect::<Vec<_>>()));
    let table = Table::new(rows, widths(grid)).header(head).column_spacing(2);
    frame.render_widget(table, area);
}

fn is_number(grid: &Grid, column: usize) -> bool {
    grid.rows.first().is_some_and(|row| row[column].is_number())
}

fn drawn(cell: &GridCell) -> Text<'_> {
    aligned(cell.text.as_str(), cell.is_number()).style(style(cell.tone))
}

fn aligned<'a>(text: impl Into<Text<'a>>, is_number: bool) -> Text<'a> {
    let alignment = if is_number { Alignment::Right } else { Alignment::Left };
    text.into().alignment(alignment)
}

/// As wide as what is in it; the last one takes the rest.
fn widths(grid: &Grid) -> Vec<Constraint> {
    let last = grid.heads.len().saturating_sub(1);
    let width = |(column, head): (usize, &&str)| {
        if column == last && !is_number(grid, column) {
            return Constraint::Fill(1);
        }
        let cells = grid.rows.iter().map(|row| row[column].text.chars().count());
        // One more for the sign of the order.
        let widest = cells.max().unwrap_or(0).max(head.chars().count() + 1).min(COLUMN_MAX);
        Constraint::Length(u16::try_from(widest).unwrap_or(u16::MAX))
    };
    grid.heads.iter().enumerate().map(width).collect()
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
