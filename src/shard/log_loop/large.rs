//! Messages and rows of adopted tables that are too large to be read at once.
//!
//! Promises: such an event is parked inside the server, part by part as it comes, behind all that came before
//! it; from there on its aggregate is held. Must not: gather more of it than the limit of an event.
//! Fails: as [`Reader::run`]; what was taken up then is gone, and comes again.
//!
//! A message is nowhere but in the log, and a row of an adopted table may be gone from there. So it is not a part of
//! any batch: what was sent before lands first, then it is taken up in a transaction of its own. An event that cannot
//! be sent is not sent to a dead-letter topic either, which would not take it.

use bytes::Bytes;

use crate::capture::log::decode::{LargeEnd, LargePart};
use crate::capture::log::flawed::{Origin, UNREADABLE_TYPE, id_at};
use crate::capture::log::message;
use crate::capture::log::message::{HEAD_BYTES, Head};
use crate::control::parked::{Content, LargeMessage, TakenUp};
use crate::error::Result;
use crate::event::{Arrival, EventId, Standing};
use crate::order::holds::{AggregateKey, HeldFrom, Hold, IdHead, Reason, Refusal};
use crate::record::large::LargeRow;
use crate::shard::log_loop::Reader;

/// The event at hand.
#[derive(Debug)]
pub(super) enum Large {
    /// It was delivered before this stream began.
    Passed,
    /// Its parts are taken up.
    TakenUp(Parts),
}

/// What has come of it.
#[derive(Debug)]
pub(super) struct Parts {
    arrival: Arrival,
    count: i32,
    bytes: u64,
    /// The beginning of a message, as far as it names the aggregate.
    beginning: Vec<u8>,
    /// So much is kept to name it. What has a longer name is larger than an event that is sent.
    names_bytes_max: usize,
}

impl Parts {
    /// Takes note of a part.
    fn note(&mut self, bytes: &[u8], origin: Origin) {
        (self.count, self.bytes) = (self.count + 1, self.bytes + bytes.len() as u64);
        if origin == Origin::Message && self.beginning.len() < self.wanted_bytes() {
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

impl Reader {
    /// Takes the next part of an event; one that the stream does not bring has its own arrival.
    pub(super) async fn take_part(
        &mut self,
        part: LargePart,
        copied: Option<Arrival>,
    ) -> Result<()> {
        let mut large = match self.large.take() {
            Some(large) => large,
            None => self.begin_large(part.origin, copied).await?,
        };
        if let Large::TakenUp(parts) = &mut large {
            self.parking.parked().take_up(parts.count, part.value, &part.bytes).await?;
            parts.note(&part.bytes, part.origin);
        }
        match (part.end, large) {
            (None, large) => self.large = Some(large),
            (Some(_), Large::Passed) => {}
            (Some(LargeEnd::Message { place, committed_at_micros }), Large::TakenUp(parts)) => {
                self.end_large(parts, place, committed_at_micros).await?;
            }
            (Some(LargeEnd::Row(row)), Large::TakenUp(parts)) => {
                self.end_large_row(&parts, &row).await?;
            }
        }
        self.feed_back_when_due().await
    }

    async fn begin_large(&mut self, origin: Origin, copied: Option<Arrival>) -> Result<Large> {
        let arrival = match copied {
            Some(arrival) => arrival,
            None => {
                let arrival = self.transaction.next_arrival();
                if self.is_passed(origin) || self.transaction.is_delivered {
                    return Ok(Large::Passed);
                }
                self.wait_until_durable(self.transaction.commit).await?;
                arrival
            }
        };
        self.send_all().await?;
        self.wait_until_landed().await?;
        let parked = self.parking.parked();
        parked.begin_large().await?;
        let names_bytes_max = parked.event_bytes_max();
        Ok(Large::TakenUp(Parts {
            arrival,
            count: 0,
            bytes: 0,
            beginning: Vec::new(),
            names_bytes_max,
        }))
    }

    async fn end_large_row(&mut self, parts: &Parts, row: &LargeRow) -> Result<()> {
        let event_bytes = i64::try_from(row.event_bytes).unwrap_or(i64::MAX);
        let most = i64::try_from(parts.names_bytes_max).unwrap_or(i64::MAX);
        let refusal = match &row.fault {
            None => Refusal::not_read(event_bytes, most),
            Some(fault) => Refusal::unreadable(fault),
        };
        let (owned, saves_wait) = (self.store.owned(), self.store.pause_saves().await);
        let parked = self.parking.parked();
        let done = parked.park_large_row(&owned, row, parts.arrival, &refusal).await?;
        drop(saves_wait);
        if let TakenUp::NoEvent(detail) = done {
            return self.park_bytes(parts, row.place, row.created_at_micros, detail).await;
        }
        self.say_parked(row.id, &refusal);
        // Whoever bears a name that was handed on is too large to be sent, too.
        if let Some((aggregate_type, aggregate_id)) = row.aggregate() {
            self.hold_from((aggregate_type, aggregate_id), row.place, parts.arrival);
        }
        Ok(())
    }

    fn hold_from(
        &mut self,
        (aggregate_type, aggregate_id): (&str, &str),
        place: i64,
        arrival: Arrival,
    ) {
        let shard = self.shard_of(aggregate_id.as_bytes());
        self.publishers[shard].hold(vec![Hold {
            key: AggregateKey::named(aggregate_type, aggregate_id),
            head: IdHead::of(aggregate_id),
            from: HeldFrom::new(place, Standing::Committed(arrival)),
        }]);
    }

    async fn end_large(&mut self, parts: Parts, place: i64, micros: i64) -> Result<()> {
        let detail = match parts.head() {
            Ok(head) => match self.park_event(&parts, &head, place).await? {
                TakenUp::Parked => return Ok(()),
                TakenUp::NoEvent(detail) => detail,
            },
            Err(detail) => detail,
        };
        self.park_bytes(&parts, place, micros, detail).await
    }

    async fn park_event(&mut self, parts: &Parts, head: &Head, place: i64) -> Result<TakenUp> {
        let length = |length: u32| i32::try_from(length).expect("it fits into a message");
        let content = Content::Event {
            texts: length(HEAD_BYTES as u32),
            lengths: head.lengths.map(length),
            has_headers: head.has_headers(),
            has_payload: head.has_payload(),
        };
        let (id, created_at_micros) = (head.id, head.created_at_micros);
        let arrival = parts.arrival;
        let message = LargeMessage { seq: place, id, created_at_micros, arrival, content };
        let detail = format!("the message has {} bytes, more than are read at once", parts.bytes);
        let refusal = Refusal { reason: Reason::TooLarge, detail, topic: None };
        let done = self.park_large(message, &refusal).await?;
        if done == TakenUp::Parked {
            let (aggregate_type, aggregate_id) = parts.aggregate(head);
            self.hold_from((&aggregate_type, &aggregate_id), place, arrival);
        }
        Ok(done)
    }

    /// What is no event is kept as it came.
    async fn park_bytes(
        &mut self,
        parts: &Parts,
        place: i64,
        created_at_micros: i64,
        detail: String,
    ) -> Result<()> {
        let content = Content::Bytes(UNREADABLE_TYPE);
        let (id, arrival) = (id_at(place), parts.arrival);
        let message = LargeMessage { seq: place, id, created_at_micros, arrival, content };
        let refusal = Refusal { reason: Reason::Unreadable, detail, topic: None };
        self.park_large(message, &refusal).await.map(drop)
    }

    async fn park_large(
        &mut self,
        message: LargeMessage<'_>,
        refusal: &Refusal,
    ) -> Result<TakenUp> {
        let (owned, saves_wait) = (self.store.owned(), self.store.pause_saves().await);
        let done = self.parking.parked().park_large(&owned, message, refusal).await?;
        drop(saves_wait);
        if done == TakenUp::Parked {
            self.say_parked(message.id, refusal);
        }
        Ok(done)
    }

    fn say_parked(&mut self, id: EventId, refusal: &Refusal) {
        // The page is to end behind it.
        self.page_events += 1;
        self.parking.say_large(&id, refusal);
    }
}
