//! The middle of the way, the same for both loops: what was read goes out to the publishers, and what comes
//! back from Kafka says how far that leads.
//!
//! Promises: a batch leaves the ledger only when each of its events is in Kafka or in `postrider.parked`;
//! what is tried again is sent when nothing is in flight, before anything that is read later; each
//! publisher holds its own aggregates alone. Must not: read events, or know what a place is.
//! Fails: with a publisher's first failure, and as parking does; everything in flight is then forgotten.
//!
//! ```text
//!   rows ── room in the ledger? ── yes ──► held ones looked up ──► a publisher ──► Kafka
//!                  │ no: wait                                          │
//!                  ▼                                                   ▼ reports
//!               settle:  acknowledged ─► ledger          set aside ─► parking, until its batch is the
//!                        a page is done ─► the source                 oldest in flight ─► ledger
//!
//!   retry:   nothing in flight ─► let go ─► send the first parked events ─► hold those that have more
//! ```

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hashbrown::DefaultHashBuilder;

use crate::control::cursors::CursorStore;
use crate::control::parked::{Parked, RetryPage};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Bucket, LendEvent};
use crate::metrics::counters::{Figures, ShardGauge};
use crate::metrics::progress::ShardProgress;
use crate::order::holds::{AggregateKey, Hold, IdHead};
use crate::order::ledger::{Finished, Ledger};
use crate::publish::kafka::producer::Warnings;
use crate::publish::{Batch, Publisher, Report};
use crate::shard::batch::{Outgoing, OutgoingRow};
use crate::shard::parking::Parking;
use crate::shard::transactions::ShardTransactions;

mod commits;

/// Where events come from, as far as the outlet has to do with it.
pub(super) trait OutletSource {
    /// What is reached at the end of a page.
    type Place: std::fmt::Debug;

    /// Takes the pages that are done, in their order. Told at each settling, also when there are none.
    fn hand_on(&mut self, finished: impl Iterator<Item = Finished<Self::Place>>);

    /// When it is to hear from us at the latest, also while Kafka is away; none where nobody listens.
    fn heartbeat_at(&self) -> Option<Instant>;

    /// Lets it hear from us.
    ///
    /// # Errors
    /// As reading from it.
    async fn heartbeat(&mut self) -> Result<()>;

    /// How far these pages lead each bucket, as the last records of their transaction. With these parked events in it
    /// every bucket is named. None where it cannot be said yet: the transaction goes on.
    ///
    /// # Errors
    /// As the place of the log is asked for.
    async fn control_records(
        &mut self,
        landed: &[Finished<Self::Place>],
        retried: &[i64],
    ) -> Result<Option<Vec<(Bucket, String)>>>;
}

/// What an outlet is connected to.
#[derive(Debug)]
pub(super) struct OutletWiring {
    /// Where batches go, one or more, with one wake for all.
    pub(super) publishers: Vec<Publisher<OutgoingRow>>,
    /// Who knows what is owned.
    pub(super) store: Arc<CursorStore>,
    /// Where events go that cannot be published.
    pub(super) parked: Arc<Parked>,
    /// Which warnings were said.
    pub(super) warnings: Arc<Warnings>,
    /// What operators see.
    pub(super) gauge: Arc<ShardGauge>,
}

/// The way from a source to Kafka, and back.
#[derive(Debug)]
pub(super) struct Outlet<S: OutletSource> {
    pub(super) source: S,
    /// Pages are opened and closed by the loop.
    pub(super) ledger: Ledger<S::Place>,
    pub(super) parking: Parking,
    pub(super) store: Arc<CursorStore>,
    /// Where events are delivered exactly once.
    pub(super) transactions: Option<ShardTransactions<S::Place>>,
    publishers: Vec<Publisher<OutgoingRow>>,
    /// Deals aggregates to publishers.
    hasher: DefaultHashBuilder,
    task: OutletTask,
    gauge: Arc<ShardGauge>,
}

/// Whether the loop is at something that ends by itself, and not at waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutletTask {
    None,
    Underway,
}

impl<S: OutletSource> Outlet<S> {
    /// An outlet with nothing in flight.
    pub(super) fn new(wiring: OutletWiring, ledger: Ledger<S::Place>, source: S) -> Self {
        let OutletWiring { publishers, store, parked, warnings, gauge } = wiring;
        assert!(!publishers.is_empty(), "events go somewhere");
        Self {
            source,
            ledger,
            parking: Parking::new(parked, warnings),
            store,
            transactions: None,
            publishers,
            hasher: DefaultHashBuilder::default(),
            task: OutletTask::None,
            gauge,
        }
    }

    /// How many publishers there are.
    pub(super) fn publishers(&self) -> usize {
        self.publishers.len()
    }

    /// The publisher of an aggregate, by how its id begins: of what is held no more is known.
    pub(super) fn publisher_of(&self, aggregate_id: &[u8]) -> usize {
        if self.publishers.len() == 1 {
            return 0;
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(IdHead::cut(aggregate_id));
        (hasher.finish() % self.publishers.len() as u64) as usize
    }

    /// Sends what has gathered for a publisher. There is room for it.
    pub(super) async fn send(&mut self, publisher: usize, outgoing: &mut Outgoing) -> Result<()> {
        assert!(self.ledger.has_room(), "whoever sends has waited for room");
        let held = self.parking.held_among(&outgoing.rows).await?;
        if !held.is_empty() {
            self.publishers[publisher].hold(held);
        }
        let (rows, bytes) = outgoing.take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.note_sent(bytes);
        self.publishers[publisher].send(Batch { number, rows });
        Ok(())
    }

    /// Takes the reports that are there, parks what was set aside, and hands on the pages that this
    /// finishes.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.take_reports()?;
        if self.parking.has_open() {
            self.land_or_press().await?;
        }
        self.hand_on();
        self.show();
        Ok(())
    }

    fn take_reports(&mut self) -> Result<()> {
        for publisher in &self.publishers {
            while let Some(report) = publisher.next_report()? {
                let number = match report {
                    Report::Delivered(number) => number,
                    Report::Ended => {
                        let transactions = self.transactions.as_mut().expect("one was to end");
                        let ended = transactions.take_ended(Instant::now());
                        self.ledger.set_bytes_max(transactions.bytes_max());
                        self.gauge.note_overlong(None);
                        ended.iter().for_each(|page| count_published(page, &self.gauge));
                        self.source.hand_on(ended.into_iter());
                        continue;
                    }
                    Report::Failed(error) => return Err(error),
                };
                while let Some((number, events)) = publisher.next_set_aside() {
                    self.parking.set_aside(number, events);
                }
                if !self.parking.is_unfinished(number) {
                    self.ledger.acknowledge(number);
                    self.gauge.get_on(ShardProgress::acknowledge);
                }
            }
        }
        Ok(())
    }

    /// Nothing is parked while it may be Kafka as a whole that takes nothing; without room that is to be found out
    /// soon.
    async fn land_or_press(&mut self) -> Result<()> {
        let in_suspense = self.publishers.iter().any(Publisher::is_in_suspense);
        self.gauge.in_suspense.store(in_suspense, Ordering::Relaxed);
        if !in_suspense {
            return self.land().await;
        }
        if !self.ledger.has_room() || !self.ledger.has_page_room() {
            self.publishers.iter().for_each(Publisher::press);
        }
        Ok(())
    }

    /// Parks what was set aside, batch by batch, each when all that was sent before is acknowledged.
    async fn land(&mut self) -> Result<()> {
        if self.transactions.is_some() && self.parking.has_retried() {
            // What is taken away has to be there for whoever reads committed records only; and all of it at once.
            let Some(turns) = self.parking.tried_again() else { return Ok(()) };
            self.end_with(&turns).await?;
            self.await_end().await?;
        }
        while let Some(oldest) = self.ledger.oldest()
            && let Some((number, batch)) = self.parking.take(oldest)
        {
            let (owned, _saves_wait) = (self.store.owned(), self.store.pause_saves().await);
            let parked = self.parking.land(&batch, &owned).await?;
            self.ledger.acknowledge_but(number, parked);
        }
        Ok(())
    }

    /// Something is about to be claimed, or to be begun with: until that is done, there is work.
    pub(super) fn begin_task(&mut self) {
        self.task = OutletTask::Underway;
        self.gauge.has_work.store(true, Ordering::Relaxed);
    }

    /// It is done.
    pub(super) fn end_task(&mut self) {
        self.task = OutletTask::None;
    }

    /// Shows how far the slowest of its ranges is on the way to what is there now, on the scale of `seq`.
    pub(super) fn show_course(&self, position: i64, remaining: u64) {
        self.gauge.position.store(position, Ordering::Relaxed);
        self.gauge.remaining.store(remaining, Ordering::Relaxed);
    }

    /// What all shards count together.
    pub(super) fn figures(&self) -> &Figures {
        &self.gauge.instance
    }

    /// Shows what is in flight and what is held.
    fn show(&self) {
        // Where memory does not know all, it knows those that came since.
        let held = (self.held() as u64).max(self.parking.held_in_the_table());
        self.gauge.in_flight_bytes.store(self.ledger.bytes() as u64, Ordering::Relaxed);
        self.gauge.in_flight_events.store(self.ledger.events(), Ordering::Relaxed);
        // A page of the log stays open where nothing comes.
        let has_work = self.task == OutletTask::Underway || self.ledger.batches() > 0;
        self.gauge.has_work.store(has_work, Ordering::Relaxed);
        self.gauge.held_aggregates.store(held, Ordering::Relaxed);
    }

    fn held(&self) -> usize {
        self.publishers.iter().map(Publisher::held).sum()
    }

    /// Waits until a report may be there.
    pub(super) async fn reported(&self) {
        // One wake is all publishers'.
        self.publishers[0].reported().await;
    }

    /// The source, and the wait until a report may be there, side by side.
    pub(super) fn source_and_reported(&mut self) -> (&mut S, impl Future<Output = ()> + '_) {
        (&mut self.source, self.publishers[0].reported())
    }

    /// The same, or until the source is to hear from us, and lets it hear.
    async fn wait(&mut self) -> Result<()> {
        tokio::select! {
            () = self.reported() => Ok(()),
            () = sleep_until(self.source.heartbeat_at()) => self.source.heartbeat().await,
        }
    }

    /// Waits until another batch may be sent.
    pub(super) async fn wait_for_room(&mut self) -> Result<()> {
        while !self.ledger.has_room() {
            self.settle().await?;
            if self.ledger.has_room() {
                break;
            }
            self.wait().await?;
        }
        Ok(())
    }

    /// Waits until nothing is in flight: all pages are done but for an open one.
    pub(super) async fn wait_until_landed(&mut self) -> Result<()> {
        loop {
            self.settle().await?;
            if self.ledger.batches() == 0 {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    /// Begins with what is held in these buckets, as it stands in the table. Nothing is in flight.
    pub(super) async fn load_holds(&mut self, buckets: &[Bucket]) -> Result<()> {
        assert!(self.ledger.batches() == 0, "nothing is in flight");
        let waiting = self.parking.load(buckets).await?;
        let dealt = self.deal(waiting.holds.unwrap_or_default());
        for (publisher, holds) in self.publishers.iter().zip(dealt) {
            publisher.renew(holds.into_iter().collect(), waiting.topics.clone());
        }
        Ok(())
    }

    fn deal(&self, holds: Vec<Hold>) -> Vec<Vec<Hold>> {
        let mut dealt: Vec<Vec<Hold>> = self.publishers.iter().map(|_| Vec::new()).collect();
        for hold in holds {
            dealt[self.publisher_of(hold.head.as_str().as_bytes())].push(hold);
        }
        dealt
    }

    /// From here on this aggregate is held, too: something of it was parked that no batch carried.
    pub(super) fn hold(&self, hold: Hold) {
        let publisher = self.publisher_of(hold.head.as_str().as_bytes());
        self.publishers[publisher].hold(vec![hold]);
    }

    /// Whether more is held than may lie in memory: with nothing in flight, [`Outlet::load_holds`] mends it.
    pub(super) fn is_full(&self) -> bool {
        self.parking.is_full(self.held())
    }

    /// Takes note of topics that are back; whether it is time to look for requests.
    pub(super) fn is_time_to_look(&mut self) -> bool {
        for publisher in &self.publishers {
            self.parking.seem_back(publisher.topics_back());
        }
        self.parking.next_look().is_some_and(|due| due <= Instant::now())
    }

    /// Sends parked events that were asked for. Nothing is in flight, a page is open, and nothing is read
    /// before all of them are on their way.
    pub(super) async fn retry(&mut self, buckets: &[Bucket]) -> Result<()> {
        assert!(self.ledger.batches() == 0, "nothing is in flight");
        let (topics, RetryPage { requests, events, rest, .. }) =
            self.parking.begin_retry(buckets, self.piece_bytes()).await?;
        let keys: Vec<AggregateKey> = requests.into_iter().map(|(_, key)| key).collect();
        for publisher in &self.publishers {
            publisher.resume(topics.clone(), keys.clone());
        }
        let mut outgoing: Vec<Outgoing> =
            self.publishers.iter().map(|_| Outgoing::default()).collect();
        for event in events {
            let publisher = self.publisher_of(event.event().aggregate_id.as_bytes());
            let bytes_max = self.batch_bytes();
            if outgoing[publisher].push(OutgoingRow::Parked(Box::new(event)), bytes_max) {
                self.send_parked(publisher, &mut outgoing[publisher]).await?;
            }
        }
        for (publisher, outgoing) in outgoing.iter_mut().enumerate() {
            self.send_parked(publisher, outgoing).await?;
        }
        for (publisher, holds) in self.publishers.iter().zip(self.deal(rest)) {
            if !holds.is_empty() {
                publisher.hold(holds);
            }
        }
        self.end_retry().await
    }

    async fn send_parked(&mut self, publisher: usize, outgoing: &mut Outgoing) -> Result<()> {
        if outgoing.rows.is_empty() {
            return Ok(());
        }
        self.wait_for_room().await?;
        let (rows, bytes) = outgoing.take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.note_sent(bytes);
        self.parking.retries(number, &rows);
        self.publishers[publisher].send(Batch { number, rows });
        Ok(())
    }

    async fn end_retry(&mut self) -> Result<()> {
        let (owned, saves_wait) = (self.store.owned(), self.store.pause_saves().await);
        self.parking.all_sent(&owned).await?;
        drop(saves_wait);
        if self.parking.looks_up() || self.transactions.is_some() {
            // What is tried again is not to be found where the others are looked up, and nothing is to be in its
            // transaction that no cursor leads behind.
            self.wait_until_landed().await?;
        }
        Ok(())
    }

    /// Takes the publishers down. Their end waits for their threads, and so it is not waited for where
    /// others work.
    pub(super) async fn close(self) -> Result<S> {
        let Self { source, publishers, .. } = self;
        tokio::task::spawn_blocking(move || drop(publishers))
            .await
            .map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?;
        Ok(source)
    }
}

/// The next page that is done, counted.
fn next_finished<P>(ledger: &mut Ledger<P>, gauge: &ShardGauge) -> Option<Finished<P>> {
    let finished = ledger.next_finished()?;
    gauge.parked.fetch_add(finished.parked, Ordering::Relaxed);
    if finished.events > 0 {
        gauge.get_on(ShardProgress::finish_page);
    }
    Some(finished)
}

/// A page is handed on: what of it was published is so for good.
fn count_published<P>(finished: &Finished<P>, gauge: &ShardGauge) {
    gauge.published.fetch_add(finished.events - finished.parked, Ordering::Relaxed);
}

/// Until then, or for ever.
pub(super) async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
