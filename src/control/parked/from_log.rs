//! Rows that the log brought in part: they are parked from their table, inside the server.
//!
//! Promises: as [`Parked::park`]; no large value comes through the relay. Must not: decide what is too large.
//! Fails: as [`Parked::park`].

use std::time::Duration;

use tokio_postgres::types::ToSql;

use crate::control::parked::inside::{Inside, InsideEnd, whole_sql};
use crate::control::parked::log_position::StoredArrival;
use crate::control::parked::{Owned, Parked, number};
use crate::error::Result;
use crate::event::{Event, OrderingKey, SeqSource};
use crate::order::holds::Refusal;
use crate::outbox::{InTable, PayloadType};
use crate::postgres::{Sql, classify, fill};

const FROM_LOG: &str = include_str!("../../../sql/queries/parked_from_log.sql");
static SEEN: Sql = Sql::of(include_str!("../../../sql/queries/transaction_seen.sql"));
/// A transaction is in the log before others see it.
const SIGHT_PATIENCE: Duration = Duration::from_secs(10);
const SIGHT_INTERVAL: Duration = Duration::from_millis(50);
const UTF_8: &str = "UTF8";

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromLog {
    /// It is parked, whole.
    Parked,
    /// The table does not have it, or does not give it.
    Missing(String),
}

impl Parked {
    /// Parks a row of the outbox of which only a part is at hand. When it returns, it is on disk.
    ///
    /// # Errors
    /// As [`Parked::park`].
    pub async fn park_from_table(
        &self,
        owned: &[Owned],
        (event, ordering_key): (&Event<'_>, OrderingKey),
        whole: InTable,
        refusal: &Refusal,
    ) -> Result<FromLog> {
        self.wait_until_seen(whole).await?;
        let sql = self.sql_of(whole);
        let cuts = whole.cuts;
        let uncut = |is_cut: bool, text| Some(text).filter(|_| !is_cut);
        let names = [
            uncut(cuts.aggregate_type, event.aggregate_type),
            uncut(cuts.aggregate_id, event.aggregate_id),
            uncut(cuts.kind, event.kind),
            event.headers.filter(|_| !cuts.headers),
        ];
        let parts = [event.aggregate_type, event.aggregate_id, event.kind].map(Some).into_iter();
        let parts: Vec<Option<&str>> = parts.chain([event.headers]).collect();
        let mut failure = String::new();
        // What does not convert is kept as it lies there.
        for (names, encoding) in [(&names[..], Some(UTF_8)), (&parts[..], None)] {
            let [kind, id, name, headers] = *names else { unreachable!("there are four") };
            let given = (sql.as_str(), [kind, id, name, headers], encoding);
            match self.try_from_table(owned, (event, ordering_key), whole, refusal, given).await {
                Ok(None) => return Ok(FromLog::Parked),
                Ok(Some(missing)) => failure = missing,
                Err(error) => return Err(error),
            }
        }
        Ok(FromLog::Missing(failure))
    }

    /// What is in the way; none when it is parked.
    async fn try_from_table(
        &self,
        owned: &[Owned],
        (event, ordering_key): (&Event<'_>, OrderingKey),
        whole: InTable,
        refusal: &Refusal,
        (sql, [kind, id, name, headers], encoding): (&str, [Option<&str>; 4], Option<&str>),
    ) -> Result<Option<String>> {
        let fault = if encoding.is_none() { Some(refusal.detail.as_str()) } else { None };
        // What lies in the table is a row of it.
        let log_position = StoredArrival::new(ordering_key.log_position(), SeqSource::Table);
        let one = Inside { seq: event.seq, id: event.id, refusal, fault, log_position };
        let bucket = number(whole.bucket);
        let own: [&(dyn ToSql + Sync); 6] = [&bucket, &kind, &id, &name, &headers, &encoding];
        match self.park_inside(sql, owned, one, &own, "park a large event").await? {
            InsideEnd::Parked => Ok(None),
            InsideEnd::Refused(cause) => Ok(Some(cause)),
            InsideEnd::Missing => Ok(Some("the row is not in the table any more".to_owned())),
        }
    }

    /// Waits until whoever reads from now on sees what the row's transaction has written. What is not there then is gone.
    async fn wait_until_seen(&self, whole: InTable) -> Result<()> {
        let Some(txid) = whole.written_by else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + SIGHT_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let answer =
                self.connection.client().query_one(SEEN.text(), &[&txid.to_string()]).await;
            let answer = answer.map_err(|cause| classify("look for a large event", cause))?;
            if answer.get("is_seen") {
                break;
            }
            tokio::time::sleep(SIGHT_INTERVAL).await;
        }
        Ok(())
    }

    fn sql_of(&self, whole: InTable) -> String {
        // Each names the last parameter, as a statement must.
        let payload = match self.table.payload {
            PayloadType::Bytea => "case when $17::text is null then payload else payload end",
            PayloadType::Json | PayloadType::Jsonb | PayloadType::Text => {
                "convert_to(payload::text, coalesce($17::text, getdatabaseencoding())::name)"
            }
        };
        let table = self.table.bucket_table(whole.bucket);
        let places = [("{payload}", payload), ("{bucket_table}", table.as_str())];
        whole_sql(&fill(FROM_LOG, &places))
    }
}
