//! The saga of an order: where it stands, and which steps lead from there.
//!
//! ```text
//!  placed ──stock has it──► reserved ──customer pays──► paying ──money is taken──► paid ──► shipped
//!    │                         │                          │                         │
//!    └── stock is gone         └──── customer cancels ────┴── payment is refused    │ customer cancels
//!               └──────────────────────► cancelled ◄──────────────────────────────┘
//! ```
//!
//! No service calls another, and no lock spans two. `cancelled` is the compensation: on its event the stock gives back
//! what it has laid aside and the payments give back what they have taken, if they have. They need not ask: the event
//! comes behind the one that made them do it, because events of one order arrive in order.

use anyhow::Result;
use tokio_postgres::Transaction;

use crate::events::{Order, emit};

/// A step from some states to one other, and the event that tells of it.
#[derive(Debug)]
pub(crate) struct Step {
    from: &'static [&'static str],
    pub(crate) to: &'static str,
    event: &'static str,
}

/// The event of a new order.
pub(crate) const PLACED: &str = "OrderPlaced";
/// The stock has laid the things aside.
pub(crate) const RESERVE: Step = Step { from: &["placed"], to: "reserved", event: "OrderReserved" };
/// The customer pays.
pub(crate) const PAY: Step = Step { from: &["reserved"], to: "paying", event: "PaymentRequested" };
/// The money is there.
pub(crate) const SETTLE: Step = Step { from: &["paying"], to: "paid", event: "OrderPaid" };
/// The things go out.
pub(crate) const SHIP: Step = Step { from: &["paid"], to: "shipped", event: "OrderShipped" };
/// The customer no longer wants them, or cannot have them.
pub(crate) const CANCEL: Step = Step {
    from: &["placed", "reserved", "paying", "paid"],
    to: "cancelled",
    event: "OrderCancelled",
};

/// Whether an order took a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    Yes,
    /// It stands elsewhere: the step was taken before, or another one came first. Nothing was changed.
    No,
    /// There is no such order, or none that can be seen yet.
    Unknown,
}

/// Takes a step and writes its event, in one transaction.
///
/// The order is locked first, by a statement of its own, and that is not for show. A relay that reads the log may have an
/// event before PostgreSQL shows its rows: a commit is written first and visible a moment later. An answer to that event
/// can be here within that moment. The lock waits for whoever is committing and then sees what was committed; an update
/// alone would look at the old row, find the wrong state and pass the answer over, for ever.
pub(crate) async fn take(
    transaction: &Transaction<'_>,
    order_id: &str,
    step: &Step,
    reason: Option<&str>,
) -> Result<Moved> {
    if transaction.query_opt(include_str!("sql/order_lock.sql"), &[&order_id]).await?.is_none() {
        return Ok(Moved::Unknown);
    }
    let sql = include_str!("sql/order_advance.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&order_id, &step.to, &step.from, &reason];
    let Some(row) = transaction.query_opt(sql, &parameters).await? else {
        return Ok(Moved::No);
    };
    let order = Order {
        customer: row.try_get("customer")?,
        sku: row.try_get("sku")?,
        quantity: row.try_get("quantity")?,
        amount_cents: row.try_get("amount_cents")?,
        reason: row.try_get("reason")?,
    };
    emit(transaction, "order", order_id, step.event, &order).await?;
    Ok(Moved::Yes)
}
