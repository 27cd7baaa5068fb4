//! Why an event is not sent.
//!
//! Promises: a reason is stored and typed by one name. Must not: decide what becomes of the event.

use std::fmt;
use std::str::FromStr;

/// Why an event is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record is larger than its topic takes.
    TooLarge,
    /// The topic's name is not one that Kafka accepts.
    IllegalTopic,
    /// `headers` is not a JSON object of headers.
    BadHeaders,
    /// `created_at` cannot be written as a header.
    BadTime,
    /// The broker refuses this record, whatever travels with it.
    Refused,
    /// PostgreSQL cannot hand the row over as it is.
    Unreadable,
    /// The topic is not there, has no leader, or this user may not write to it.
    TopicUnavailable,
    /// An earlier event of the aggregate is set aside.
    Follows,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::TooLarge,
        Self::IllegalTopic,
        Self::BadHeaders,
        Self::BadTime,
        Self::Refused,
        Self::Unreadable,
        Self::TopicUnavailable,
        Self::Follows,
    ];

    /// As it is stored and typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::IllegalTopic => "illegal-topic",
            Self::BadHeaders => "bad-headers",
            Self::BadTime => "bad-time",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::TopicUnavailable => "topic-unavailable",
            Self::Follows => "follows",
        }
    }

    /// Whether the event itself is at fault: no other topic and no later time would mend it.
    pub fn is_poison(self) -> bool {
        !matches!(self, Self::TopicUnavailable | Self::Follows)
    }
}

/// What helps against a reason, by the name under which it is stored.
pub fn fix(reason: &str) -> &'static str {
    match reason.parse() {
        Ok(Reason::TooLarge) => {
            "raise the topic's max.message.bytes (above 8 MiB --max-event-bytes, too), then retry; or discard it"
        }
        Ok(Reason::IllegalTopic) => {
            "discard it, or mend its row in postrider.parked (or --topic), then retry"
        }
        Ok(Reason::BadHeaders | Reason::BadTime) => {
            "discard it, or mend its row in postrider.parked, then retry"
        }
        Ok(Reason::Refused) => "mend what the broker's words name, then retry; or discard it",
        Ok(Reason::Unreadable) => {
            "discard it, or mend its row in postrider.parked, set its fault to null, then retry"
        }
        Ok(Reason::TopicUnavailable) => {
            "make the topic, or grant the right to write to it; the retry comes by itself"
        }
        Ok(Reason::Follows) => {
            "nothing is wrong with it; it goes when the event before it has gone"
        }
        Err(_) => "this version does not know the reason: see `postrider parked show`",
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|reason| reason.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of {}", names()))
    }
}

/// Why this event is not sent, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The same with its circumstances; empty for one that only follows.
    pub detail: String,
    /// Where it would go, as far as that is known.
    pub topic: Option<String>,
}

impl Refusal {
    /// An event that only waits for an earlier one.
    pub fn follows() -> Self {
        Self { reason: Reason::Follows, detail: String::new(), topic: None }
    }

    /// An event of so many bytes, which is larger than what is read at all.
    pub fn not_read(event_bytes: i64, event_bytes_max: i64) -> Self {
        let detail = format!(
            "it takes {event_bytes} bytes, and more than {event_bytes_max} are not read (--max-event-bytes)"
        );
        Self { reason: Reason::TooLarge, detail, topic: None }
    }

    /// An event of which PostgreSQL says this instead of handing it over.
    pub fn unreadable(fault: &str) -> Self {
        Self { reason: Reason::Unreadable, detail: fault.to_owned(), topic: None }
    }
}
