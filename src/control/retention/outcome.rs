//! What comes of an attempt to empty a partition.
//!
//! Promises: each word of `sql/queries/retention_attempt.sql` has its outcome, and each that is in the way an
//! explanation. Must not: know a session.

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AttemptOutcome {
    /// It holds no page.
    Empty,
    /// Its generation is being filled, or is about to be.
    Current,
    /// Its newest row lies inside the replay window.
    Young,
    /// It holds a row that the saved cursor has not passed.
    Waiting,
    /// It holds a row that a replay is to send once more.
    Replayed,
    /// Somebody holds a lock on it.
    Locked,
    /// The check would hold the lock for too long.
    Slow,
    /// The bucket is another instance's, or the cursor another history's.
    Taken,
    /// The role has no right to truncate it.
    Refused,
    /// Nothing is in the way, as far as was looked.
    Due,
    /// It held rows that nobody had read; they are parked, to be published.
    Unread,
    /// Its space came back.
    Truncated,
    /// So it did, although the time of its newest row lies ahead of the clock.
    TruncatedAhead,
}

impl AttemptOutcome {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "empty" => Self::Empty,
            "current" => Self::Current,
            "young" => Self::Young,
            "waiting" => Self::Waiting,
            "replayed" => Self::Replayed,
            "locked" => Self::Locked,
            "slow" => Self::Slow,
            "taken" => Self::Taken,
            "refused" => Self::Refused,
            "due" => Self::Due,
            "truncated" => Self::Truncated,
            "ahead" => Self::TruncatedAhead,
            _ => return None,
        })
    }

    /// The word by which it is counted, if it is in the way of truncation.
    pub(super) fn blocks(self) -> Option<&'static str> {
        match self {
            Self::Waiting => Some("waiting"),
            Self::Replayed => Some("replayed"),
            Self::Locked => Some("locked"),
            Self::Slow => Some("slow"),
            Self::Refused => Some("refused"),
            Self::Unread => Some("unread"),
            Self::Empty
            | Self::Current
            | Self::Young
            | Self::Taken
            | Self::Due
            | Self::Truncated
            | Self::TruncatedAhead => None,
        }
    }

    /// Whether it holds rows behind this, or is about to.
    pub(super) fn leaves_rows(self) -> bool {
        self != Self::Empty && !self.gives_space()
    }

    pub(super) fn gives_space(self) -> bool {
        matches!(self, Self::Truncated | Self::TruncatedAhead)
    }

    /// What is in the way, and what an operator can do about it.
    pub(super) fn explanation(self) -> (&'static str, &'static str) {
        match self {
            Self::Locked => (
                "a transaction holds a lock on it",
                "end the transaction: see pg_locks, pg_stat_activity and pg_prepared_xacts",
            ),
            Self::Waiting => {
                ("it holds rows that are not published", "see `postrider status` for what waits")
            }
            Self::Replayed => (
                "a replay is to send rows of it",
                "see `postrider replay list`; `postrider replay cancel` lets it go",
            ),
            _ => (
                "checking its rows takes too long",
                "end long transactions; if there are none, give the server's disk time or memory",
            ),
        }
    }
}
