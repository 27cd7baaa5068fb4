//! The terminal while the live view has it.
//!
//! Promises: it is given back as it was on every way out: the end, a panic in any thread, a second
//! Ctrl-C. Must not: be taken twice. Fails: when the terminal refuses.

use std::io;
use std::io::Write as _;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};

static TAKEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// The terminal is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Switches to a screen of our own.
    pub(super) fn take() -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let earlier = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                earlier(panic);
            }));
        });
        let mut output = io::stdout();
        TAKEN.store(true, Ordering::SeqCst);
        let terminal = Self(());
        enable_raw_mode()?;
        execute!(output, EnterAlternateScreen, DisableLineWrap, Hide)?;
        Ok(terminal)
    }

    /// Whether it is still ours: a panic gives it back early.
    pub(super) fn is_ours(&self) -> bool {
        TAKEN.load(Ordering::SeqCst)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, if it is taken.
pub(super) fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut output = io::stdout();
    let restored = execute!(output, Show, EnableLineWrap, LeaveAlternateScreen)
        .and_then(|()| disable_raw_mode())
        .and_then(|()| output.flush());
    if let Err(cause) = restored {
        tracing::warn!("the terminal could not be given back: {cause}; `reset` helps");
    }
}
