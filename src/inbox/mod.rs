//! The consumer's side: which records of a poll are new, said in the transaction of their effects.
//!
//! Promises: an event is admitted once, with the transaction that asked, or not at all; whoever else asks meanwhile
//! waits and then knows. Must not: know a Kafka client, or commit. Fails: with the connection's error;
//! [`ErrorKind::Schema`] where `postrider migrate inbox up` has not run.
//!
//! The relay delivers at least once: after a crash an event may come again. A consumer that changes its database
//! drops the repeats in the transaction that makes the change. With the headers `seq` or `position`
//! (`--add-headers seq,position`) that takes one row per aggregate, not one per event.
//!
//! ```no_run
//! use postrider::inbox::{Admission, Inbox, InboxRecord};
//!
//! /// A record as some Kafka client gave it.
//! struct Polled {
//!     topic: String,
//!     key: Vec<u8>,
//!     headers: Vec<(String, Vec<u8>)>,
//!     value: Vec<u8>,
//! }
//!
//! # async fn consume(poll: impl Fn() -> Vec<Polled>, commit_offsets: impl Fn())
//! # -> Result<(), Box<dyn std::error::Error>> {
//! // The consumer's own database; `postrider migrate inbox up` has run there.
//! let (mut client, connection) =
//!     tokio_postgres::connect("postgresql://billing@localhost/billing", tokio_postgres::NoTls).await?;
//! tokio::spawn(connection);
//! let inbox = Inbox::open(&client, "billing").await?;
//! loop {
//!     let polled = poll();
//!     let mut records = Vec::with_capacity(polled.len());
//!     for record in &polled {
//!         let headers = record.headers.iter();
//!         let headers = headers.map(|(name, value)| (name.as_str(), Some(value.as_slice())));
//!         records.push(InboxRecord::of(&record.topic, Some(&record.key), headers)?);
//!     }
//!     let transaction = client.transaction().await?;
//!     let admissions = inbox.admit(&transaction, &records).await?;
//!     for (record, admission) in polled.iter().zip(admissions) {
//!         if admission == Admission::New {
//!             // The effect: in this transaction, once per event.
//!             let sql = "insert into invoice (order_id, document) values ($1, $2)";
//!             transaction.execute(sql, &[&record.key, &record.value]).await?;
//!         }
//!     }
//!     transaction.commit().await?;
//!     // Behind the commit: a crash in between repeats records, and the inbox drops them.
//!     commit_offsets();
//! }
//! # }
//! ```
//!
//! One call of [`Inbox::admit`] per transaction: it locks the rows of all aggregates in one order, so that no two
//! consumers wait for each other; two calls would give that up, and PostgreSQL would end one of the two.

mod record;

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Statement, Transaction};
use uuid::Uuid;

pub use crate::inbox::record::{InboxRecord, REPLAY_HEADER, RecordFault, Replay};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::classify;

const ADMIT: &str = include_str!("../../sql/inbox/admit.sql");
const TURN: &str = include_str!("../../sql/inbox/turn.sql");

/// Whether a record's event is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is: its effect belongs into this transaction.
    New,
    /// It was admitted before.
    Repeat,
}

/// What becomes of a record that is sent once more because somebody asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replays {
    /// It is judged like any other: a consumer that has seen it drops it.
    #[default]
    Judge,
    /// It is new each time. What the inbox remembers stays as it is.
    Admit,
}

/// What one consumer has seen.
#[derive(Debug)]
pub struct Inbox {
    consumer: String,
    replays: Replays,
    admit: Statement,
}

impl Inbox {
    /// Prepares a session on the consumer's database. Each consumer of it has a name, which all of its instances
    /// share; another name begins with nothing seen.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] where the inbox was not made, or the role may not use it; the connection's error.
    pub async fn open(client: &impl GenericClient, consumer: &str) -> Result<Self> {
        let admit = client.prepare(ADMIT).await.map_err(|cause| failed("open the inbox", cause))?;
        Ok(Self { consumer: consumer.to_owned(), replays: Replays::default(), admit })
    }

    /// Sets what becomes of records that somebody asked to be sent once more.
    #[must_use]
    pub fn with_replays(self, replays: Replays) -> Self {
        Self { replays, ..self }
    }

    /// Which of a poll's records are new, in their order. The answer holds if the transaction commits. Of records
    /// with one number, or one id, the first is the event.
    ///
    /// # Errors
    /// The connection's; in REPEATABLE READ and SERIALIZABLE also that the transaction is to be tried again.
    ///
    /// # Panics
    /// Never, unless the function in the database was replaced.
    pub async fn admit(
        &self,
        transaction: &Transaction<'_>,
        records: &[InboxRecord<'_>],
    ) -> Result<Vec<Admission>> {
        let is_judged = |record: &InboxRecord<'_>| {
            self.replays == Replays::Judge || record.replay == Replay::No
        };
        let judged: Vec<&InboxRecord<'_>> =
            records.iter().filter(|record| is_judged(record)).collect();
        let types: Vec<&str> = judged.iter().map(|record| record.aggregate_type).collect();
        let ids: Vec<&str> = judged.iter().map(|record| record.aggregate_id).collect();
        let seqs: Vec<Option<i64>> = judged.iter().map(|record| record.seq).collect();
        let positions: Vec<Option<&str>> = judged.iter().map(|record| record.position).collect();
        let events: Vec<Option<Uuid>> = judged.iter().map(|record| record.id).collect();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&self.consumer, &types, &ids, &seqs, &positions, &events];
        let answer = transaction.query_one(&self.admit, &parameters).await;
        let answer = answer.map_err(|cause| failed("look which records are new", cause))?;
        let is_new: Vec<bool> =
            answer.try_get("is_new").map_err(|cause| failed("read what is new", cause))?;
        assert_eq!(is_new.len(), judged.len(), "admit says something of each record");
        let mut is_new = is_new.into_iter();
        let mut admission = |record| match is_judged(record) && is_new.next() == Some(false) {
            true => Admission::Repeat,
            false => Admission::New,
        };
        Ok(records.iter().map(&mut admission).collect())
    }
}

/// Whether the ring of ids was turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The oldest ids are forgotten.
    Turned,
    /// It is too early, or somebody is in the way: another call will do it.
    NotNow,
}

/// Forgets the oldest ids of events without a number, at most once per period: ids are kept for two periods at least,
/// and three at most. To be called now and then, outside of a transaction.
///
/// # Errors
/// The connection's.
pub async fn turn(client: &tokio_postgres::Client, period: Duration) -> Result<Turn> {
    let turned = client.query_one(TURN, &[&period.as_secs_f64()]).await;
    let turned = turned.map_err(|cause| failed("forget old ids", cause))?;
    Ok(if turned.get("is_turned") { Turn::Turned } else { Turn::NotNow })
}

fn failed(operation: &str, cause: tokio_postgres::Error) -> Error {
    let remedy = match cause.code() {
        Some(&SqlState::UNDEFINED_FUNCTION | &SqlState::INVALID_SCHEMA_NAME) => {
            "run `postrider migrate inbox up` on the consumer's database"
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "grant the role usage on schema postrider_inbox and execute on its functions"
        }
        _ => return classify(operation, cause),
    };
    let message = format!("cannot {operation}: {cause}");
    Error::new(ErrorKind::Schema, message).with_remedy(remedy).with_source(cause)
}
