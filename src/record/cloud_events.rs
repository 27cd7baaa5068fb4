//! A record as a CloudEvent, in binary mode: the attributes are headers, the value is the data.
//!
//! Promises: a record has all attributes that must be there, none that would be empty, and keeps its key and its value:
//! a tombstone stays one. Must not: look into a payload.
//! Fails: for an event without a type, as a CloudEvent needs one.
//!
//! Source: CloudEvents 1.0.2, its Kafka protocol binding, and its extension for distributed tracing.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::event::{Event, EventId};
use crate::outbox::{OutboxName, PayloadType};
use crate::record::headers::{HeaderBuffer, HeaderSpan};
use crate::record::trace::{TRACEPARENT, TRACESTATE};
use crate::record::unpublishable::{RowTime, Unpublishable};

const SPEC_VERSION: (&str, &str) = ("ce_specversion", "1.0");
const ID: &str = "ce_id";
const SOURCE: &str = "ce_source";
const TYPE: &str = "ce_type";
const SUBJECT: &str = "ce_subject";
const TIME: &str = "ce_time";
const CONTENT_TYPE: &str = "content-type";
/// The attributes of the extension, each with the header that it is made of.
const TRACE: [(&str, &str); 2] = [("ce_traceparent", TRACEPARENT), ("ce_tracestate", TRACESTATE)];

/// What a record looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RecordFormat {
    /// `id`, `type`, and the row's own headers.
    #[default]
    Plain,
    /// The attributes of a CloudEvent besides.
    CloudEvents(CloudEvents),
}

/// What is the same for all events of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvents {
    source: Arc<str>,
    content_type: &'static str,
}

impl CloudEvents {
    /// Of events that come from here, with payloads of this type.
    pub fn new(source: &str, payload: PayloadType) -> Self {
        let content_type = match payload {
            PayloadType::Json | PayloadType::Jsonb => "application/json",
            PayloadType::Text => "text/plain; charset=utf-8",
            PayloadType::Bytea => "application/octet-stream",
        };
        Self { source: source.into(), content_type }
    }

    /// Appends the attributes that the event's own columns give.
    pub(super) fn push(
        &self,
        headers: &mut HeaderBuffer,
        event: &Event<'_>,
    ) -> Result<(), Unpublishable> {
        if event.kind.is_empty() {
            return Err(Unpublishable::CloudEventWithoutType);
        }
        headers.push(SPEC_VERSION.0, SPEC_VERSION.1);
        let mut id = [0; EventId::TEXT_BYTES];
        headers.push(ID, event.id.encode(&mut id));
        headers.push(SOURCE, &self.source);
        headers.push(TYPE, event.kind);
        // It may be left out; a text that no attribute may be is no subject.
        if !event.aggregate_id.is_empty() && is_attribute(event.aggregate_id) {
            headers.push(SUBJECT, event.aggregate_id);
        }
        // A time that RFC 3339 has no form for is left out, as it may be.
        if let Some(time) = RowTime(event.created_at_micros).in_years_of_four_digits() {
            let name = headers.append(TIME);
            let start = headers.text.len();
            write!(headers.text, "{time:.6}").expect("writing to a string does not fail");
            headers.spans.push(HeaderSpan { name, value: Some(start..headers.text.len()) });
        }
        Ok(())
    }

    /// Appends what depends on the row's own headers. A row knows best of what type its payload is.
    pub(super) fn complete(&self, headers: &mut HeaderBuffer, event: &Event<'_>) {
        if event.payload.is_some() && !headers.has_named(CONTENT_TYPE) {
            headers.push(CONTENT_TYPE, self.content_type);
        }
        for (attribute, header) in TRACE {
            let own = headers.value_of(header).filter(|_| !headers.has_named(attribute));
            if let Some(value) = own {
                let name = headers.append(attribute);
                headers.spans.push(HeaderSpan { name, value: Some(value) });
            }
        }
    }
}

/// Whether an attribute may be this text: it has no control characters, and none that stand for nothing.
fn is_attribute(text: &str) -> bool {
    let is_nothing = |character: char| {
        let code = u32::from(character);
        code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code)
    };
    text.chars().all(|character| !character.is_control() && !is_nothing(character))
}

/// Where events come from, if nobody says otherwise: `/database/schema/table`, as a URI has it.
pub fn default_source(database: &str, outbox: &OutboxName) -> String {
    let mut source = String::new();
    for part in [database, &outbox.schema, &outbox.table] {
        source.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                source.push(char::from(byte));
            } else {
                write!(source, "%{byte:02X}").expect("writing to a string does not fail");
            }
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventPlace;
    use crate::record::encode::{Encoder, Record, size_bytes};

    const TRACE_ID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn event<'a>(headers: Option<&'a str>, payload: Option<&'a [u8]>) -> Event<'a> {
        Event {
            seq: 1,
            id: EventId([0x11; 16]),
            aggregate_type: "order",
            aggregate_id: "42",
            kind: "placed",
            payload,
            headers,
            created_at_micros: 1_795_466_121_219_663,
        }
    }

    fn encoder(payload: PayloadType) -> Encoder {
        let format = RecordFormat::CloudEvents(CloudEvents::new("/shop/public/outbox", payload));
        Encoder::new("t".parse().expect("a topic")).with_format(format)
    }

    fn all(record: &Record<'_>) -> Vec<(String, String)> {
        let text =
            |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or(b"-")).into_owned();
        record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect()
    }

    fn of(event: &Event<'_>) -> Vec<(String, String)> {
        let mut encoder = encoder(PayloadType::Json);
        let record = encoder.encode(event, EventPlace::default()).expect("it is one");
        all(&record)
    }

    fn value<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    #[test]
    fn a_record_has_the_attributes_of_a_cloud_event() {
        let headers = of(&event(None, Some(b"{}")));
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "id",
            "type",
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_subject",
            "ce_time",
            "content-type",
        ];
        assert_eq!(names, expected);
        let id = "11111111-1111-1111-1111-111111111111";
        for (name, expected) in [
            ("id", id),
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/shop/public/outbox"),
            ("ce_type", "placed"),
            ("ce_subject", "42"),
            ("ce_time", "2026-11-23T20:35:21.219663Z"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(value(&headers, name), [expected], "{name}");
        }
    }

    #[test]
    fn a_tombstone_stays_one_and_empty_attributes_are_left_out() {
        let mut encoder = encoder(PayloadType::Bytea);
        let gone = Event { aggregate_id: "", created_at_micros: i64::MIN, ..event(None, None) };
        let record = encoder.encode(&gone, EventPlace::default()).expect("it is one");
        assert_eq!(record.value, None);
        let headers = all(&record);
        for name in ["content-type", "ce_subject", "ce_time"] {
            assert!(value(&headers, name).is_empty(), "{name}");
        }
        let nameless = Event { kind: "", ..event(None, Some(b"{}")) };
        let refused = encoder.encode(&nameless, EventPlace::default()).expect_err("it has no type");
        assert_eq!(refused, Unpublishable::CloudEventWithoutType);
        let record =
            encoder.encode(&event(None, Some(b"\0")), EventPlace::default()).expect("it is one");
        assert_eq!(value(&all(&record), "content-type"), ["application/octet-stream"]);
    }

    #[test]
    fn a_subject_is_any_text_that_an_attribute_may_be() {
        for (id, subject) in [
            ("caf\u{e9} \u{6f22}\u{5b57} \u{1f980}", Some("caf\u{e9} \u{6f22}\u{5b57} \u{1f980}")),
            (" ", Some(" ")),
            ("a\nb", None),
            ("\u{7f}", None),
            ("\u{85}", None),
            ("\u{ffff}", None),
            ("\u{1fffe}", None),
            ("\u{fdd0}", None),
        ] {
            let headers = of(&Event { aggregate_id: id, ..event(None, Some(b"{}")) });
            assert_eq!(value(&headers, SUBJECT), Vec::from_iter(subject), "{id:?}");
        }
    }

    #[test]
    fn what_the_row_says_of_its_payload_holds_and_its_attributes_give_way() {
        let own =
            r#"{"Content-Type": "application/avro", "ce_id": "forged", "ce_dataschema": "s"}"#;
        let headers = of(&event(Some(own), Some(b"{}")));
        assert_eq!(value(&headers, "Content-Type"), ["application/avro"]);
        assert!(value(&headers, "content-type").is_empty());
        assert_eq!(value(&headers, "ce_id").len(), 1);
        assert_eq!(value(&headers, "ce_dataschema"), ["s"], "an attribute that is not ours");
    }

    #[test]
    fn a_trace_is_an_attribute_too() {
        let own = format!(r#"{{"traceparent": "{TRACE_ID}", "tracestate": "a=b"}}"#);
        let headers = of(&event(Some(&own), Some(b"{}")));
        for name in ["traceparent", "ce_traceparent"] {
            assert_eq!(value(&headers, name), [TRACE_ID], "{name}");
        }
        assert_eq!(value(&headers, "ce_tracestate"), ["a=b"]);
        let from_properties =
            format!(r##"{{"tracingspancontext": "#now\ntraceparent={TRACE_ID}\n"}}"##);
        let headers = of(&event(Some(&from_properties), Some(b"{}")));
        assert_eq!(value(&headers, "ce_traceparent"), [TRACE_ID]);
        assert!(value(&of(&event(None, Some(b"{}"))), "ce_traceparent").is_empty());
    }

    #[test]
    fn sizes_count_the_attributes() {
        let row = event(None, Some(b"{}"));
        let mut plain = Encoder::new("t".parse().expect("a topic"));
        let mut cloud = encoder(PayloadType::Json);
        let least = size_bytes(&plain.encode(&row, EventPlace::default()).expect("it is one"));
        let record = cloud.encode(&row, EventPlace::default()).expect("it is one");
        let size = size_bytes(&record);
        assert!(size > least + 150, "{size} {least}");
        assert!(record.fits(size) && !record.fits(size - 1));
    }

    #[test]
    fn a_source_is_a_uri() {
        let outbox: OutboxName = "app.\"My Outbox\"".parse().expect("a name");
        assert_eq!(default_source("sh/op", &outbox), "/sh%2Fop/app/My%20Outbox");
    }
}
