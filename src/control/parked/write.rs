//! How events get into `postrider.parked`, and how another attempt is counted.
//!
//! Promises: as the module above; an event that the relay does not have whole is copied inside the server.
//! Must not: acknowledge what was not written. Fails: as the module above.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::control::parked::escape::{escaped, is_marked};
use crate::control::parked::log_position::StoredArrival;
use crate::control::parked::{Owned, Parked, columns, number, owned_all};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, LendEvent, OrderingKey, OwnedEvent, SeqSource, Whereabouts};
use crate::order::holds::{Reason, Refusal, SetAside};
use crate::postgres::{Lsn, Timestamp, classify, is_about_a_value};
use crate::schema;

const FITS: &str = include_str!("../../../sql/queries/parked_fits.sql");

impl Parked {
    /// Parks events. When it returns, they are on disk.
    ///
    /// # Errors
    /// [`Fenced`](crate::error::ErrorKind::Fenced) when a bucket is not owned any more; the connection's error.
    pub async fn park<R: LendEvent>(&self, owned: &[Owned], events: &[SetAside<R>]) -> Result<()> {
        let alike = |one: &SetAside<R>, other: &SetAside<R>| {
            let (one, other) = (one.row.whereabouts(), other.row.whereabouts());
            std::mem::discriminant(&one) == std::mem::discriminant(&other)
        };
        // In their order: the turn of each is drawn when it is written.
        for run in events.chunk_by(alike) {
            match run[0].row.whereabouts() {
                Whereabouts::Lent => self.write(owned, run).await?,
                Whereabouts::Parked(_) => self.write_again(owned, run).await?,
                Whereabouts::Outbox(_) => self.write_rows(owned, run).await?,
            }
        }
        Ok(())
    }

    /// Those that are here whole. Where the database refuses a text, it is kept in the escape form.
    async fn write<R: LendEvent>(&self, owned: &[Owned], events: &[SetAside<R>]) -> Result<()> {
        let is_taken_for_escaped = |event: &SetAside<R>| {
            let Event { aggregate_type, aggregate_id, kind, headers, .. } = event.row.event();
            let texts = [aggregate_type, aggregate_id, kind, headers.unwrap_or_default()];
            texts.into_iter().any(is_marked)
        };
        if !events.iter().any(is_taken_for_escaped) {
            match self.insert(owned, events).await {
                Err(WriteRefusal::Value(_)) => {}
                Err(WriteRefusal::Other(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        let mut escaped = Vec::with_capacity(events.len());
        for event in events {
            escaped.push(self.escape(event).await?);
        }
        self.insert(owned, &escaped).await.map_err(WriteRefusal::into_error)
    }

    /// The event in texts that the database takes.
    async fn escape<R: LendEvent>(&self, event: &SetAside<R>) -> Result<SetAside<EscapedEvent>> {
        let (lent, ordering_key) = (event.row.event(), event.row.ordering_key());
        let seq_source = event.row.seq_source();
        let headers = match lent.headers {
            Some(headers) => Some(self.fitting(headers).await?),
            None => None,
        };
        let owned = OwnedEvent {
            seq: lent.seq,
            id: lent.id,
            aggregate_type: self.fitting(lent.aggregate_type).await?,
            aggregate_id: self.fitting(lent.aggregate_id).await?,
            kind: self.fitting(lent.kind).await?,
            payload: lent.payload.map(<[u8]>::to_vec),
            headers,
            created_at_micros: lent.created_at_micros,
        };
        let refusal = self.fitting_refusal(&event.refusal).await?;
        let flaw = match event.row.flaw() {
            Some(flaw) => Some(self.fitting_refusal(flaw).await?),
            None => None,
        };
        Ok(SetAside { row: EscapedEvent { event: owned, ordering_key, seq_source, flaw }, refusal })
    }

    async fn fitting_refusal(&self, refusal: &Refusal) -> Result<Refusal> {
        let topic = match &refusal.topic {
            Some(topic) => Some(self.fitting(topic).await?),
            None => None,
        };
        Ok(Refusal { reason: refusal.reason, detail: self.fitting(&refusal.detail).await?, topic })
    }

    /// The text if the database takes it, else its escape form.
    async fn fitting(&self, text: &str) -> Result<String> {
        if is_marked(text) {
            return Ok(escaped(text));
        }
        if text.bytes().all(|byte| (1..=0x7f).contains(&byte)) {
            return Ok(text.to_owned());
        }
        match self.connection.client().query_one(FITS, &[&text]).await {
            Ok(_) => Ok(text.to_owned()),
            Err(cause) if is_about_a_value(&cause) => Ok(escaped(text)),
            Err(cause) => Err(classify("look whether a text can be kept", cause)),
        }
    }

    async fn insert<R: LendEvent>(
        &self,
        owned: &[Owned],
        events: &[SetAside<R>],
    ) -> std::result::Result<(), WriteRefusal> {
        let lent: Vec<(Event<'_>, &SetAside<R>)> =
            events.iter().map(|event| (event.row.event(), event)).collect();
        let (buckets, epochs) = columns(owned);
        let seqs = column(&lent, |event, _| event.seq);
        let ids = column(&lent, |event, _| Uuid::from_bytes(event.id.0));
        let types = column(&lent, |event, _| event.aggregate_type);
        let aggregates = column(&lent, |event, _| event.aggregate_id);
        let kinds = column(&lent, |event, _| event.kind);
        let payloads = column(&lent, |event, _| event.payload);
        let headers = column(&lent, |event, _| event.headers);
        let times = column(&lent, |event, _| Timestamp(event.created_at_micros));
        let reasons = column(&lent, |_, refusal| refusal.reason.name());
        let details = column(&lent, |_, refusal| refusal.detail.as_str());
        let topics = column(&lent, |_, refusal| refusal.topic.as_deref());
        let attempts = column(&lent, |_, refusal| attempts(refusal));
        let arrivals: Vec<StoredArrival> = events.iter().map(log_position_of).collect();
        let commits: Vec<Option<Lsn>> = arrivals.iter().map(StoredArrival::commit).collect();
        let indexes: Vec<Option<i64>> = arrivals.iter().map(StoredArrival::index).collect();
        let faults: Vec<Option<&str>> = events.iter().map(fault_of).collect();
        let parameters: [&(dyn ToSql + Sync); 19] = [
            &buckets,
            &epochs,
            &self.outbox,
            &self.buckets,
            &seqs,
            &ids,
            &types,
            &aggregates,
            &kinds,
            &payloads,
            &headers,
            &times,
            &reasons,
            &details,
            &topics,
            &attempts,
            &commits,
            &indexes,
            &faults,
        ];
        let written =
            self.connection.client().query_one(&self.statements.insert, &parameters).await;
        let written = written.map_err(|cause| WriteRefusal::of("park events", cause))?;
        judge_written(written.get("given"), written.get("ours"), written.get("written"))
            .map_err(WriteRefusal::Other)
    }

    /// Those that lie in the outbox, and come from there.
    async fn write_rows<R: LendEvent>(
        &self,
        owned: &[Owned],
        events: &[SetAside<R>],
    ) -> Result<()> {
        let (buckets, epochs) = columns(owned);
        for SetAside { row, refusal } in events {
            let Whereabouts::Outbox(bucket) = row.whereabouts() else {
                unreachable!("a run is of one kind")
            };
            let event = row.event();
            let (seq, id) = (event.seq, Uuid::from_bytes(event.id.0));
            let parameters: [&(dyn ToSql + Sync); 9] = [
                &buckets,
                &epochs,
                &number(bucket),
                &seq,
                &id,
                &refusal.reason.name(),
                &refusal.detail,
                &refusal.topic,
                &attempts(refusal),
            ];
            let written =
                self.connection.client().query_opt(&self.statements.row, &parameters).await;
            let written = written.map_err(|cause| classify("park a row of the outbox", cause))?;
            let written: i64 = written.ok_or_else(Error::fenced)?.get("written");
            if written == 0 {
                tracing::warn!(seq, %id, "a row to be parked is gone: somebody has deleted it");
            }
        }
        Ok(())
    }

    /// Those that are parked already.
    async fn write_again<R: LendEvent>(
        &self,
        owned: &[Owned],
        events: &[SetAside<R>],
    ) -> Result<()> {
        let turns: Vec<i64> = events.iter().filter_map(|event| turn(&event.row)).collect();
        let refusals: Vec<Refusal> = events.iter().map(|event| event.refusal.clone()).collect();
        match self.count(owned, &turns, &refusals).await {
            Err(WriteRefusal::Value(_)) => {}
            Err(WriteRefusal::Other(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
        let mut fitting = Vec::with_capacity(refusals.len());
        for refusal in &refusals {
            fitting.push(self.fitting_refusal(refusal).await?);
        }
        self.count(owned, &turns, &fitting).await.map_err(WriteRefusal::into_error)
    }

    async fn count(
        &self,
        owned: &[Owned],
        turns: &[i64],
        refusals: &[Refusal],
    ) -> std::result::Result<(), WriteRefusal> {
        let (buckets, epochs) = columns(owned);
        let reasons: Vec<&str> = refusals.iter().map(|refusal| refusal.reason.name()).collect();
        let details: Vec<&str> = refusals.iter().map(|refusal| refusal.detail.as_str()).collect();
        let topics: Vec<Option<&str>> =
            refusals.iter().map(|refusal| refusal.topic.as_deref()).collect();
        let attempts: Vec<i32> = refusals.iter().map(attempts).collect();
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&buckets, &epochs, &turns, &reasons, &details, &topics, &attempts];
        let counted = self.connection.client().query_one(&self.statements.again, &parameters).await;
        let counted = counted.map_err(|cause| WriteRefusal::of("count another attempt", cause))?;
        owned_all(&counted).map_err(WriteRefusal::Other)
    }
}

/// Why a statement failed.
enum WriteRefusal {
    /// Over a value that it was given.
    Value(Error),
    Other(Error),
}

impl WriteRefusal {
    fn of(operation: &str, cause: tokio_postgres::Error) -> Self {
        let is_value = is_about_a_value(&cause);
        let error = classify(operation, cause);
        if is_value { Self::Value(error) } else { Self::Other(error) }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Value(error) | Self::Other(error) => error,
        }
    }
}

/// An event in texts that the database takes.
struct EscapedEvent {
    event: OwnedEvent,
    ordering_key: OrderingKey,
    seq_source: SeqSource,
    flaw: Option<Refusal>,
}

impl LendEvent for EscapedEvent {
    fn event(&self) -> Event<'_> {
        self.event.event()
    }

    fn ordering_key(&self) -> OrderingKey {
        self.ordering_key
    }

    fn seq_source(&self) -> SeqSource {
        self.seq_source
    }

    fn flaw(&self) -> Option<&Refusal> {
        self.flaw.as_ref()
    }
}

fn turn(row: &impl LendEvent) -> Option<i64> {
    match row.whereabouts() {
        Whereabouts::Parked(turn) => Some(turn),
        Whereabouts::Lent | Whereabouts::Outbox(_) => None,
    }
}

/// Whether all events were written. What is missing lies in buckets of others, or the table does what it
/// should not: then nothing may be acknowledged.
fn judge_written(given: i64, ours: i64, written: i64) -> Result<()> {
    if ours < given {
        return Err(Error::fenced());
    }
    if written == given {
        return Ok(());
    }
    let cause = format!("cannot park events: {given} were given, {written} were written");
    Err(Error::new(ErrorKind::Internal, cause).with_remedy(format!(
        "look for triggers, rules and policies on {}, and remove them",
        schema::chosen().of("parked")
    )))
}

fn attempts(refusal: &Refusal) -> i32 {
    i32::from(refusal.reason != Reason::Follows)
}

fn column<'a, R, T>(
    events: &[(Event<'a>, &'a SetAside<R>)],
    value: impl Fn(Event<'a>, &'a Refusal) -> T,
) -> Vec<T> {
    events.iter().map(|(event, set_aside)| value(*event, &set_aside.refusal)).collect()
}

/// What could not be read is not here as it was written: it must not be sent as it lies here.
fn fault_of<R: LendEvent>(event: &SetAside<R>) -> Option<&str> {
    event.row.flaw().map(|flaw| flaw.detail.as_str())
}

fn log_position_of<R: LendEvent>(event: &SetAside<R>) -> StoredArrival {
    StoredArrival::new(event.row.ordering_key().log_position(), event.row.seq_source())
}
