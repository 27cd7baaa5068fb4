//! The payments service: takes what an order costs, and gives it back when the order is cancelled.
//!
//! "Takes" adds up: done twice, a customer has paid twice. Nothing in here asks whether it was done before, as the
//! inbox has answered that, in the same transaction.

use anyhow::Result;
use tokio_postgres::Transaction;

use crate::arguments::Service;
use crate::consumer::{Consumer, Effect};
use crate::events::{Answer, Event, ORDER_TOPIC, emit};

/// Serves until the process ends.
pub(crate) async fn serve(service: &Service) {
    Consumer { name: "payments", topics: &[ORDER_TOPIC], service }.run(&MoveMoney).await;
}

struct MoveMoney;

impl Effect for MoveMoney {
    async fn apply(&self, transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()> {
        match event.kind {
            "PaymentRequested" => take(transaction, event).await,
            "OrderCancelled" => refund(transaction, event).await,
            _ => Ok(()),
        }
    }
}

async fn take(transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()> {
    let order = event.order()?;
    let take = include_str!("sql/payments_take.sql");
    let is_there = transaction.execute(take, &[&order.customer, &order.amount_cents]).await? == 1;
    let (state, answer) =
        if is_there { ("taken", "PaymentTaken") } else { ("refused", "PaymentRefused") };
    let remember = include_str!("sql/payments_remember.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&event.order_id, &order.customer, &order.amount_cents, &state];
    transaction.execute(remember, &parameters).await?;
    let payload = Answer { amount_cents: Some(order.amount_cents) };
    emit(transaction, "payment", event.order_id, answer, &payload).await
}

/// The compensation. The cancellation comes behind the request, so what was requested has been taken, or refused.
async fn refund(transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()> {
    let refund = include_str!("sql/payments_refund.sql");
    let Some(row) = transaction.query_opt(refund, &[&event.order_id]).await? else { return Ok(()) };
    let payload = Answer { amount_cents: Some(row.try_get("amount_cents")?) };
    emit(transaction, "payment", event.order_id, "PaymentRefunded", &payload).await
}
