//! The headers of a record.
//!
//! Promises: a row's members keep their order and come after our own, whose names they cannot take; text lives in one
//! buffer that is used again. Must not: know where records go. Fails: for what is no object, is torn, or has a name
//! that no client can send.

use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::record::unpublishable::{RowTime, Unpublishable};

/// The header that carries the row's time, where it is asked for.
pub const CREATED_AT_HEADER: &str = "created_at";

/// The headers of one record: all text in one place, and where each name and value lies in it.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderBuffer {
    pub(super) text: String,
    pub(super) spans: Vec<HeaderSpan>,
}

#[derive(Clone, Debug)]
pub(super) struct HeaderSpan {
    pub(super) name: Range<usize>,
    pub(super) value: Option<Range<usize>>,
}

impl HeaderBuffer {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    pub(super) fn push(&mut self, name: &str, value: &str) {
        let name = self.append(name);
        let value = Some(self.append(value));
        self.spans.push(HeaderSpan { name, value });
    }

    pub(super) fn append(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    /// Whether one of the first `own` headers has the name that lies at `name`.
    pub(super) fn is_among(&self, own: usize, name: &Range<usize>) -> bool {
        let name = &self.text[name.clone()];
        self.spans[..own].iter().any(|span| &self.text[span.name.clone()] == name)
    }
}

pub(super) fn push_created_at(
    headers: &mut HeaderBuffer,
    micros: i64,
) -> Result<(), Unpublishable> {
    let outside = Unpublishable::CreatedAtOutOfRange { micros };
    let time = RowTime(micros).in_years_of_four_digits().ok_or(outside)?;
    let name = headers.append(CREATED_AT_HEADER);
    let start = headers.text.len();
    write!(headers.text, "{time:.6}").expect("writing to a string does not fail");
    headers.spans.push(HeaderSpan { name, value: Some(start..headers.text.len()) });
    Ok(())
}

/// Appends the members of a JSON object.
pub(super) fn push_members(headers: &mut HeaderBuffer, text: &str) -> Result<(), Unpublishable> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let found = match text.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'-' | b'0'..=b'9') => "a number",
        _ if text == "null" => return Ok(()),
        _ => "no JSON",
    };
    if found != "an object" {
        return Err(Unpublishable::HeadersNotAnObject { found });
    }
    let own = headers.spans.len();
    let mut source = serde_json::Deserializer::from_str(text);
    Members { headers, own }
        .deserialize(&mut source)
        .and_then(|()| source.end())
        .map_err(|error| Unpublishable::HeadersMalformed { reason: error.to_string() })?;
    headers.spans[own..].iter().try_for_each(|span| check_name(&headers.text[span.name.clone()]))
}

/// Refuses the names that no client library can send.
fn check_name(name: &str) -> Result<(), Unpublishable> {
    if name.is_empty() {
        return Err(Unpublishable::HeaderNameEmpty);
    }
    if name.contains('\0') {
        return Err(Unpublishable::HeaderNameWithNul { name: name.chars().take(80).collect() });
    }
    Ok(())
}

/// Reads an object's members into the buffer, but those named as one of the first `own` headers.
struct Members<'b> {
    headers: &'b mut HeaderBuffer,
    own: usize,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of headers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { headers, own } = self;
        while let Some(name) = members.next_key_seed(AppendText(headers))? {
            let value = members.next_value::<&RawValue>()?.get();
            if headers.is_among(own, &name) {
                headers.text.truncate(name.start);
                continue;
            }
            let value = append_value(headers, value).map_err(A::Error::custom)?;
            headers.spans.push(HeaderSpan { name, value });
        }
        Ok(())
    }
}

/// A string's text, nothing for null, and the JSON as it stands for all else.
fn append_value(
    headers: &mut HeaderBuffer,
    json: &str,
) -> Result<Option<Range<usize>>, serde_json::Error> {
    if json == "null" {
        return Ok(None);
    }
    let Some(quoted) = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')) else {
        return Ok(Some(headers.append(json)));
    };
    if !quoted.contains('\\') {
        return Ok(Some(headers.append(quoted)));
    }
    AppendText(headers).deserialize(&mut serde_json::Deserializer::from_str(json)).map(Some)
}

/// Unescapes a JSON string straight into the buffer.
struct AppendText<'b>(&'b mut HeaderBuffer);

impl<'de> DeserializeSeed<'de> for AppendText<'_> {
    type Value = Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for AppendText<'_> {
    type Value = Range<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.append(text))
    }
}
