//! Parked events of a stream: who holds them, and how they are tried again.
//!
//! Promises: as `crate::shard::parking`; each publisher holds its own aggregates alone.
//! Must not: try anything again while something is in flight. Fails: as [`Reader::run`].

use crate::control::parked::Piece;
use crate::error::Result;
use crate::event::LendEvent;
use crate::order::holds::{AggregateKey, Hold};
use crate::publish::{Batch, Publisher};
use crate::shard::batch::{Outgoing, OutgoingRow};
use crate::shard::log_loop::Reader;

impl Reader {
    /// Each publisher holds its own aggregates, and looks after its own topics.
    pub(super) fn renew(&self, holds: Vec<Hold>, topics: &[String]) {
        for (publisher, holds) in self.publishers.iter().zip(self.deal(holds)) {
            publisher.renew(holds.into_iter().collect(), topics.to_vec());
        }
    }

    fn deal(&self, holds: Vec<Hold>) -> Vec<Vec<Hold>> {
        let mut dealt: Vec<Vec<Hold>> = self.publishers.iter().map(|_| Vec::new()).collect();
        for hold in holds {
            dealt[self.shard_of(hold.head.as_str().as_bytes())].push(hold);
        }
        dealt
    }

    /// Begins anew with what is held, as more of it lies in memory than may. Nothing is in flight then.
    pub(super) async fn lighten(&mut self) -> Result<()> {
        self.wait_until_landed().await?;
        let waiting = self.parking.load(&self.buckets).await?;
        self.renew(waiting.holds.unwrap_or_default(), &waiting.topics);
        Ok(())
    }

    pub(super) async fn look_for_requests(&mut self) -> Result<()> {
        let back: Vec<String> = self.publishers.iter().flat_map(Publisher::topics_back).collect();
        if back.is_empty() && self.parking.next_look().is_none() {
            return Ok(());
        }
        self.parking.look(back, &self.buckets).await
    }

    /// Sends parked events that were asked for, between two transactions.
    pub(super) async fn retry(&mut self) -> Result<()> {
        self.end_page(None).await?;
        self.wait_until_landed().await?;
        let (topics, Piece { requests, events, rest, .. }) =
            self.parking.begin_retry(&self.buckets).await?;
        let keys: Vec<AggregateKey> = requests.into_iter().map(|(_, key)| key).collect();
        for publisher in &self.publishers {
            publisher.resume(topics.clone(), keys.clone());
        }
        let mut outgoing: Vec<Outgoing> =
            self.publishers.iter().map(|_| Outgoing::default()).collect();
        for event in events {
            let shard = self.shard_of(event.event().aggregate_id.as_bytes());
            if outgoing[shard].push(OutgoingRow::Parked(Box::new(event))) {
                self.send_parked(shard, &mut outgoing[shard]).await?;
            }
        }
        for (shard, outgoing) in outgoing.iter_mut().enumerate() {
            self.send_parked(shard, outgoing).await?;
        }
        for (publisher, holds) in self.publishers.iter().zip(self.deal(rest)) {
            if !holds.is_empty() {
                publisher.hold(holds);
            }
        }
        let (owned, saves_wait) = (self.store.owned(), self.store.pause_saves().await);
        self.parking.all_sent(&owned).await?;
        drop(saves_wait);
        if self.parking.looks_up() {
            // What is tried again is not to be found where the others are looked up.
            self.wait_until_landed().await?;
        }
        Ok(())
    }

    async fn send_parked(&mut self, shard: usize, outgoing: &mut Outgoing) -> Result<()> {
        if outgoing.rows.is_empty() {
            return Ok(());
        }
        self.wait_for_room().await?;
        let (rows, bytes) = outgoing.take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.parking.retries(number, &rows);
        self.publishers[shard].send(Batch { number, rows });
        Ok(())
    }
}
