//! Messages and rows of adopted tables that are too large to be read at once.
//!
//! Promises: such an event is parked inside the server, part by part as it comes, behind all that came before
//! it; from there on its aggregate is held. Must not: gather more of it than the limit of an event.
//! Fails: with the connection's error, and as the outlet; what was taken up then is gone, and comes again.
//!
//! ```text
//!   Nothing ── begin, once all before it has landed ──► TakenUp ── last part: parked ──► Nothing
//!           └─ pass, what was published before ───────► Passed ─── last part ──────────┘
//! ```
//!
//! A message is nowhere but in the log, and a row of an adopted table may be gone from there. So it is not a part of
//! any batch: what was sent before lands first, then it is taken up in a transaction of its own. An event that cannot
//! be sent is not sent to a dead-letter topic either, which would not take it.

use bytes::Bytes;

use crate::capture::log::decode::{LargeEnd, LargePart};
use crate::capture::log::flawed::{EventOrigin, UNREADABLE_TYPE, id_at};
use crate::capture::log::message;
use crate::capture::log::message::{HEAD_BYTES, Head};
use crate::control::parked::{Content, LargeMessage, TakenUp};
use crate::error::Result;
use crate::event::{EventId, LogPosition, OrderingKey};
use crate::order::holds::{AggregateKey, HeldFrom, Hold, IdHead, Reason, Refusal};
use crate::record::large::LargeRow;
use crate::shard::log_loop::log_pages::LogPages;

/// The large event at hand.
#[derive(Debug, Default)]
pub(super) enum Large {
    /// There is none.
    #[default]
    Nothing,
    /// It was published before this stream began.
    Passed,
    /// Its parts are taken up.
    TakenUp(LargeParts),
}

/// What has come of it.
#[derive(Debug)]
pub(super) struct LargeParts {
    log_position: LogPosition,
    count: i32,
    bytes: u64,
    /// The beginning of a message, as far as it names the aggregate.
    beginning: Vec<u8>,
    /// So much is kept to name it. What has a longer name is larger than an event that is sent.
    names_bytes_max: usize,
}

impl LargeParts {
    /// Takes note of a part.
    fn note(&mut self, bytes: &[u8], origin: EventOrigin) {
        (self.count, self.bytes) = (self.count + 1, self.bytes + bytes.len() as u64);
        if origin == EventOrigin::Message && self.beginning.len() < self.wanted_bytes() {
            self.beginning.extend_from_slice(bytes);
        }
    }

    /// Where the names of the aggregate end.
    fn wanted_bytes(&self) -> usize {
        let mut beginning =
            Bytes::copy_from_slice(&self.beginning[..self.beginning.len().min(HEAD_BYTES)]);
        match message::head(&mut beginning) {
            Ok(head) => names(&head).1.min(self.names_bytes_max),
            Err(_) => HEAD_BYTES,
        }
    }

    fn head(&self) -> std::result::Result<Head, String> {
        let mut beginning =
            Bytes::copy_from_slice(&self.beginning[..self.beginning.len().min(HEAD_BYTES)]);
        let head = message::head(&mut beginning).map_err(|cause| cause.to_string())?;
        head.fits(self.bytes).map_err(|cause| cause.to_string())?;
        Ok(head)
    }

    /// The names of the aggregate.
    fn aggregate(&self, head: &Head) -> (String, String) {
        let (border, end) = names(head);
        let text = |from: usize, to: usize| {
            let to = to.min(self.beginning.len());
            String::from_utf8_lossy(&self.beginning[from.min(to)..to]).into_owned()
        };
        (text(HEAD_BYTES, border), text(border, end))
    }
}

/// Where the kind of aggregate ends, and where the aggregate does.
fn names(head: &Head) -> (usize, usize) {
    let [kind, id, ..] = head.lengths.map(|length| length as usize);
    let border = HEAD_BYTES.saturating_add(kind);
    (border, border.saturating_add(id))
}

impl Large {
    /// Whether the next part is the first of its event, for [`Large::begin`] or [`Large::pass`].
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// An event begins that was published before.
    pub(super) fn pass(&mut self) {
        assert!(self.is_nothing(), "one event comes at a time");
        *self = Self::Passed;
    }

    /// An event begins. What came before it lands first.
    pub(super) async fn begin(
        &mut self,
        log_position: LogPosition,
        pages: &mut LogPages,
    ) -> Result<()> {
        assert!(self.is_nothing(), "one event comes at a time");
        pages.land_all().await?;
        let parked = pages.outlet.parking.parked();
        parked.begin_large().await?;
        let names_bytes_max = parked.event_bytes_max();
        let beginning = Vec::new();
        *self = Self::TakenUp(LargeParts {
            log_position,
            count: 0,
            bytes: 0,
            beginning,
            names_bytes_max,
        });
        Ok(())
    }

    /// Takes the next part of an event that has begun; with the last one it is parked.
    pub(super) async fn take(&mut self, part: LargePart, pages: &mut LogPages) -> Result<()> {
        assert!(!self.is_nothing(), "a part is of an event that has begun");
        if let Self::TakenUp(parts) = self {
            let parked = pages.outlet.parking.parked();
            parked.take_up(parts.count, part.value, &part.bytes).await?;
            parts.note(&part.bytes, part.origin);
        }
        let Some(end) = part.end else { return Ok(()) };
        match (std::mem::take(self), end) {
            (Self::Nothing | Self::Passed, _) => Ok(()),
            (Self::TakenUp(parts), LargeEnd::Message { place, committed_at_micros }) => {
                parts.end_message(place, committed_at_micros, pages).await
            }
            (Self::TakenUp(parts), LargeEnd::Row(row)) => parts.end_row(&row, pages).await,
        }
    }
}

impl LargeParts {
    async fn end_row(&self, row: &LargeRow, pages: &mut LogPages) -> Result<()> {
        let event_bytes = i64::try_from(row.event_bytes).unwrap_or(i64::MAX);
        let most = i64::try_from(self.names_bytes_max).unwrap_or(i64::MAX);
        let refusal = match &row.fault {
            None => Refusal::not_read(event_bytes, most),
            Some(fault) => Refusal::unreadable(fault),
        };
        let outlet = &mut pages.outlet;
        let (owned, saves_wait) = (outlet.store.owned(), outlet.store.pause_saves().await);
        let parked = outlet.parking.parked();
        let done = parked.park_large_row(&owned, row, self.log_position, &refusal).await?;
        drop(saves_wait);
        if let TakenUp::NoEvent(detail) = done {
            return self.park_bytes(row.place, row.created_at_micros, detail, pages).await;
        }
        say_parked(row.id, &refusal, pages);
        // Whoever bears a name that was handed on is too large to be sent, too.
        if let Some((aggregate_type, aggregate_id)) = row.aggregate() {
            self.hold_from((aggregate_type, aggregate_id), row.place, pages);
        }
        Ok(())
    }

    fn hold_from(
        &self,
        (aggregate_type, aggregate_id): (&str, &str),
        place: i64,
        pages: &LogPages,
    ) {
        pages.outlet.hold(Hold {
            key: AggregateKey::named(aggregate_type, aggregate_id),
            head: IdHead::of(aggregate_id),
            from: HeldFrom::new(place, OrderingKey::Committed(self.log_position)),
        });
    }

    async fn end_message(&self, place: i64, micros: i64, pages: &mut LogPages) -> Result<()> {
        let detail = match self.head() {
            Ok(head) => match self.park_event(&head, place, pages).await? {
                TakenUp::Parked => return Ok(()),
                TakenUp::NoEvent(detail) => detail,
            },
            Err(detail) => detail,
        };
        self.park_bytes(place, micros, detail, pages).await
    }

    async fn park_event(&self, head: &Head, place: i64, pages: &mut LogPages) -> Result<TakenUp> {
        let length = |length: u32| i32::try_from(length).expect("it fits into a message");
        let content = Content::Event {
            texts: length(HEAD_BYTES as u32),
            lengths: head.lengths.map(length),
            has_headers: head.has_headers(),
            has_payload: head.has_payload(),
        };
        let (id, created_at_micros) = (head.id, head.created_at_micros);
        let log_position = self.log_position;
        let message = LargeMessage { seq: place, id, created_at_micros, log_position, content };
        let detail = format!("the message has {} bytes, more than are read at once", self.bytes);
        let refusal = Refusal { reason: Reason::TooLarge, detail, topic: None };
        let done = park_message(message, &refusal, pages).await?;
        if done == TakenUp::Parked {
            let (aggregate_type, aggregate_id) = self.aggregate(head);
            self.hold_from((&aggregate_type, &aggregate_id), place, pages);
        }
        Ok(done)
    }

    /// What is no event is kept as it came.
    async fn park_bytes(
        &self,
        place: i64,
        created_at_micros: i64,
        detail: String,
        pages: &mut LogPages,
    ) -> Result<()> {
        let content = Content::Bytes(UNREADABLE_TYPE);
        let (id, log_position) = (id_at(place), self.log_position);
        let message = LargeMessage { seq: place, id, created_at_micros, log_position, content };
        let refusal = Refusal { reason: Reason::Unreadable, detail, topic: None };
        park_message(message, &refusal, pages).await.map(drop)
    }
}

async fn park_message(
    message: LargeMessage<'_>,
    refusal: &Refusal,
    pages: &mut LogPages,
) -> Result<TakenUp> {
    let (id, outlet) = (message.id, &mut pages.outlet);
    let (owned, saves_wait) = (outlet.store.owned(), outlet.store.pause_saves().await);
    let done = outlet.parking.parked().park_large(&owned, message, refusal).await?;
    drop(saves_wait);
    if done == TakenUp::Parked {
        say_parked(id, refusal, pages);
    }
    Ok(done)
}

fn say_parked(id: EventId, refusal: &Refusal, pages: &mut LogPages) {
    pages.count_parked();
    pages.outlet.parking.say_large(&id, refusal);
}
