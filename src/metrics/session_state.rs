//! What a session with PostgreSQL is at, for whoever judges it and whoever reads of it.
//!
//! Promises: names each state, and what is known of its cause. Must not: change one.

/// What a session is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// There is none: how the last one has ended, if there was one.
    Between(Option<SessionEnd>),
    /// It has its share of the buckets, or reads the log.
    Working,
    /// Another instance reads the log.
    StandingBy,
    /// People have paused publishing, for this reason: nothing is claimed, and nothing owned.
    Paused {
        /// As they gave it.
        reason: String,
    },
    /// Nobody reads the log: a session that is no instance keeps the lock of its reader.
    Obstructed,
}

/// How a session came to its end, or to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// What was met.
    pub cause: String,
    /// What people can do about it.
    pub remedy: Option<String>,
}

#[cfg(test)]
impl SessionEnd {
    /// One of which no remedy is known.
    pub(crate) fn of(cause: &str) -> Self {
        Self { cause: cause.to_owned(), remedy: None }
    }
}

/// What waits for somebody, where the log is to be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// The log: the table is polled meanwhile.
    Log(String),
    /// Rows of adopted tables that are to be copied: all else is published.
    Copy(String),
}

/// Whoever keeps a task of ours waiting for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInTheWay {
    /// Which lock, and who: completes "it waits for".
    pub words: String,
    /// What people can do about it.
    pub remedy: String,
}

impl Default for SessionState {
    fn default() -> Self {
        Self::Between(None)
    }
}

impl SessionState {
    /// Whether it does what it is there for.
    pub fn is_working(&self) -> bool {
        match self {
            Self::Working | Self::StandingBy | Self::Paused { .. } => true,
            Self::Between(_) | Self::Obstructed => false,
        }
    }
}
