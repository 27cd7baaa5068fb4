//! The signals by which servers are stopped, frozen and ended.
//!
//! Promises: each has the name that `kill` takes. Must not: send one.

/// The signals that servers understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Terminate,
    Interrupt,
    Quit,
    Stop,
    Continue,
    Kill,
}

impl Signal {
    /// The name that `kill -s` takes.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Quit => "QUIT",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Kill => "KILL",
        }
    }
}
