//! The word to stop: Ctrl-C, SIGTERM, or a key in the live view.
//!
//! Promises: the first word ends the demo in an orderly way; the second ends the process at once,
//! with the terminal restored (the servers' guardians then clean up). Must not: be lost when it
//! comes before somebody waits for it. Fails: when the operating system takes no signal handler.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::demo::terminal;
use crate::error::{Error, ErrorKind, Result};

/// A handle on the word to stop.
#[derive(Clone, Debug)]
pub(super) struct Interrupt {
    words: watch::Sender<u32>,
}

impl Interrupt {
    /// Listens from now on; needs a runtime.
    pub(super) fn listen() -> Result<Self> {
        let interrupt = Self { words: watch::Sender::new(0) };
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let signal = signal(kind).map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("cannot listen for signals: {cause}"))
            })?;
            tokio::spawn(forward(signal, interrupt.clone()));
        }
        Ok(interrupt)
    }

    /// Says the word.
    pub(super) fn say(&self) {
        self.words.send_modify(|count| *count += 1);
        if *self.words.borrow() > 1 {
            terminal::restore();
            std::process::exit(1);
        }
    }

    /// Whether it was said.
    pub(super) fn was_said(&self) -> bool {
        *self.words.borrow() > 0
    }

    /// Waits for the first word; ready at once when it was said before.
    pub(super) async fn wait(&self) {
        let mut words = self.words.subscribe();
        words.wait_for(|count| *count > 0).await.expect("the sender is in self");
    }
}

async fn forward(mut signal: Signal, interrupt: Interrupt) {
    while signal.recv().await.is_some() {
        interrupt.say();
    }
}
