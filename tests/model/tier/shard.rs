//! The shard's steps, its producer's, and the broker's answers.
//!
//! Promises: claims as `src/shard` does, over the real cursor and ledger. Must not: decide who owns what.
//! Fails: with a violation that a step commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider::event::Bucket;
use postrider::order::cursor::Cursor;
use postrider::order::ledger::Ledger;

use super::instance::{Batch, LIMIT, Session, Stepped, World};
use super::outside::index;
use super::{Bug, Violation};
use crate::database::Fate;

const PAGE_ROWS: usize = 3;
const BATCH_ROWS: usize = 2;

impl Session {
    /// One step of the shard.
    pub(super) fn works(
        &mut self,
        stops: bool,
        memory: &mut BTreeMap<Bucket, Cursor>,
        world: &mut World,
    ) -> Result<Stepped, Violation> {
        if self.failed {
            self.replace_producer(world);
            return Ok(Stepped::On);
        }
        self.settle(memory);
        if stops {
            return Ok(Stepped::On);
        }
        let finished = self.ledger.pages_finished();
        self.leaving.retain(|_, pages| *pages > finished);
        let given_up = |bucket: &Bucket| !self.deal.contains(*bucket);
        let leaving: Vec<Bucket> =
            self.cursors.keys().copied().filter(|bucket| given_up(bucket)).collect();
        for bucket in leaving {
            self.cursors.remove(&bucket);
            self.leaving.insert(bucket, self.ledger.pages_opened());
        }
        let joins = self
            .owned
            .keys()
            .copied()
            .find(|bucket| self.deal.contains(*bucket) && !self.has_in_hand(*bucket));
        if let Some(bucket) = joins {
            // Its cursor may not be saved yet; then the save comes first.
            if self.progress.contains_key(&bucket) {
                return self.saves(world);
            }
            return Ok(self.join(bucket, memory, world));
        }
        self.claim(world);
        Ok(Stepped::On)
    }

    fn join(
        &mut self,
        bucket: Bucket,
        memory: &BTreeMap<Bucket, Cursor>,
        world: &World,
    ) -> Stepped {
        let row = &world.outside.cursors[index(bucket)];
        if row.epoch != self.owned[&bucket] {
            return Stepped::Ended;
        }
        let remembered = memory.get(&bucket).filter(|_| world.bug == Bug::KeepsCursors);
        self.cursors.insert(bucket, remembered.unwrap_or(&row.saved).clone());
        Stepped::On
    }

    pub(super) fn replace_producer(&mut self, world: &mut World) {
        self.failed = false;
        for (partition, records) in self.in_flight.iter_mut().enumerate() {
            let records = std::mem::take(records).into_iter().map(|(_, seq)| seq).collect();
            world.outside.leave_behind(partition, records);
        }
        self.queue.clear();
        self.waiting.clear();
        self.acknowledged.clear();
        self.ledger = Ledger::new(LIMIT);
        self.leaving.clear();
        if world.bug != Bug::ResumesWhereItClaimed {
            self.cursors.clear();
        }
    }

    fn settle(&mut self, memory: &mut BTreeMap<Bucket, Cursor>) {
        while let Some(number) = self.acknowledged.pop_front() {
            self.ledger.acknowledge(number);
        }
        while let Some(finished) = self.ledger.next_finished() {
            let (bucket, cursor) = finished.place;
            memory.insert(bucket, cursor.clone());
            let revision = self.progress.get(&bucket).map_or(0, |(_, revision)| revision + 1);
            self.progress.insert(bucket, (cursor, revision));
        }
    }

    fn claim(&mut self, world: &mut World) {
        let tick = Arc::clone(&self.tick);
        let buckets: Vec<Bucket> = self.cursors.keys().copied().collect();
        let Some(place) = world.dice.below(1 << 30).checked_rem(buckets.len() as u64) else {
            return;
        };
        let bucket = buckets[usize::try_from(place).expect("it is below a length")];
        let mut cursor = self.cursors[&bucket].clone();
        if cursor.is_finished() && tick.is_later_than(cursor.upto()) {
            // Nobody forges numbers here.
            cursor.close_window();
            cursor.enter(&tick);
        }
        if cursor.is_finished() || !self.ledger.has_room() {
            self.cursors.insert(bucket, cursor);
            return;
        }
        let count = world.outside.partitions.len();
        let claimed = |row: &&crate::database::Row| {
            row.aggregate % count == index(bucket)
                && matches!(row.fate, Fate::Committed(_))
                && row.seq >= cursor.first()
                && row.seq <= cursor.through()
                && !cursor.from().sees(row.xid)
                && cursor.upto().snapshot.sees(row.xid)
        };
        let rows: Vec<(Bucket, i64)> = world
            .database
            .rows()
            .iter()
            .filter(claimed)
            .take(PAGE_ROWS)
            .map(|row| (bucket, row.seq))
            .collect();
        self.ledger.open_page();
        for rows in rows.chunks(BATCH_ROWS) {
            let number = self.ledger.add_batch(rows.len() as u64, 1);
            self.waiting.insert(number, rows.len());
            self.queue.push_back(Batch { number, rows: rows.to_vec() });
            cursor.advance(rows[rows.len() - 1].1);
        }
        if rows.len() < PAGE_ROWS {
            cursor.finish();
        }
        self.ledger.close_page((bucket, cursor.clone()));
        self.cursors.insert(bucket, cursor);
    }

    /// One batch goes to the producer, if the send deadline lasts.
    pub(super) fn publishes(
        &mut self,
        name: &str,
        world: &mut World,
    ) -> Result<Stepped, Violation> {
        let Some(batch) = self.queue.pop_front() else { return Ok(Stepped::On) };
        if self.failed {
            return Ok(Stepped::On);
        }
        if !self.send_deadline.covers(world.clock()) {
            return Ok(Stepped::Ended);
        }
        for (bucket, seq) in &batch.rows {
            let epoch = self.owned.get(bucket).copied().unwrap_or(-1);
            // Without a session it counts as dead before its lease is over, and does not know yet.
            let has_session = world.outside.instances.get(name).is_some_and(|row| row.has_session);
            if has_session && !world.outside.is_owned(*bucket, epoch) {
                return Err(Violation::Overlap);
            }
            self.in_flight[index(*bucket)].push_back((batch.number, *seq));
        }
        if world.bug == Bug::AcknowledgesBeforeKafka {
            self.waiting.remove(&batch.number);
            self.acknowledged.push_back(batch.number);
        }
        Ok(Stepped::On)
    }

    /// The broker takes one record, and its acknowledgement comes.
    pub(super) fn brokers(&mut self, world: &mut World) -> Stepped {
        let place = world.dice.below(self.in_flight.len() as u64);
        let partition = usize::try_from(place).expect("it is below a length");
        if self.failed {
            return Stepped::On;
        }
        let Some((number, seq)) = self.in_flight[partition].pop_front() else { return Stepped::On };
        world.outside.append(partition, seq);
        if let Some(left) = self.waiting.get_mut(&number) {
            *left -= 1;
            if *left == 0 {
                self.waiting.remove(&number);
                self.acknowledged.push_back(number);
            }
        }
        Stepped::On
    }
}
