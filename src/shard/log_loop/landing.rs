//! What comes back from Kafka, and how far that lets the stream's place move.
//!
//! Promises: a place is handed on only when all before it is acknowledged or parked.
//! Must not: read the stream, or wait. Fails: with a publisher's first failure, and as parking does.

use std::time::Instant;

use crate::capture::log::decode::Lsn;
use crate::error::Result;
use crate::publish::Publisher;
use crate::shard::log_loop::{Landing, Reader};
use crate::shard::settling;

/// Where a page ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogPlace {
    pub(super) end: Lsn,
    /// The tick whose commit this is.
    pub(super) tick: Option<u64>,
}

impl LogPlace {
    /// Where there are ticks, only theirs are needed.
    pub(super) fn is_covered_by(&self, later: &Self) -> bool {
        later.tick.is_some() || self.tick.is_none()
    }
}

impl Reader {
    /// Takes the reports that are there, parks what was set aside, and hands on how far that leads.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.items = 0;
        let (ledger, parking) = (&mut self.ledger, &mut self.parking);
        settling::take_reports(&self.publishers, ledger, parking, &self.store).await?;
        while let Some(finished) = settling::next_finished(&mut self.ledger, &self.gauge) {
            self.hand_on(finished.place);
        }
        self.hand_on_ticks();
        settling::show(&self.publishers, &self.ledger, &self.parking, &self.gauge);
        if self.laggard.is_too_slow(self.ledger.oldest(), Instant::now()) {
            self.publishers.iter().for_each(Publisher::doubt);
        }
        Ok(())
    }

    /// Where there are ticks, only their places can be saved: a cursor belongs to them.
    fn hand_on(&mut self, place: LogPlace) {
        match (&mut self.table, place.tick) {
            (Some(table), Some(tick)) => table.landed.push_back((tick, place.end)),
            (Some(_), None) => {}
            (None, _) => {
                let landing = Landing { place: place.end, cursor: None, proven: Vec::new() };
                self.course.landed.send_replace(Some(landing));
            }
        }
    }

    pub(super) fn hand_on_ticks(&mut self) {
        let Some(table) = &mut self.table else { return };
        while let Some(landing) = table.next_landing() {
            self.course.landed.send_replace(Some(landing));
        }
    }
}
