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

use crate::event::{Event, EventPlace};
use crate::record::trace::{SPAN_CONTEXT, TRACEPARENT, TRACESTATE, TraceContext};
use crate::record::unpublishable::{RowTime, Unpublishable};

/// The header that carries the row's time, where it is asked for.
pub const CREATED_AT_HEADER: &str = "created_at";
/// The header that carries the row's `seq`, where it is asked for.
pub const SEQ_HEADER: &str = "seq";
/// The header that carries the event's place in the log, where it is asked for.
pub const POSITION_HEADER: &str = "position";
/// The header that carries the kind of aggregate, where it is asked for.
pub const AGGREGATE_TYPE_HEADER: &str = "aggregatetype";

/// A header of ours that records carry on request. A member of that name in the row's `headers` gives way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedHeader {
    /// RFC 3339 text in UTC with microseconds.
    CreatedAt,
    /// The row's `seq`, a whole number; left out where the event is no row of the outbox.
    Seq,
    /// [`LogPosition::position`](crate::event::LogPosition::position), a whole number; left out where there is none.
    Position,
    /// The kind of aggregate, for topics that do not tell it.
    AggregateType,
}

/// Which of them are asked for; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddedHeaders(u8);

impl AddedHeaders {
    /// Whether this one is asked for.
    #[must_use]
    pub fn has(self, header: AddedHeader) -> bool {
        self.0 & (1 << header as u8) != 0
    }
}

impl FromIterator<AddedHeader> for AddedHeaders {
    fn from_iter<I: IntoIterator<Item = AddedHeader>>(headers: I) -> Self {
        Self(headers.into_iter().fold(0, |bits, header| bits | 1 << header as u8))
    }
}

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

    /// Whether a header has this name, in whatever case.
    pub(super) fn has_named(&self, name: &str) -> bool {
        self.spans.iter().any(|span| self.text[span.name.clone()].eq_ignore_ascii_case(name))
    }

    /// Where the value of the header with this name lies.
    pub(super) fn value_of(&self, name: &str) -> Option<Range<usize>> {
        let found = self.spans.iter().find(|span| &self.text[span.name.clone()] == name);
        found.and_then(|span| span.value.clone())
    }

    /// Whether one of the first `own` headers has the name that lies at `name`.
    pub(super) fn is_among(&self, own: usize, name: &Range<usize>) -> bool {
        let name = &self.text[name.clone()];
        self.spans[..own].iter().any(|span| &self.text[span.name.clone()] == name)
    }
}

fn push_created_at(headers: &mut HeaderBuffer, micros: i64) -> Result<(), Unpublishable> {
    let outside = Unpublishable::CreatedAtOutOfRange { micros };
    let time = RowTime(micros).in_years_of_four_digits().ok_or(outside)?;
    let name = headers.append(CREATED_AT_HEADER);
    let start = headers.text.len();
    write!(headers.text, "{time:.6}").expect("writing to a string does not fail");
    headers.spans.push(HeaderSpan { name, value: Some(start..headers.text.len()) });
    Ok(())
}

/// Appends those that are asked for and have a value.
pub(super) fn push_added(
    headers: &mut HeaderBuffer,
    added: AddedHeaders,
    event: &Event<'_>,
    place: EventPlace,
) -> Result<(), Unpublishable> {
    let mut digits = itoa::Buffer::new();
    if added.has(AddedHeader::CreatedAt) {
        push_created_at(headers, event.created_at_micros)?;
    }
    if let Some(seq) = place.seq.filter(|_| added.has(AddedHeader::Seq)) {
        headers.push(SEQ_HEADER, digits.format(seq));
    }
    if let Some(position) = place.position.filter(|_| added.has(AddedHeader::Position)) {
        headers.push(POSITION_HEADER, digits.format(position));
    }
    if added.has(AddedHeader::AggregateType) {
        headers.push(AGGREGATE_TYPE_HEADER, event.aggregate_type);
    }
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
    // What a column of Debezium's has, where it was adopted for headers.
    if found == "no JSON"
        && let Some(context) = TraceContext::of_properties(text)
    {
        push_trace(headers, &context);
        return Ok(());
    }
    if found != "an object" {
        return Err(Unpublishable::HeadersNotAnObject { found });
    }
    let own = headers.spans.len();
    let mut source = serde_json::Deserializer::from_str(text);
    Members { headers, own }
        .deserialize(&mut source)
        .and_then(|()| source.end())
        .map_err(|error| Unpublishable::HeadersMalformed { reason: error.to_string() })?;
    headers.spans[own..]
        .iter()
        .try_for_each(|span| check_name(&headers.text[span.name.clone()]))?;
    unfold_trace(headers, own);
    Ok(())
}

/// Appends the headers of a trace, those of whose names there are none.
fn push_trace(headers: &mut HeaderBuffer, context: &TraceContext) {
    if headers.has_named(TRACEPARENT) {
        return;
    }
    headers.push(TRACEPARENT, &context.parent);
    if let Some(state) = context.state.as_ref().filter(|_| !headers.has_named(TRACESTATE)) {
        headers.push(TRACESTATE, state);
    }
}

/// Puts the headers of a trace in the place of Debezium's text, where one behind the first `own` headers is that.
fn unfold_trace(headers: &mut HeaderBuffer, own: usize) {
    let HeaderBuffer { text, spans } = headers;
    let is_context = |span: &HeaderSpan| &text[span.name.clone()] == SPAN_CONTEXT;
    let Some(place) = spans[own..].iter().position(is_context).map(|place| own + place) else {
        return;
    };
    let value = spans[place].value.clone();
    let context = value.and_then(|value| TraceContext::of_properties(&text[value]));
    if let Some(context) = context {
        spans.remove(place);
        push_trace(headers, &context);
    }
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
