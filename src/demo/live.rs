//! The live view: a screen of figures, drawn five times per second.
//!
//! Promises: it fits any size of terminal, small ones by leaving out the lower parts; a frame is
//! written in one piece, so that it does not flicker. Must not: draw after the terminal was given
//! back. Fails: when the terminal refuses.

use std::io;
use std::io::Write as _;
use std::time::Duration;

use crossterm::cursor::MoveTo;
use crossterm::event;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::queue;
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, size};

use crate::demo::panel;
use crate::demo::picture::Picture;
use crate::demo::terminal::Terminal;

/// The view, while it has the terminal.
#[derive(Debug)]
pub(super) struct LiveView {
    terminal: Terminal,
}

impl LiveView {
    /// Takes the terminal.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { terminal: Terminal::take()? })
    }

    /// Draws one frame.
    pub(super) fn show(&mut self, picture: &Picture) -> io::Result<()> {
        if !self.terminal.is_ours() {
            return Ok(());
        }
        let (columns, rows) = size()?;
        // The last column stays empty: clearing to the end of a full line would take its last sign.
        let columns = usize::from(columns.saturating_sub(1));
        let lines = panel::lines(picture, columns, usize::from(rows));
        let mut frame = Vec::with_capacity(16 * 1024);
        queue!(frame, BeginSynchronizedUpdate)?;
        for (row, line) in (0..rows).zip(&lines) {
            queue!(frame, MoveTo(0, row))?;
            line.write(&mut frame)?;
            queue!(frame, Clear(ClearType::UntilNewLine))?;
        }
        if lines.len() < usize::from(rows) {
            queue!(frame, MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
        }
        queue!(frame, EndSynchronizedUpdate)?;
        self.terminal.output.write_all(&frame)?;
        self.terminal.output.flush()
    }

    /// Whether Ctrl-C, `q` or Escape was pressed since the last look. In raw mode the terminal
    /// makes no signal of Ctrl-C.
    pub(super) fn wants_to_stop(&self) -> io::Result<bool> {
        let mut wants = false;
        while self.terminal.is_ours() && event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()? {
                wants |= is_stop(&key);
            }
        }
        Ok(wants)
    }
}

fn is_stop(key: &KeyEvent) -> bool {
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
            KeyCode::Char('q') | KeyCode::Esc => true,
            _ => false,
        }
}
