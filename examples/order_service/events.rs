//! What services tell each other, and how a service tells it: by a row in its outbox.

use anyhow::{Context as _, Result};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;

/// The relay's topic for the aggregate type `order`, of which the orders service writes.
pub(crate) const ORDER_TOPIC: &str = "outbox.event.order";
/// For `stock`: what the stock service did for an order.
pub(crate) const STOCK_TOPIC: &str = "outbox.event.stock";
/// For `payment`: what the payments service did for an order.
pub(crate) const PAYMENT_TOPIC: &str = "outbox.event.payment";

/// The payload of each event of an order: whoever reads one event needs no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) sku: String,
    pub(crate) quantity: i32,
    pub(crate) amount_cents: i64,
    /// Why it was cancelled.
    pub(crate) reason: Option<String>,
}

/// The payload of an answer to an order's event.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Answer {
    /// What was taken or given back, if it is about money.
    pub(crate) amount_cents: Option<i64>,
}

/// An event as a consumer gets it.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// The header `type`.
    pub(crate) kind: &'a str,
    /// The record's key: in all three topics it is the order's number.
    pub(crate) order_id: &'a str,
    payload: &'a [u8],
}

impl<'a> Event<'a> {
    /// Of a record that the relay has written.
    pub(crate) fn of(record: &'a OwnedMessage) -> Result<Self> {
        let headers = record.headers().context("a record without headers")?;
        let kind = headers.iter().find(|header| header.key == "type");
        let kind = kind.and_then(|header| header.value).context("a record without a type")?;
        Ok(Self {
            kind: str::from_utf8(kind)?,
            order_id: str::from_utf8(record.key().context("a record without a key")?)?,
            payload: record.payload().context("a record without a value")?,
        })
    }

    /// The payload of an order's event.
    pub(crate) fn order(&self) -> Result<Order> {
        serde_json::from_slice(self.payload).context("the payload is not an order's")
    }
}

/// Writes an event into the outbox, in the transaction that changes the rows it tells of. This one insert is all
/// that a service does to publish: it knows no Kafka, and it cannot fail where the rows do not fail, too.
pub(crate) async fn emit(
    transaction: &Transaction<'_>,
    aggregate_type: &str,
    order_id: &str,
    kind: &str,
    payload: &impl Serialize,
) -> Result<()> {
    let sql = include_str!("sql/outbox_emit.sql");
    let payload = serde_json::to_string(payload)?;
    transaction.execute(sql, &[&aggregate_type, &order_id, &kind, &payload]).await?;
    Ok(())
}
