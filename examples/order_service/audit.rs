//! The audit: five views of the same orders, which have never seen each other, must agree to the cent.
//!
//! ```text
//!  outbox rows   = records of the topics, each event once, per order in the order in which they were written
//!  orders        = reservations of the stock = payments = read model
//!  each article  : on hand + reserved + shipped = initial
//!  each account  : balance + taken - refunded = opening
//! ```

use std::collections::BTreeMap;

use anyhow::Result;
use hashbrown::{HashMap, HashSet};
use tokio_postgres::Client;

use crate::events::{ORDER_TOPIC, PAYMENT_TOPIC, STOCK_TOPIC};
use crate::stage::Stage;
use crate::topics::{Seen, aside, read_all};

/// The services with an outbox, and the topic of each.
const SOURCES: [(&str, &str); 3] =
    [("orders", ORDER_TOPIC), ("stock", STOCK_TOPIC), ("payments", PAYMENT_TOPIC)];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What does not agree; empty is good.
    pub(crate) differences: Vec<String>,
    pub(crate) orders: usize,
    pub(crate) shipped: usize,
    pub(crate) events: usize,
    /// Records beyond the first of each event.
    pub(crate) repeats: usize,
    /// What shipped orders cost, in cents.
    pub(crate) turnover_cents: i64,
}

impl Findings {
    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            self.differences.push(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }
}

/// Where an order stands, for each of its three owners.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    customer: String,
    sku: String,
    quantity: i32,
    amount_cents: i64,
    state: String,
}

/// Looks at everything.
pub(crate) async fn audit(stage: &Stage) -> Result<Findings> {
    let mut findings = Findings::default();
    let brokers = stage.brokers().to_owned();
    let topics = SOURCES.map(|(_, topic)| topic);
    let records = aside(move || read_all(&brokers, &topics)).await?;
    for (owner, topic) in SOURCES {
        let database = stage.database(owner).await?;
        compare_topic(&database, topic, &records, &mut findings).await?;
    }
    let orders = orders(&stage.database("orders").await?).await?;
    findings.orders = orders.len();
    let shipped = orders.values().filter(|order| order.state == "shipped");
    findings.turnover_cents = shipped.clone().map(|order| order.amount_cents).sum();
    findings.shipped = shipped.count();
    compare_stock(&stage.database("stock").await?, &orders, &mut findings).await?;
    compare_payments(&stage.database("payments").await?, &orders, &mut findings).await?;
    compare_read_model(&stage.database("read-model").await?, &orders, &mut findings).await?;
    Ok(findings)
}

async fn orders(database: &Client) -> Result<BTreeMap<String, Order>> {
    let mut orders = BTreeMap::new();
    for row in database.query(include_str!("sql/audit_orders.sql"), &[]).await? {
        let order = Order {
            customer: row.try_get("customer")?,
            sku: row.try_get("sku")?,
            quantity: row.try_get("quantity")?,
            amount_cents: row.try_get("amount_cents")?,
            state: row.try_get("state")?,
        };
        orders.insert(row.try_get("id")?, order);
    }
    Ok(orders)
}

/// Each committed event is in its topic, no other is, and per order they come in the order of the outbox once repeats
/// are dropped. This is the relay's promise; all others below rest on it.
async fn compare_topic(
    database: &Client,
    topic: &str,
    records: &[Seen],
    findings: &mut Findings,
) -> Result<()> {
    let mut written: HashMap<String, Vec<String>> = HashMap::new();
    for row in database.query(include_str!("sql/audit_outbox.sql"), &[]).await? {
        let id: uuid::Uuid = row.try_get("id")?;
        written.entry(row.try_get("aggregateid")?).or_default().push(id.to_string());
        findings.events += 1;
    }
    let mut arrived: HashMap<String, Vec<String>> = HashMap::new();
    let mut known = HashSet::new();
    for record in records.iter().filter(|record| record.topic == topic) {
        if known.insert(&record.id) {
            arrived.entry(record.key.clone()).or_default().push(record.id.clone());
        } else {
            findings.repeats += 1;
        }
    }
    for (key, ids) in &written {
        let found = arrived.remove(key).unwrap_or_default();
        findings.expect(&format!("events of {key} in {topic}"), &found, ids);
    }
    for (key, ids) in arrived {
        findings
            .differences
            .push(format!("{topic} has events of {key} that nobody wrote: {ids:?}"));
    }
    Ok(())
}

/// What the stock did for an order that stands there.
fn reservation_for(state: &str) -> &'static [&'static str] {
    match state {
        "placed" => &[],
        "reserved" | "paying" | "paid" => &["reserved"],
        "shipped" => &["shipped"],
        _ => &["given_back", "refused"],
    }
}

async fn compare_stock(
    database: &Client,
    orders: &BTreeMap<String, Order>,
    findings: &mut Findings,
) -> Result<()> {
    let mut sums: HashMap<(String, String), i64> = HashMap::new();
    let mut reservations = 0;
    for row in database.query(include_str!("sql/audit_reservations.sql"), &[]).await? {
        let (id, sku): (String, String) = (row.try_get("order_id")?, row.try_get("sku")?);
        let (quantity, state): (i32, String) = (row.try_get("quantity")?, row.try_get("state")?);
        reservations += 1;
        let Some(order) = orders.get(&id) else {
            findings.differences.push(format!("the stock knows {id}, which nobody has placed"));
            continue;
        };
        let what = format!("article and quantity that the stock has for {id}");
        findings.expect(&what, &(&sku, quantity), &(&order.sku, order.quantity));
        if !reservation_for(&order.state).contains(&state.as_str()) {
            let stands = &order.state;
            findings.differences.push(format!("{id} is {stands}, its reservation {state}"));
        }
        *sums.entry((sku, state)).or_default() += i64::from(quantity);
    }
    findings.expect("orders that the stock has answered", &reservations, &orders.len());
    for row in database.query(include_str!("sql/audit_items.sql"), &[]).await? {
        let sku: String = row.try_get("sku")?;
        let number = |column: &str| row.try_get::<_, i64>(column);
        let sum = |state: &str| sums.get(&(sku.clone(), state.to_owned())).copied().unwrap_or(0);
        let (on_hand, reserved, gone) =
            (number("on_hand")?, number("reserved")?, number("shipped")?);
        findings.expect(&format!("{sku} reserved"), &reserved, &sum("reserved"));
        findings.expect(&format!("{sku} shipped"), &gone, &sum("shipped"));
        let total = on_hand + reserved + gone;
        findings.expect(&format!("{sku} in all"), &total, &number("initial")?);
    }
    Ok(())
}

/// What the payments did for an order that stands there.
fn payment_for(state: &str) -> &'static [Option<&'static str>] {
    match state {
        "placed" | "reserved" | "paying" => &[None],
        "paid" | "shipped" => &[Some("taken")],
        _ => &[None, Some("refused"), Some("refunded")],
    }
}

async fn compare_payments(
    database: &Client,
    orders: &BTreeMap<String, Order>,
    findings: &mut Findings,
) -> Result<()> {
    let mut states: HashMap<String, String> = HashMap::new();
    let mut taken_cents = 0;
    for row in database.query(include_str!("sql/audit_payments.sql"), &[]).await? {
        let (id, customer): (String, String) = (row.try_get("order_id")?, row.try_get("customer")?);
        let (amount_cents, state): (i64, String) =
            (row.try_get("amount_cents")?, row.try_get("state")?);
        let Some(order) = orders.get(&id) else {
            findings.differences.push(format!("the payments know {id}, which nobody has placed"));
            continue;
        };
        let what = format!("customer and cents that the payments have for {id}");
        findings.expect(&what, &(&customer, amount_cents), &(&order.customer, order.amount_cents));
        taken_cents += if state == "taken" { amount_cents } else { 0 };
        states.insert(id, state);
    }
    let mut due_cents = 0;
    for (id, order) in orders {
        let state = states.get(id).map(String::as_str);
        if !payment_for(&order.state).contains(&state) {
            let stands = &order.state;
            findings.differences.push(format!("{id} is {stands}, its payment {state:?}"));
        }
        let is_due = matches!(order.state.as_str(), "paid" | "shipped");
        due_cents += if is_due { order.amount_cents } else { 0 };
    }
    findings.expect("cents taken", &taken_cents, &due_cents);
    for row in database.query(include_str!("sql/audit_accounts.sql"), &[]).await? {
        let customer: String = row.try_get("customer")?;
        let (balance, expected): (i64, i64) =
            (row.try_get("balance_cents")?, row.try_get("expected_cents")?);
        findings.expect(&format!("cents of {customer}"), &balance, &expected);
    }
    Ok(())
}

/// A customer's sums in the read model: orders, shipped, cancelled, cents spent.
type Sums = (i64, i64, i64, i64);

async fn compare_read_model(
    database: &Client,
    orders: &BTreeMap<String, Order>,
    findings: &mut Findings,
) -> Result<()> {
    let mut seen = 0;
    for row in database.query(include_str!("sql/audit_order_view.sql"), &[]).await? {
        let id: String = row.try_get("order_id")?;
        let (customer, state): (String, String) = (row.try_get("customer")?, row.try_get("state")?);
        let found = (customer, row.try_get::<_, i64>("amount_cents")?, state);
        let order = orders.get(&id);
        let expected = order.map(|it| (it.customer.clone(), it.amount_cents, it.state.clone()));
        findings.expect(&format!("{id} in the read model"), &Some(found), &expected);
        seen += 1;
    }
    findings.expect("orders of the read model", &seen, &orders.len());
    let mut expected: BTreeMap<String, Sums> = BTreeMap::new();
    for order in orders.values() {
        let sums = expected.entry(order.customer.clone()).or_default();
        sums.0 += 1;
        sums.1 += i64::from(order.state == "shipped");
        sums.2 += i64::from(order.state == "cancelled");
        sums.3 += if order.state == "shipped" { order.amount_cents } else { 0 };
    }
    let mut found: BTreeMap<String, Sums> = BTreeMap::new();
    for row in database.query(include_str!("sql/audit_customer_view.sql"), &[]).await? {
        let number = |column: &str| row.try_get::<_, i64>(column);
        let sums =
            (number("orders")?, number("shipped")?, number("cancelled")?, number("spent_cents")?);
        found.insert(row.try_get("customer")?, sums);
    }
    for (customer, sums) in &expected {
        let found = found.get(customer);
        findings.expect(&format!("sums of {customer}"), &found, &Some(sums));
    }
    findings.expect("customers of the read model", &found.len(), &expected.len());
    Ok(())
}
