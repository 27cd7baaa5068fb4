//! How a test's events are written, read and delivered.

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

/// Makes all outboxes of a run deliver in this way: `exactly-once`.
const ASKED: &str = "POSTRIDER_TEST_DELIVERY";

/// How often a test's events may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    AtLeastOnce,
    /// No audit bears a repeat.
    ExactlyOnce,
}

impl Delivery {
    /// As the environment asks for it.
    pub(crate) fn asked() -> Self {
        match std::env::var(ASKED).as_deref() {
            Ok("exactly-once") => Self::ExactlyOnce,
            Ok("" | "at-least-once") | Err(_) => Self::AtLeastOnce,
            Ok(other) => panic!("{ASKED} is at-least-once or exactly-once, not {other}"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }
}
