//! Why an event can never become a record.
//!
//! Promises: each cause is told in words, with what was found. Must not: know who parks the event.

use std::fmt;
use std::ops::RangeInclusive;

use crate::order::holds::{Reason, Refusal};
use crate::record::topic::IllegalTopic;

/// From the year 0001, the first of RFC 3339, until 9999-12-30 22:00, where jiff's times end; in
/// microseconds since 1970.
pub(super) const CREATED_AT_MICROS: RangeInclusive<i64> =
    -62_135_596_800_000_000..=253_402_207_199_999_999;

/// Why an event can never become a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpublishable {
    /// The topic's name is not one that Kafka accepts.
    #[error(transparent)]
    IllegalTopic(#[from] IllegalTopic),
    /// The row's `headers` is JSON, but not an object.
    #[error("headers must be a JSON object, but is {found}")]
    HeadersNotAnObject {
        /// What it is, with its article.
        found: &'static str,
    },
    /// The row's `headers` begins as an object and is not well-formed.
    #[error("headers is not a well-formed JSON object: {reason}")]
    HeadersMalformed {
        /// What the JSON reader says.
        reason: String,
    },
    /// A member of `headers` has no name.
    #[error("headers has a member whose name is empty; a record header needs a name")]
    HeaderNameEmpty,
    /// A member's name holds a NUL character, which ends a name in Kafka's C clients.
    #[error("the header name {name:?} contains a NUL character")]
    HeaderNameWithNul {
        /// The name; only its beginning when it is long.
        name: String,
    },
    /// Records are to be CloudEvents, which need a type.
    #[error("type is empty, and a CloudEvent needs one")]
    CloudEventWithoutType,
    /// `created_at` has no RFC 3339 text, and the header was asked for.
    #[error(
        "created_at ({}) cannot be a header: it is not within 0001-01-01 and 9999-12-30",
        RowTime(*micros)
    )]
    CreatedAtOutOfRange {
        /// Microseconds since 1970-01-01 UTC.
        micros: i64,
    },
    /// `created_at` is no time of Kafka's, and records were to bear it.
    #[error(
        "created_at ({}) cannot be the record's time: Kafka counts milliseconds after 1970-01-01",
        RowTime(*micros)
    )]
    TimestampOutOfRange {
        /// Microseconds since 1970-01-01 UTC.
        micros: i64,
    },
}

impl From<Unpublishable> for Refusal {
    fn from(cause: Unpublishable) -> Self {
        let reason = match &cause {
            Unpublishable::IllegalTopic(_) => Reason::IllegalTopic,
            Unpublishable::HeadersNotAnObject { .. }
            | Unpublishable::HeadersMalformed { .. }
            | Unpublishable::HeaderNameEmpty
            | Unpublishable::HeaderNameWithNul { .. }
            | Unpublishable::CloudEventWithoutType => Reason::BadHeaders,
            Unpublishable::CreatedAtOutOfRange { .. }
            | Unpublishable::TimestampOutOfRange { .. } => Reason::BadTime,
        };
        Self { reason, detail: cause.to_string(), topic: None }
    }
}

/// A row's time as text.
pub(super) struct RowTime(pub(super) i64);

impl RowTime {
    /// The time, if RFC 3339 has it.
    pub(super) fn in_years_of_four_digits(&self) -> Option<jiff::Timestamp> {
        let micros = Some(self.0).filter(|micros| CREATED_AT_MICROS.contains(micros))?;
        jiff::Timestamp::from_microsecond(micros).ok()
    }
}

impl fmt::Display for RowTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.in_years_of_four_digits(), self.0) {
            (Some(time), _) => write!(formatter, "{time:.6}"),
            (None, i64::MIN) => formatter.write_str("-infinity"),
            // PostgreSQL's times end later than 64 bits of microseconds since 1970.
            (None, i64::MAX) => formatter.write_str("infinity, or after 294247-01-10"),
            (None, micros) => write!(formatter, "{micros} microseconds since 1970"),
        }
    }
}
