//! How far the log is published, as it is committed to Kafka.
//!
//! Promises: what is handed on was committed before; nothing is committed that stands behind a moment in which the stream
//! may have lacked rows. Must not: read the stream. Fails: with the error of PostgreSQL, which is asked where its log is
//! on disk; with that of the premise.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::control::cursors::CursorStore;
use crate::error::{Error, Result};
use crate::event::Bucket;
use crate::order::control_record::{ControlRecord, RecordedPlace};
use crate::order::cursor::Cursor;
use crate::order::saved_cursor::SavedCursor;
use crate::shard::log_loop::log_progress::Landing;

/// An answer to come.
type AnswerToCome = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// By which it is asked whether the stream has brought everything that a cursor passes.
#[derive(Clone)]
pub struct Premise(Arc<dyn Fn(Option<Cursor>) -> AnswerToCome + Send + Sync>);

impl Premise {
    /// One that is asked so.
    pub fn new(ask: impl Fn(Option<Cursor>) -> AnswerToCome + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    async fn holds(&self, cursor: Option<Cursor>) -> Result<()> {
        (self.0)(cursor).await
    }
}

impl fmt::Debug for Premise {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Premise")
    }
}

/// What is committed of all buckets, which one reader has.
#[derive(Debug)]
pub(super) struct LogCommits {
    store: Arc<CursorStore>,
    premise: Premise,
    term: i64,
    /// Where each bucket stands; none of them where there is no table.
    places: HashMap<Bucket, Option<Cursor>>,
    place: RecordedPlace,
    /// Behind which part of a transaction the next record stands, where it does.
    part: Option<RecordedPlace>,
    /// So many pages of the open transaction were looked at.
    pub(super) reckoned: usize,
    ending: Option<Landing>,
}

impl LogCommits {
    pub(super) fn new(
        (store, premise): (Arc<CursorStore>, Premise),
        term: i64,
        places: HashMap<Bucket, Option<Cursor>>,
        commit: u64,
    ) -> Self {
        let place = RecordedPlace { commit, events: 0 };
        Self { store, premise, term, places, place, part: None, reckoned: 0, ending: None }
    }

    /// The next record stands behind a part of a transaction.
    pub(super) fn note_part(&mut self, part: RecordedPlace) {
        self.part = Some(part);
    }

    pub(super) fn is_behind_part(&self) -> bool {
        self.part.is_some()
    }

    /// The records of a transaction that leads so far; or that brings no further.
    pub(super) async fn records(
        &mut self,
        reached: Option<Landing>,
        retried: &[i64],
    ) -> Result<Vec<(Bucket, String)>> {
        if let Some(landing) = &reached {
            self.place = RecordedPlace { commit: landing.place.0, events: 0 };
            if let Some(cursor) = &landing.cursor {
                self.places.values_mut().for_each(|place| *place = Some(cursor.clone()));
            }
        }
        if let Some(part) = self.part.take() {
            self.place = part;
        }
        let cursor = reached.as_ref().and_then(|landing| landing.cursor.clone());
        (self.reckoned, self.ending) = (0, reached);
        // Whatever the stream has let pass unseen, the cursors must not.
        let (history, ()) = tokio::try_join!(self.store.flushed(), self.premise.holds(cursor))?;
        let term = self.term;
        let epochs: HashMap<Bucket, i64> = self.store.owned().into_iter().collect();
        let log = Some(self.place);
        let record = |(bucket, cursor): (&Bucket, &Option<Cursor>)| {
            let epoch = *epochs.get(bucket).ok_or_else(Error::fenced)?;
            let (cursor, retried) = (cursor.as_ref().map(SavedCursor::from), retried.to_vec());
            let record = ControlRecord { term, history, epoch, cursor, log, retried };
            Ok((*bucket, record.encode()))
        };
        self.places.iter().map(record).collect()
    }

    /// The transaction has ended: what is handed on.
    pub(super) fn take_ended(&mut self) -> Option<Landing> {
        self.ending.take()
    }
}
