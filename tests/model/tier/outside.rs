//! What instances share: the control tables with the database's clock, and the broker's partitions.
//!
//! Promises: a statement takes effect at once and as a whole; a partition keeps the order in which one
//! producer filled it, and may take a dead producer's last records at any later time.
//! Must not: know what an instance means to do. Fails: never; it takes note of what must not happen.

use std::collections::{BTreeMap, VecDeque};

use postrider::control::lease::plan::Holding;
use postrider::event::Bucket;
use postrider::order::cursor::Cursor;

use super::Violation;

/// Milliseconds since the beginning of the schedule.
pub(crate) type Moment = u64;

#[derive(Debug)]
pub(crate) struct CursorRow {
    pub(crate) epoch: i64,
    pub(crate) owner: Option<String>,
    pub(crate) saved: Cursor,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct InstanceRow {
    pub(crate) renewed_at: Moment,
    pub(crate) lease_until: Moment,
    /// Whether the server still knows the session that holds the lock under this name.
    pub(crate) has_session: bool,
}

#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) cursors: Vec<CursorRow>,
    pub(crate) instances: BTreeMap<String, InstanceRow>,
    /// A partition per bucket.
    pub(crate) partitions: Vec<Vec<i64>>,
    /// What dead producers had sent, and what has not arrived.
    late: Vec<(usize, VecDeque<i64>)>,
}

impl Outside {
    pub(crate) fn new(buckets: usize) -> Self {
        let cursor = || CursorRow { epoch: 0, owner: None, saved: Cursor::initial() };
        Self {
            cursors: (0..buckets).map(|_| cursor()).collect(),
            instances: BTreeMap::new(),
            partitions: vec![Vec::new(); buckets],
            late: Vec::new(),
        }
    }

    pub(crate) fn renew(&mut self, name: &str, now: Moment, lease: Moment) {
        let row = InstanceRow { renewed_at: now, lease_until: now + lease, has_session: true };
        self.instances.insert(name.to_owned(), row);
    }

    pub(crate) fn lose_session(&mut self, name: &str) {
        if let Some(row) = self.instances.get_mut(name) {
            row.has_session = false;
        }
    }

    pub(crate) fn owners(&self) -> Vec<Holding> {
        let holding = |(number, row): (usize, &CursorRow)| Holding {
            bucket: bucket(number),
            epoch: row.epoch,
            owner: row.owner.clone(),
        };
        self.cursors.iter().enumerate().map(holding).collect()
    }

    pub(crate) fn live(&self, own: &str, now: Moment, silence: Moment) -> Vec<String> {
        let lives = |(name, row): &(&String, &InstanceRow)| {
            name.as_str() == own
                || (row.lease_until > now && (row.renewed_at + silence > now || row.has_session))
        };
        self.instances.iter().filter(lives).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn take(
        &mut self,
        name: &str,
        free: &[(Bucket, i64)],
        now: Moment,
        checks_epoch: bool,
    ) -> Vec<(Bucket, i64)> {
        if self.instances.get(name).is_none_or(|row| row.lease_until <= now) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for (bucket, seen) in free {
            let row = &mut self.cursors[index(*bucket)];
            if row.epoch == *seen || !checks_epoch {
                row.epoch += 1;
                row.owner = Some(name.to_owned());
                taken.push((*bucket, row.epoch));
            }
        }
        taken
    }

    pub(crate) fn release(&mut self, name: &str, owned: &[(Bucket, i64)]) {
        for (bucket, epoch) in owned {
            let row = &mut self.cursors[index(*bucket)];
            if row.epoch == *epoch && row.owner.as_deref() == Some(name) {
                row.owner = None;
            }
        }
    }

    /// Saves; false when a bucket is another's.
    pub(crate) fn save(
        &mut self,
        due: &[(Bucket, i64, Cursor)],
        checks_epoch: bool,
    ) -> Result<bool, Violation> {
        let mut all = true;
        for (bucket, epoch, cursor) in due {
            let row = &mut self.cursors[index(*bucket)];
            if checks_epoch && row.epoch != *epoch {
                all = false;
                continue;
            }
            let place = |cursor: &Cursor| (cursor.upto().next, cursor.position());
            if place(cursor) < place(&row.saved) {
                return Err(Violation::WentBack);
            }
            row.saved = cursor.clone();
        }
        Ok(all)
    }

    /// Whether the bucket was taken under this epoch last.
    pub(crate) fn is_owned(&self, bucket: Bucket, epoch: i64) -> bool {
        self.cursors[index(bucket)].epoch == epoch
    }

    pub(crate) fn append(&mut self, partition: usize, seq: i64) {
        self.partitions[partition].push(seq);
    }

    /// A producer is gone; this much of what it had in flight may still arrive.
    pub(crate) fn leave_behind(&mut self, partition: usize, records: VecDeque<i64>) {
        if !records.is_empty() {
            self.late.push((partition, records));
        }
    }

    /// One record of a dead producer arrives, or the rest of them never does.
    pub(crate) fn arrive_late(&mut self, which: u64, gets_lost: bool) {
        let Some(index) = which.checked_rem(self.late.len() as u64) else { return };
        let index = usize::try_from(index).expect("it is below a length");
        let (partition, records) = &mut self.late[index];
        if let Some(seq) = records.pop_front().filter(|_| !gets_lost) {
            self.partitions[*partition].push(seq);
        }
        if gets_lost || self.late[index].1.is_empty() {
            self.late.swap_remove(index);
        }
    }
}

pub(crate) fn bucket(number: usize) -> Bucket {
    Bucket(u16::try_from(number).expect("there are few buckets"))
}

pub(crate) fn index(bucket: Bucket) -> usize {
    usize::from(bucket.0)
}
