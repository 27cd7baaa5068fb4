//! The read model: customers' orders and sums, built from the orders' topic alone.
//!
//! It has never seen the orders' database. That it agrees with it in the end, to the cent, is what "nothing is lost, in
//! order, once" means.

use anyhow::{Context as _, Result};
use tokio_postgres::Transaction;

use crate::arguments::Service;
use crate::consumer::{Consumer, Effect};
use crate::events::{Event, ORDER_TOPIC};

/// Its consumer group.
pub(crate) const NAME: &str = "read-model";

/// Serves until the process ends.
pub(crate) async fn serve(service: &Service) {
    Consumer { name: NAME, topics: &[ORDER_TOPIC], service }.run(&Project).await;
}

struct Project;

impl Effect for Project {
    async fn apply(&self, transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()> {
        if event.kind == "OrderPlaced" {
            let order = event.order()?;
            let placed = include_str!("sql/readmodel_placed.sql");
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                [&event.order_id, &order.customer, &order.amount_cents];
            transaction.execute(placed, &parameters).await?;
            return Ok(());
        }
        let state = state_after(event.kind).with_context(|| format!("no event {}", event.kind))?;
        let moved = include_str!("sql/readmodel_moved.sql");
        let rows = transaction.execute(moved, &[&event.order_id, &state]).await?;
        anyhow::ensure!(rows == 1, "{} of an order that was never placed", event.kind);
        Ok(())
    }
}

fn state_after(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "OrderReserved" => "reserved",
        "PaymentRequested" => "paying",
        "OrderPaid" => "paid",
        "OrderShipped" => "shipped",
        "OrderCancelled" => "cancelled",
        _ => return None,
    })
}
