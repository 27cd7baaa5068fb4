//! The ledger of the services without an outbox: orders without an event, and events without an order.

use anyhow::Result;
use hashbrown::HashSet;
use serde::Serialize;
use tokio_postgres::Client;

/// Where they send.
pub(crate) const NAIVE_TOPIC: &str = "naive.order";
/// An order this old whose event is not there will never have one: its sender waits for less.
const SETTLED_SECONDS: f64 = 5.0;
const VARIANTS: [&str; 2] = ["commit-then-send", "send-then-commit"];

/// A service's own list of its orders, and the ways in which they were placed: an order's number begins with its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Book {
    sql: &'static str,
    variants: &'static [&'static str],
}

/// The orders service. Its events may be late, while Kafka is away; in the end none is missing.
pub(crate) const WITH_OUTBOX: Book =
    Book { sql: include_str!("sql/page_orders.sql"), variants: &["order"] };
/// The services that write twice.
pub(crate) const WITHOUT: Book =
    Book { sql: include_str!("sql/naive_orders.sql"), variants: &VARIANTS };

/// What one of the services has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Losses {
    pub(crate) variant: &'static str,
    pub(crate) orders: usize,
    pub(crate) orders_without_event: usize,
    pub(crate) events_without_order: usize,
}

/// A customer's request to each of the services.
pub(crate) fn paths(number: u64) -> [String; 2] {
    VARIANTS.map(|variant| format!("/{variant}/{variant}-{number:06}"))
}

/// Compares. An event is looked for in what is read already. One whose order is not there yet is on its way, unless
/// all is over.
pub(crate) async fn compare(
    database: &Client,
    book: Book,
    events: &HashSet<String>,
) -> Result<Vec<Losses>> {
    let rows = database.query(book.sql, &[&SETTLED_SECONDS]).await?;
    let mut orders = Vec::with_capacity(rows.len());
    for row in &rows {
        orders.push((row.try_get::<_, String>("id")?, row.try_get::<_, bool>("is_settled")?));
    }
    let ids: HashSet<&str> = orders.iter().map(|(id, _)| id.as_str()).collect();
    let losses = |variant: &&'static str| {
        let is_of = |id: &str| id.starts_with(*variant);
        let is_lost = |id: &String| is_of(id) && !events.contains(id);
        Losses {
            variant,
            orders: ids.iter().filter(|id| is_of(id)).count(),
            orders_without_event: orders.iter().filter(|(id, old)| *old && is_lost(id)).count(),
            events_without_order: events
                .iter()
                .filter(|id| is_of(id) && !ids.contains(id.as_str()))
                .count(),
        }
    };
    Ok(book.variants.iter().map(losses).collect())
}
