//! The states of an instance and of its sessions.
//!
//! Promises: names each state, and what holds in it. Must not: change one.
//!
//! ```text
//!  Opening ─┬─────────────────────────────► Paused ────┐
//!           ├─────────────────────────────► Polling ───┤
//!           └─► StandingBy ─┬─► Recovering ────────────┼─► the session ends; the next one begins with Opening
//!                           └─► Streaming ─────────────┘
//! ```

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No session has worked yet. Whatever fails ends the process, so that a wrong setting is seen at once; and
    /// --capture may change how events are read.
    Starting,
    /// One has. What may pass is waited for; how events are read, only `postrider capture switch` changes.
    Working,
}

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionStage {
    /// It looks at the outbox, and at how events are read; nothing is its own yet.
    Opening,
    /// Publishing is paused: it has neither a lease nor a lock, and waits for the end of the pause.
    Paused,
    /// Events are read from the log, and another instance may be the one that does it.
    StandingBy,
    /// It has its share of the buckets, and claims their rows from the table.
    Polling,
    /// As before, while a slot is made or waited for; it has the lock of the log's reader.
    Recovering,
    /// It has the lock of the log's reader and wants all buckets; once they are its own, it reads the log.
    Streaming,
}

impl SessionStage {
    /// Whether the session has done more than to look.
    pub(super) fn has_worked(self) -> bool {
        self != Self::Opening
    }

    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Paused => "paused",
            Self::StandingBy => "standing by",
            Self::Polling => "polling",
            Self::Recovering => "polling until the log can be read",
            Self::Streaming => "reading the log",
        }
    }
}
