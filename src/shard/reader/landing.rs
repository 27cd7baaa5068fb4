//! What comes back from Kafka, and how far that lets the stream's place move.
//!
//! Promises: a place is handed on only when all before it is acknowledged or parked.
//! Must not: read the stream, or wait. Fails: with a publisher's first failure, and as parking does.

use std::sync::atomic::Ordering;

use super::{Landing, LogPlace, Reader};
use crate::error::Result;
use crate::publish::{Publisher, Report};

impl Reader {
    /// Takes the reports that are there, parks what was set aside, and hands on how far that leads.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.items = 0;
        for publisher in &self.publishers {
            while let Some(report) = publisher.next_report()? {
                let number = match report {
                    Report::Delivered(number) => number,
                    Report::Failed(error) => return Err(error),
                };
                while let Some((number, events)) = publisher.next_set_aside() {
                    self.parking.set_aside(number, events);
                }
                if !self.parking.is_unfinished(number) {
                    self.ledger.acknowledge(number);
                }
            }
        }
        if self.parking.has_open() {
            self.land().await?;
        }
        while let Some(finished) = self.ledger.next_finished() {
            let published = finished.events - finished.parked;
            self.gauge.published.fetch_add(published, Ordering::Relaxed);
            self.gauge.parked.fetch_add(finished.parked, Ordering::Relaxed);
            self.hand_on(finished.place);
        }
        self.hand_on_ticks();
        let held: usize = self.publishers.iter().map(Publisher::held).sum();
        self.gauge.in_flight_bytes.store(self.ledger.bytes() as u64, Ordering::Relaxed);
        self.gauge.held_aggregates.store(held as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn land(&mut self) -> Result<()> {
        while let Some(oldest) = self.ledger.oldest()
            && let Some((number, batch)) = self.parking.take(oldest)
        {
            let (owned, _saves_wait) = (self.store.owned(), self.store.pause_saves().await);
            let parked = self.parking.land(&batch, &owned).await?;
            self.ledger.acknowledge_but(number, parked);
        }
        Ok(())
    }

    /// Where there are ticks, only their places can be saved: a cursor belongs to them.
    fn hand_on(&mut self, place: LogPlace) {
        match (&mut self.table, place.tick) {
            (Some(table), Some(tick)) => table.landed.push_back((tick, place.end)),
            (Some(_), None) => {}
            (None, _) => {
                let landing = Landing { place: place.end, cursor: None };
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
