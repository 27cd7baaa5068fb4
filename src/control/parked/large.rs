//! What is too large to be read at once: it is taken up in parts, and parked inside the server. Here messages; rows
//! in `large_row`.
//!
//! Promises: as [`Parked::park`]; no more than a part is in the relay's memory; what breaks off leaves nothing.
//! Must not: decide what is too large. Fails: as [`Parked::park`]; the session is no longer usable then.

use tokio_postgres::types::ToSql;

use crate::control::parked::inside::{Inside, InsideEnd, whole_sql};
use crate::control::parked::log_position::StoredArrival;
use crate::control::parked::{Owned, Parked};
use crate::error::Result;
use crate::event::{EventId, LogPosition, SeqSource};
use crate::order::holds::Refusal;
use crate::postgres::{Sql, Timestamp, classify};

static BEGIN: Sql = Sql::of(include_str!("../../../sql/queries/large_begin.sql"));
static PART: Sql = Sql::of(include_str!("../../../sql/queries/large_part.sql"));
pub(super) const SAVEPOINT: &str = include_str!("../../../sql/queries/large_savepoint.sql");
const BACK: &str = include_str!("../../../sql/queries/large_back.sql");
static PARK: Sql = Sql::of(include_str!("../../../sql/queries/large_park.sql"));
static END: Sql = Sql::of(include_str!("../../../sql/queries/large_end.sql"));

/// What is known of a message that was taken up.
#[derive(Clone, Copy, Debug)]
pub struct LargeMessage<'a> {
    /// Its place in the order of writing.
    pub seq: i64,
    /// Its id.
    pub id: EventId,
    /// Its time.
    pub created_at_micros: i64,
    /// Where it came in the log.
    pub log_position: LogPosition,
    /// What it consists of.
    pub content: Content<'a>,
}

/// What a message that was taken up consists of.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// An event: texts one after the other, then the payload.
    Event {
        /// Where the first text begins.
        texts: i32,
        /// Of `aggregatetype`, `aggregateid`, `type` and headers, in bytes.
        lengths: [i32; 4],
        /// Whether there are headers.
        has_headers: bool,
        /// Whether the rest is a payload.
        has_payload: bool,
    },
    /// Bytes that are none, parked under this kind of aggregate.
    Bytes(&'a str),
}

/// Whether a message could be parked as what it was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenUp {
    /// It is parked.
    Parked,
    /// A text of it is none, in the server's words.
    NoEvent(String),
}

impl Parked {
    /// Begins to take up a message.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn begin_large(&self) -> Result<()> {
        self.say_large(BEGIN.text()).await
    }

    pub(super) async fn say_large(&self, sql: &str) -> Result<()> {
        let done = self.connection.client().batch_execute(sql).await;
        done.map_err(|cause| classify("take up a large event", cause))
    }

    /// Takes up its next part: one of a row's value of this number, or of a message.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn take_up(&self, number: i32, value: u16, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let value = i32::from(value);
        let taken = self.connection.client().execute(PART.text(), &[&number, &value, &bytes]).await;
        taken.map(|_| ()).map_err(|cause| classify("take up a large event", cause))
    }

    /// Parks what was taken up. When it returns, it is on disk; one that is no event can be parked as bytes.
    ///
    /// # Errors
    /// As [`Parked::park`].
    pub async fn park_large(
        &self,
        owned: &[Owned],
        message: LargeMessage<'_>,
        refusal: &Refusal,
    ) -> Result<TakenUp> {
        self.say_large(SAVEPOINT).await?;
        let (kind, texts, lengths, has_headers, has_payload) = match message.content {
            Content::Event { texts, lengths, has_headers, has_payload } => {
                (None, texts, Some(lengths.to_vec()), has_headers, has_payload)
            }
            Content::Bytes(kind) => (Some(kind), 0, None, false, true),
        };
        let LargeMessage { seq, id, log_position, .. } = message;
        let log_position = StoredArrival::new(Some(log_position), SeqSource::Log);
        let one = Inside { seq, id, refusal, fault: None, log_position };
        let at = Timestamp(message.created_at_micros);
        let own: [&(dyn ToSql + Sync); 6] =
            [&at, &texts, &lengths, &kind, &has_headers, &has_payload];
        let sql = whole_sql(PARK.text());
        let end = self.park_inside(&sql, owned, one, &own, "park a large message").await?;
        self.end_large(end).await
    }

    /// Ends the transaction, or goes back to where the parts are if it is a text that cannot be kept.
    pub(super) async fn end_large(&self, end: InsideEnd) -> Result<TakenUp> {
        match end {
            InsideEnd::Parked => {
                self.say_large(END.text()).await?;
                Ok(TakenUp::Parked)
            }
            InsideEnd::Refused(cause) => {
                self.say_large(BACK).await?;
                Ok(TakenUp::NoEvent(cause))
            }
            InsideEnd::Missing => unreachable!("the statement makes one event of the parts"),
        }
    }
}
