//! How an event gets into `postrider.parked` of which the relay has only a part: inside the server, by one statement.
//!
//! Promises: as [`Parked::park`]; no large value comes through the relay. Must not: decide what is too large, or which
//! transaction it is done in. Fails: as [`Parked::park`].

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::control::parked::log_position::StoredArrival;
use crate::control::parked::{Owned, Parked, columns};
use crate::error::{Error, Result};
use crate::event::EventId;
use crate::order::holds::Refusal;
use crate::postgres::{Sql, classify, is_about_a_value, without_head};

static INSIDE: Sql = Sql::of(include_str!("../../../sql/queries/parked_inside.sql"));

/// What is known of an event that is parked inside the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside<'a> {
    pub(super) seq: i64,
    pub(super) id: EventId,
    pub(super) refusal: &'a Refusal,
    /// Why it is not parked as it was written, if it is not.
    pub(super) fault: Option<&'a str>,
    /// Where it came in the log, if it did.
    pub(super) log_position: StoredArrival,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InsideEnd {
    Parked,
    /// There is no such event where it was looked for.
    Missing,
    /// The server cannot do it with this event, in its words.
    Refused(String),
}

/// The whole statement: `beginning` says where the values come from.
pub(super) fn whole_sql(beginning: &str) -> String {
    beginning.replace("{inside}", without_head(INSIDE.text()))
}

impl Parked {
    /// Parks it by this statement, which has parameters of its own.
    pub(super) async fn park_inside(
        &self,
        sql: &str,
        owned: &[Owned],
        one: Inside<'_>,
        own: &[&(dyn ToSql + Sync)],
        doing: &'static str,
    ) -> Result<InsideEnd> {
        let failed = |cause| classify(doing, cause);
        let Inside { seq, id, refusal, fault, log_position } = one;
        let (buckets, epochs) = columns(owned);
        let id = Uuid::from_bytes(id.0);
        let (reason, detail) = (refusal.reason.name(), refusal.detail.as_str());
        let (commit, index) = (log_position.commit(), log_position.index());
        let common: [&(dyn ToSql + Sync); 11] = [
            &buckets,
            &epochs,
            &self.outbox,
            &self.buckets,
            &seq,
            &id,
            &reason,
            &detail,
            &fault,
            &commit,
            &index,
        ];
        let parameters = [&common[..], own].concat();
        let answer = match self.connection.client().query_one(sql, &parameters).await {
            Ok(answer) => answer,
            Err(cause) if is_of_the_event(&cause) => {
                return Ok(InsideEnd::Refused(failed(cause).to_string()));
            }
            Err(cause) => return Err(failed(cause)),
        };
        match (answer.get("is_there"), answer.get("is_mine")) {
            (true, true) => Ok(InsideEnd::Parked),
            (true, false) => Err(Error::fenced()),
            (false, _) => Ok(InsideEnd::Missing),
        }
    }
}

/// Whether the server cannot do it with this event, whoever asks: it is about a value, or one takes more memory
/// than the server gives.
fn is_of_the_event(cause: &tokio_postgres::Error) -> bool {
    is_about_a_value(cause) || cause.code() == Some(&SqlState::OUT_OF_MEMORY)
}
