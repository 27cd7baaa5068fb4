//! The live view: a screen of figures, drawn five times per second.
//!
//! Promises: what has not changed is not written again, so that nothing flickers. Must not: draw after the terminal was
//! given back. Fails: when the terminal refuses.

use std::io;
use std::io::Stdout;
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::demo::panel;
use crate::demo::picture::Picture;
use crate::demo::terminal::Terminal;

/// The view, while it has the terminal.
#[derive(Debug)]
pub(super) struct LiveView {
    terminal: Terminal,
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl LiveView {
    /// Takes the terminal.
    pub(super) fn open() -> io::Result<Self> {
        let terminal = Terminal::take()?;
        let screen = ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(Self { terminal, screen })
    }

    /// Draws one frame.
    pub(super) fn show(&mut self, picture: &Picture) -> io::Result<()> {
        if self.terminal.is_ours() {
            self.screen.draw(|frame| panel::draw(frame, picture))?;
        }
        Ok(())
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
