//! What comes back from Kafka: acknowledged, parked, and counted.
//!
//! Promises: a batch leaves the ledger only when each of its events is in Kafka or in
//! `postrider.parked`. Must not: know what a place is, or wait for reports.
//! Fails: with a publisher's first failure, and as parking does.

use std::sync::atomic::Ordering;

use crate::control::cursors::CursorStore;
use crate::error::Result;
use crate::metrics::counters::ShardGauge;
use crate::order::ledger::{Finished, Ledger};
use crate::publish::{Publisher, Report};
use crate::shard::batch::OutgoingRow;
use crate::shard::parking::Parking;

/// Takes the reports that are there, and parks what was set aside.
pub(super) async fn take_reports<P>(
    publishers: &[Publisher<OutgoingRow>],
    ledger: &mut Ledger<P>,
    parking: &mut Parking,
    store: &CursorStore,
) -> Result<()> {
    for publisher in publishers {
        while let Some(report) = publisher.next_report()? {
            let number = match report {
                Report::Delivered(number) => number,
                Report::Failed(error) => return Err(error),
            };
            while let Some((number, events)) = publisher.next_set_aside() {
                parking.set_aside(number, events);
            }
            if !parking.is_unfinished(number) {
                ledger.acknowledge(number);
            }
        }
    }
    if parking.has_open() {
        land(ledger, parking, store).await?;
    }
    Ok(())
}

/// Parks what was set aside, batch by batch, each when all that was sent before is acknowledged.
async fn land<P>(ledger: &mut Ledger<P>, parking: &mut Parking, store: &CursorStore) -> Result<()> {
    while let Some(oldest) = ledger.oldest()
        && let Some((number, batch)) = parking.take(oldest)
    {
        let (owned, _saves_wait) = (store.owned(), store.pause_saves().await);
        let parked = parking.land(&batch, &owned).await?;
        ledger.acknowledge_but(number, parked);
    }
    Ok(())
}

/// The next page that is done, counted.
pub(super) fn next_finished<P>(ledger: &mut Ledger<P>, gauge: &ShardGauge) -> Option<Finished<P>> {
    let finished = ledger.next_finished()?;
    gauge.published.fetch_add(finished.events - finished.parked, Ordering::Relaxed);
    gauge.parked.fetch_add(finished.parked, Ordering::Relaxed);
    Some(finished)
}

/// Shows what is in flight and what is held.
pub(super) fn show<P>(
    publishers: &[Publisher<OutgoingRow>],
    ledger: &Ledger<P>,
    parking: &Parking,
    gauge: &ShardGauge,
) {
    let held: usize = publishers.iter().map(Publisher::held).sum();
    // Where memory does not know all, it knows those that came since.
    let held = (held as u64).max(parking.held_in_the_table());
    gauge.in_flight_bytes.store(ledger.bytes() as u64, Ordering::Relaxed);
    gauge.held_aggregates.store(held, Ordering::Relaxed);
}
