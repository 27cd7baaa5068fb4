//! How a test's events are written and read.

/// The way of reading that a test's relays are started with; it tells how writers write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Capture {
    /// From the table.
    #[default]
    Poll,
    /// From the table's log.
    Wal,
    /// From messages in the log.
    Message,
}

impl Capture {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Wal => "wal",
            Self::Message => "message",
        }
    }

    /// What a relay says once it reads in this way.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Poll => "relaying",
            Self::Wal | Self::Message => "reading the log",
        }
    }
}
