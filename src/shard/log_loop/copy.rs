//! What comes before the stream: rows of adopted tables that it does not bring.
//!
//! Promises: the stream goes on only when all of them are acknowledged or parked, and noted. Must not: know
//! a table. Fails: with the first error of either side; the copy then begins again, with a new slot.

use crate::capture::adopted::copy::{AdoptedCopy, CopyItem};
use crate::error::Result;
use crate::event::{LogPosition, OrderingKey};
use crate::shard::log_loop::large::Large;
use crate::shard::log_loop::log_pages::{LogPages, SETTLE_ITEMS};
use crate::shard::log_loop::orders::Orders;
use crate::shard::outlet::{OutletSource, sleep_until};

/// How the copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyEnd {
    /// There is nothing left to copy.
    All,
    /// The word to end came before.
    Not,
}

/// Publishes all rows that come before the stream, if there are any.
pub(super) async fn publish_copy(pages: &mut LogPages, orders: &mut Orders) -> Result<CopyEnd> {
    let table = pages.source().progress.table();
    let Some(mut copy) = table.and_then(|table| table.adopted.copy.take()) else {
        return Ok(CopyEnd::All);
    };
    let begins = pages.source().begins;
    pages.wait_until_durable(begins).await?;
    let mut large = Large::default();
    let mut items = 0;
    loop {
        let row = next_copied(&mut copy, pages, orders).await?;
        if orders.are_to_end() {
            copy.give_up().await?;
            return Ok(CopyEnd::Not);
        }
        let Some((item, log_position)) = row else { break };
        match item {
            CopyItem::Event(event) => {
                pages.gather(event, OrderingKey::Committed(log_position)).await?
            }
            CopyItem::Part(part) => {
                if large.is_nothing() {
                    large.begin(log_position, pages).await?;
                }
                large.take(part, pages).await?;
            }
        }
        items += 1;
        if items >= SETTLE_ITEMS {
            items = 0;
            pages.outlet.settle().await?;
            if large.is_nothing() && pages.outlet.is_transaction_due() {
                pages.commit_so_far().await?;
            }
        }
        pages.source().feed_back_when_due().await?;
    }
    finish(copy, pages).await?;
    Ok(CopyEnd::All)
}

/// Notes what was copied, once all of it has landed.
async fn finish(mut copy: AdoptedCopy, pages: &mut LogPages) -> Result<()> {
    // Noted is what whoever reads committed records sees, and nothing else.
    pages.commit_so_far().await?;
    pages.end_page(None).await?;
    pages.outlet.wait_until_landed().await?;
    if pages.outlet.source.commits.is_some() {
        // Where the stream begins, which may lie before what was committed until now.
        pages.outlet.commit_places(&[]).await?;
    }
    let epoch = pages.outlet.store.epoch_of_all()?;
    let table = pages.source().progress.table().expect("what is copied is of tables");
    table.proven.add(copy.take_ids());
    let proven = table.proven.land(0, copy.snapshot());
    for (number, passed) in copy.finish(&proven, epoch).await? {
        table.adopted.passed[number] = passed;
    }
    Ok(())
}

/// The next row of the copy, or none at its end or when the signal to end comes. The first row may take
/// hours, while the server sorts: it hears from us on the stream meanwhile.
async fn next_copied(
    copy: &mut AdoptedCopy,
    pages: &mut LogPages,
    orders: &mut Orders,
) -> Result<Option<(CopyItem, LogPosition)>> {
    loop {
        let (send_at, feedback_at) = (pages.send_at(), pages.source().heartbeat_at());
        let ends_at = pages.outlet.transaction_due_at();
        tokio::select! {
            biased;
            row = copy.next() => return row,
            () = pages.outlet.reported() => pages.outlet.settle().await?,
            () = sleep_until(send_at) => pages.send_all().await?,
            () = sleep_until(ends_at) => pages.commit_so_far().await?,
            () = sleep_until(feedback_at) => pages.source().feed_back().await?,
            changed = orders.changed() => changed?,
        }
        if orders.are_to_end() {
            return Ok(None);
        }
    }
}
