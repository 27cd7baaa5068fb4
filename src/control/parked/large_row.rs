//! Rows that are too large to be read at once, of which the large values were taken up in parts.
//!
//! Promises: as [`Parked::park`]; the row is parked whole, or as far as its texts are any. Must not: decide what is
//! too large. Fails: as [`Parked::park`]; the session is no longer usable then.

use tokio_postgres::types::ToSql;

use crate::control::parked::escape::{escaped, is_marked};
use crate::control::parked::inside::{Inside, whole_sql};
use crate::control::parked::large::{SAVEPOINT, TakenUp};
use crate::control::parked::log_position::StoredArrival;
use crate::control::parked::{Owned, Parked};
use crate::error::Result;
use crate::event::{LogPosition, SeqSource};
use crate::order::holds::Refusal;
use crate::postgres::{Sql, Timestamp};
use crate::record::large::{HandedOn, HandedTexts, LargeRow};

static PARK: Sql = Sql::of(include_str!("../../../sql/queries/large_park_row.sql"));

/// How texts are taken that were handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Texts {
    /// As what they are.
    Converted,
    /// As bytes in the escape form, after the server has refused them with these words.
    Escaped,
}

impl Parked {
    /// Parks a row of which values were taken up. When it returns, it is on disk; one that cannot be kept as a row
    /// can be parked as bytes.
    ///
    /// # Errors
    /// As [`Parked::park`].
    pub async fn park_large_row(
        &self,
        owned: &[Owned],
        row: &LargeRow,
        log_position: LogPosition,
        refusal: &Refusal,
    ) -> Result<TakenUp> {
        // What the database gave it takes; one that looks like the escape form is kept in it.
        let stored = |text: &String| if is_marked(text) { escaped(text) } else { text.clone() };
        let here = row.texts().map(|text| text.here().map(stored));
        let first =
            self.try_large_row(owned, (row, &here), log_position, refusal, Texts::Converted);
        let TakenUp::NoEvent(cause) = first.await? else { return Ok(TakenUp::Parked) };
        let unreadable = Refusal::unreadable(&cause);
        self.try_large_row(owned, (row, &here), log_position, &unreadable, Texts::Escaped).await
    }

    async fn try_large_row(
        &self,
        owned: &[Owned],
        (row, here): (&LargeRow, &[Option<String>]),
        log_position: LogPosition,
        refusal: &Refusal,
        texts: Texts,
    ) -> Result<TakenUp> {
        self.say_large(SAVEPOINT).await?;
        let at = Timestamp(row.created_at_micros);
        let handed_on: Vec<Option<&HandedOn>> = row
            .texts()
            .into_iter()
            .map(|text| text.handed_on())
            .chain([row.payload.handed_on()])
            .collect();
        let numbers: Vec<Option<i32>> =
            handed_on.iter().map(|value| value.map(|value| value.number.into())).collect();
        let forms: Vec<Option<&str>> =
            handed_on.iter().map(|value| value.map(|value| value.form.name())).collect();
        let encoding = (row.texts == HandedTexts::Utf8).then_some("UTF8");
        let is_escaped = texts == Texts::Escaped;
        let fault = if is_escaped { Some(refusal.detail.as_str()) } else { row.fault.as_deref() };
        let log_position = StoredArrival::new(Some(log_position), SeqSource::Log);
        let one = Inside { seq: row.place, id: row.id, refusal, fault, log_position };
        let payload = row.payload.here();
        let own: [&(dyn ToSql + Sync); 7] =
            [&at, &here, &payload, &numbers, &forms, &encoding, &is_escaped];
        let sql = whole_sql(PARK.text());
        let end = self.park_inside(&sql, owned, one, &own, "park a large row").await?;
        self.end_large(end).await
    }
}
