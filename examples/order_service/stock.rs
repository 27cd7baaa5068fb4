//! The stock service: lays aside what was ordered, gives it back or lets it go.
//!
//! It is told by the orders' topic alone and answers by its own outbox, in the transaction that moves the stock. So
//! the answer exists if the stock was moved, and only then.

use anyhow::Result;
use tokio_postgres::Transaction;

use crate::arguments::Service;
use crate::consumer::{Consumer, Effect};
use crate::events::{Answer, Event, ORDER_TOPIC, emit};

/// Serves until the process ends.
pub(crate) async fn serve(service: &Service) {
    Consumer { name: "stock", topics: &[ORDER_TOPIC], service }.run(&MoveStock).await;
}

struct MoveStock;

impl Effect for MoveStock {
    async fn apply(&self, transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()> {
        match event.kind {
            "OrderPlaced" => reserve(transaction, event).await,
            "OrderCancelled" => settle(transaction, event, "given_back", "StockGivenBack").await,
            "OrderShipped" => settle(transaction, event, "shipped", "StockShipped").await,
            _ => Ok(()),
        }
    }
}

async fn reserve(transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()> {
    let order = event.order()?;
    let quantity = i64::from(order.quantity);
    let take = include_str!("sql/stock_take.sql");
    let is_there = transaction.execute(take, &[&order.sku, &quantity]).await? == 1;
    let (state, answer) =
        if is_there { ("reserved", "StockReserved") } else { ("refused", "StockRefused") };
    let remember = include_str!("sql/stock_remember.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&event.order_id, &order.sku, &order.quantity, &state];
    transaction.execute(remember, &parameters).await?;
    emit(transaction, "stock", event.order_id, answer, &Answer { amount_cents: None }).await
}

/// Ends a reservation. An order that has none gets no answer: there is nothing to tell.
async fn settle(
    transaction: &Transaction<'_>,
    event: &Event<'_>,
    state: &str,
    answer: &str,
) -> Result<()> {
    let settle = include_str!("sql/stock_settle.sql");
    if transaction.execute(settle, &[&event.order_id, &state]).await? == 1 {
        emit(transaction, "stock", event.order_id, answer, &Answer { amount_cents: None }).await?;
    }
    Ok(())
}
