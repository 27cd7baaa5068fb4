//! An event becomes a record: topic, key, value and headers.
//!
//! Promises: payload and key pass byte for byte; the headers are `id` and `type`, then those that were asked
//! for, then the members of the row's `headers` object in their order. Text lives in buffers that are used again, so that
//! encoding allocates only when an event needs more room than all before it, or when a header has
//! escapes or nested values. Must not: know a producer, or whether the event was sent before.
//! Fails: an event that can never become a record is refused as [`Unpublishable`], with the reason.
//!
//! ```
//! use postrider::record::encode::Encoder;
//! use postrider::event::{Event, EventId, EventPlace};
//!
//! let mut encoder = Encoder::new("outbox.event.{aggregatetype}".parse()?);
//! let record = encoder.encode(&Event {
//!     seq: 1,
//!     id: EventId([0x11; 16]),
//!     aggregate_type: "order",
//!     aggregate_id: "42",
//!     kind: "placed",
//!     payload: Some(b"{}"),
//!     headers: Some(r#"{"trace": "abc"}"#),
//!     created_at_micros: 0,
//! }, EventPlace::default())?;
//! assert_eq!((record.topic, record.key), ("outbox.event.order", "42"));
//! let names: Vec<&str> = record.headers().map(|(name, _)| name).collect();
//! assert_eq!(names, ["id", "type", "trace"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::event::{Event, EventId, EventPlace};
use crate::order::holds::Refusal;
pub use crate::record::cloud_events::RecordFormat;
pub use crate::record::headers::{
    AGGREGATE_TYPE_HEADER, AddedHeader, AddedHeaders, CREATED_AT_HEADER, POSITION_HEADER,
    SEQ_HEADER,
};
use crate::record::headers::{HeaderBuffer, HeaderSpan, push_added, push_members};
use crate::record::size::size_bytes_of;
use crate::record::topic::{IllegalTopic, TopicTemplate};
use crate::record::unpublishable::{RowTime, Unpublishable};

/// The header that carries the event's id: consumers drop repeats by it.
pub const ID_HEADER: &str = "id";
/// The header that carries the event's type.
pub const TYPE_HEADER: &str = "type";

/// The header that carries the number of the replay which has sent the record once more.
pub const REPLAY_HEADER: &str = "postrider.replay";

/// An event as Kafka sees it, lent by the event and by the [`Encoder`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic's name; legal.
    pub topic: &'a str,
    /// The key: the aggregate's id.
    pub key: &'a str,
    /// The payload as it is; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The row's `created_at`, in microseconds since 1970-01-01 UTC. None for a record that bears the
    /// time of its sending, whatever others bear.
    pub created_at_micros: Option<i64>,
    headers: &'a HeaderBuffer,
}

impl<'a> Record<'a> {
    /// Name and value of each header, in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let HeaderBuffer { text, spans } = self.headers;
        spans.iter().map(|span| {
            let value = span.value.clone().map(|value| text[value].as_bytes());
            (&text[span.name.clone()], value)
        })
    }

    /// Whether it fits into so many bytes. Most do so plainly that nothing is counted header by header.
    pub fn fits(&self, bytes_max: usize) -> bool {
        // More than any overhead: of the batch and of the record, and of the three lengths of a header.
        let overhead = 128 + 12 * (self.headers.spans.len() + 2);
        let text = self.headers.text.len() + self.key.len() + self.value.map_or(0, <[u8]>::len);
        text + overhead <= bytes_max || size_bytes(self) <= bytes_max
    }

    /// The row's time as Kafka has it: milliseconds since 1970, of which 0 would be the time of sending, and
    /// less than that no time. None for a record that bears the time of its sending anyway.
    ///
    /// # Errors
    /// [`Unpublishable::TimestampOutOfRange`] when it lies earlier, or never.
    pub fn created_at_millis(&self) -> Result<Option<i64>, Unpublishable> {
        let Some(micros) = self.created_at_micros else { return Ok(None) };
        let millis = micros.div_euclid(1_000);
        if millis < 1 || micros == i64::MAX {
            return Err(Unpublishable::TimestampOutOfRange { micros });
        }
        Ok(Some(millis))
    }

    /// How many headers there are.
    pub fn header_count(&self) -> usize {
        self.headers.spans.len()
    }
}

/// Makes records of events; one per pipeline, as its buffers hold one record at a time.
#[derive(Clone, Debug)]
pub struct Encoder {
    template: TopicTemplate,
    added: AddedHeaders,
    format: RecordFormat,
    /// Of which replay all records are; none for those that are sent as they come.
    replay: Option<String>,
    topic: String,
    headers: HeaderBuffer,
}

impl Encoder {
    /// An encoder with no headers but `id`, `type` and the row's own.
    pub fn new(template: TopicTemplate) -> Self {
        Self {
            template,
            added: AddedHeaders::default(),
            format: RecordFormat::default(),
            replay: None,
            topic: String::new(),
            headers: HeaderBuffer::default(),
        }
    }

    /// Sets which headers of ours records carry besides `id` and `type`.
    #[must_use]
    pub fn with_headers(mut self, added: AddedHeaders) -> Self {
        self.added = added;
        self
    }

    /// Sets what records look like.
    #[must_use]
    pub fn with_format(mut self, format: RecordFormat) -> Self {
        self.format = format;
        self
    }

    /// Names topics by another template.
    #[must_use]
    pub fn with_topic(mut self, template: TopicTemplate) -> Self {
        self.template = template;
        self
    }

    /// Marks all records as those of a replay.
    #[must_use]
    pub fn with_replay(mut self, number: i64) -> Self {
        self.replay = Some(number.to_string());
        self
    }

    /// Where the event goes, lent until the next call.
    ///
    /// # Errors
    /// [`IllegalTopic`] when that is no name for a topic.
    pub fn topic<'a>(&'a mut self, event: &Event<'_>) -> Result<&'a str, IllegalTopic> {
        self.template.render(event, &mut self.topic)
    }

    /// The record of the event, which stands at this place, lent until the next call.
    ///
    /// # Errors
    /// [`Unpublishable`] when the event cannot become a record, today or later.
    pub fn encode<'a>(
        &'a mut self,
        event: &Event<'a>,
        place: EventPlace,
    ) -> Result<Record<'a>, Unpublishable> {
        let topic = self.template.render(event, &mut self.topic)?;
        self.headers.clear();
        let mut id = [0; EventId::TEXT_BYTES];
        self.headers.push(ID_HEADER, event.id.encode(&mut id));
        self.headers.push(TYPE_HEADER, event.kind);
        push_added(&mut self.headers, self.added, event, place)?;
        if let Some(replay) = &self.replay {
            self.headers.push(REPLAY_HEADER, replay);
        }
        if let RecordFormat::CloudEvents(cloud) = &self.format {
            cloud.push(&mut self.headers, event)?;
        }
        if let Some(object) = event.headers {
            push_members(&mut self.headers, object)?;
        }
        if let RecordFormat::CloudEvents(cloud) = &self.format {
            cloud.complete(&mut self.headers, event);
        }
        Ok(Record {
            topic,
            key: event.aggregate_id,
            value: event.payload,
            created_at_micros: Some(event.created_at_micros),
            headers: &self.headers,
        })
    }
}

/// Buffers keep so much between events; a larger one is given back.
const BUFFER_BYTES: usize = 1024 * 1024;

impl Encoder {
    /// Gives back what a large event needed beyond the usual. For between two batches.
    pub fn rest(&mut self) {
        self.headers.clear();
        self.topic.clear();
        let spans = BUFFER_BYTES / size_of::<HeaderSpan>();
        if self.topic.capacity().max(self.headers.text.capacity()) > BUFFER_BYTES
            || self.headers.spans.capacity() > spans
        {
            self.topic.shrink_to(BUFFER_BYTES);
            self.headers.text.shrink_to(BUFFER_BYTES);
            self.headers.spans.shrink_to(spans);
        }
    }
}

/// What a dead letter's own headers begin with.
const LETTER_HEADERS: [&str; 6] = [
    "postrider.reason",
    "postrider.detail",
    "postrider.topic",
    "postrider.seq",
    "postrider.aggregatetype",
    "postrider.created_at",
];

impl Encoder {
    /// The event as a dead letter: its key, its payload, its `id` and `type`, and why it is one. The
    /// row's own headers stay behind, as they may be what is wrong. So does its time: Kafka removes by a
    /// record's time, and refuses one that lies ahead; a header has it.
    pub fn dead_letter<'a>(
        &'a mut self,
        event: &Event<'a>,
        topic: &'a str,
        refusal: &Refusal,
    ) -> Record<'a> {
        self.headers.clear();
        let mut id = [0; EventId::TEXT_BYTES];
        self.headers.push(ID_HEADER, event.id.encode(&mut id));
        self.headers.push(TYPE_HEADER, event.kind);
        let seq = event.seq.to_string();
        let meant_for = refusal.topic.as_deref().unwrap_or_default();
        let reason = refusal.reason.name();
        let at = RowTime(event.created_at_micros).to_string();
        let values = [reason, &refusal.detail, meant_for, &seq, event.aggregate_type, &at];
        for (name, value) in LETTER_HEADERS.into_iter().zip(values) {
            self.headers.push(name, value);
        }
        Record {
            topic,
            key: event.aggregate_id,
            value: event.payload,
            created_at_micros: None,
            headers: &self.headers,
        }
    }
}

/// The most that a batch with only this record takes, without compression: what a topic's
/// `max.message.bytes` is compared with.
pub fn size_bytes(record: &Record<'_>) -> usize {
    let headers = record.headers().map(|(name, value)| (name.len(), value.map(<[u8]>::len)));
    size_bytes_of(record.key.len(), record.value.map(<[u8]>::len), headers)
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
