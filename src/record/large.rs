//! A row that is an event and too large to be read at once: where each of its values is.
//!
//! Promises: what is here is bounded by the limit of an event; the rest is named. Must not: know who has the
//! rest.

use crate::event::EventId;

/// One value of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LargeValue<T> {
    /// The row has none.
    #[default]
    None,
    /// It is small.
    Here(T),
    /// It was handed on in parts.
    HandedOn(HandedOn),
}

impl<T> LargeValue<T> {
    /// The value, where it is here.
    pub fn here(&self) -> Option<&T> {
        match self {
            Self::Here(value) => Some(value),
            Self::None | Self::HandedOn(_) => None,
        }
    }

    /// What was handed on.
    pub fn handed_on(&self) -> Option<&HandedOn> {
        match self {
            Self::HandedOn(value) => Some(value),
            Self::None | Self::Here(_) => None,
        }
    }
}

/// A value that was handed on in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOn {
    /// By what number its parts are known.
    pub number: u16,
    /// How it looks in them.
    pub form: HandedForm,
    /// Its beginning, as far as it can be read.
    pub head: String,
}

/// How a value looks in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedForm {
    /// A text.
    Text,
    /// A text behind a byte with a version.
    Jsonb,
    /// A text with blanks behind it that are none of its own.
    Padded,
    /// Bytes, in hexadecimal digits behind two characters.
    Hexadecimal,
    /// Bytes.
    Bytes,
}

impl HandedForm {
    /// As it is told to the server.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Jsonb => "jsonb",
            Self::Padded => "padded",
            Self::Hexadecimal => "hexadecimal",
            Self::Bytes => "bytes",
        }
    }
}

/// How the texts are written that were handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedTexts {
    /// In UTF-8.
    Utf8,
    /// As they lie in the database.
    AsInDatabase,
}

/// The row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeRow {
    /// Its place in the order of writing.
    pub place: i64,
    /// Its identity.
    pub id: EventId,
    /// When it was written, in microseconds since 1970.
    pub created_at_micros: i64,
    /// The kind of aggregate.
    pub aggregate_type: LargeValue<String>,
    /// The aggregate.
    pub aggregate_id: LargeValue<String>,
    /// The kind of event.
    pub kind: LargeValue<String>,
    /// More headers.
    pub headers: LargeValue<String>,
    /// The record's value.
    pub payload: LargeValue<Vec<u8>>,
    /// How large it is as an event.
    pub event_bytes: u64,
    /// Why what is here is not as it was written; none where it is.
    pub fault: Option<String>,
    /// How the other texts are written.
    pub texts: HandedTexts,
}

impl LargeRow {
    /// The texts, in the order of an event's columns, behind which the payload comes.
    pub fn texts(&self) -> [&LargeValue<String>; 4] {
        [&self.aggregate_type, &self.aggregate_id, &self.kind, &self.headers]
    }

    /// Kind and name of its aggregate; none where one of them was handed on.
    pub fn aggregate(&self) -> Option<(&str, &str)> {
        fn text(value: &LargeValue<String>) -> Option<&str> {
            match value {
                LargeValue::Here(text) => Some(text),
                LargeValue::None => Some(""),
                LargeValue::HandedOn(_) => None,
            }
        }
        Some((text(&self.aggregate_type)?, text(&self.aggregate_id)?))
    }
}
