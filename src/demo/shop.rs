//! The shop: an application that writes orders, and events in the same transactions.
//!
//! Promises: the check is told of every transaction that wrote an event, with its events and its
//! fate; after a stop all transactions have ended. Must not: know the relay or Kafka.
//! Fails: with PostgreSQL's words; what then became of a commit is told as unknown.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::try_join;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use crate::demo::check::{Check, Ending, WrittenEvent};
use crate::demo::schedule::{Customer, Job, ShopIntent, ShopSchedule, ShopWork};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;
use crate::postgres::classify;
use postrider_testkit::audit::Fate;

const SHOP: &str = include_str!("../../sql/demo/shop.sql");
const CUSTOMER_REGISTER: &str = include_str!("../../sql/demo/customer_register.sql");
const ORDER_PLACE: &str = include_str!("../../sql/demo/order_place.sql");
const ORDER_LINE: &str = include_str!("../../sql/demo/order_line.sql");
const ORDER_LOCK: &str = include_str!("../../sql/demo/order_lock.sql");
const ORDER_STEP: &str = include_str!("../../sql/demo/order_step.sql");
const EVENT: &str = include_str!("../../sql/demo/event.sql");

/// The topics that the shop's events go to.
pub(super) const TOPICS: &[&str] = &["outbox.event.order", "outbox.event.customer"];

/// How many events per second one connection is trusted with; commits wait for the disk.
const EVENTS_PER_CONNECTION: u32 = 150;
const CONNECTIONS: std::ops::RangeInclusive<u32> = 4..=48;
/// A connection that sleeps looks this often whether the shop closes.
const NAP: Duration = Duration::from_millis(100);
const PRODUCTS: [(&str, i64); 5] =
    [("lamp", 4_900), ("chair", 12_900), ("desk", 39_900), ("shelf", 8_900), ("rug", 15_900)];

type PostgresResult<T> = std::result::Result<T, tokio_postgres::Error>;
type Parameter<'a> = &'a (dyn ToSql + Sync);

/// A connection of an application, which closes when it is dropped.
struct ShopSession {
    client: Client,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ShopSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(url: &str) -> Result<ShopSession> {
    let connecting = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) =
        connecting.map_err(|cause| classify("connect the demo's shop", cause))?;
    let task = tokio::spawn(async move {
        // The client's next call fails with the same cause, and that is where it is told.
        if let Err(cause) = connection.await {
            tracing::debug!("the shop's connection ended: {cause}");
        }
    });
    Ok(ShopSession { client, task })
}

/// Makes the shop's tables.
pub(super) async fn build(url: &str) -> Result<()> {
    let session = connect(url).await?;
    let built = session.client.batch_execute(SHOP).await;
    built.map_err(|cause| classify("make the shop's tables", cause))
}

/// The open shop.
#[derive(Debug)]
pub(super) struct Shop {
    counter: Arc<Counter>,
    connections: JoinSet<Result<()>>,
}

/// What the connections share.
#[derive(Debug)]
struct Counter {
    schedule: Mutex<ShopSchedule>,
    check: Arc<Check>,
    closing: AtomicBool,
    late_micros: Arc<AtomicU64>,
}

/// How far the shop is behind its schedule.
#[derive(Clone, Debug)]
pub(super) struct Lateness(Arc<AtomicU64>);

impl Lateness {
    /// As of the last transaction that began.
    pub(super) fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

impl Shop {
    /// Opens the connections and begins to write.
    pub(super) async fn open(url: &str, rate: u32, check: Arc<Check>) -> Result<Self> {
        let count =
            rate.div_ceil(EVENTS_PER_CONNECTION).clamp(*CONNECTIONS.start(), *CONNECTIONS.end());
        let mut clerks = Vec::new();
        for _ in 0..count {
            clerks.push(Clerk::connect(url).await?);
        }
        let counter = Arc::new(Counter {
            schedule: Mutex::new(ShopSchedule::new(Instant::now(), rate)),
            check,
            closing: AtomicBool::new(false),
            late_micros: Arc::default(),
        });
        let mut connections = JoinSet::new();
        for clerk in clerks {
            connections.spawn(clerk.run(Arc::clone(&counter)));
        }
        Ok(Self { counter, connections })
    }

    /// How far the shop is behind its schedule.
    pub(super) fn lateness(&self) -> Lateness {
        Lateness(Arc::clone(&self.counter.late_micros))
    }

    /// Waits until a connection fails.
    pub(super) async fn failure(&mut self) -> Error {
        loop {
            match self.connections.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(cause)) => return Error::new(ErrorKind::Internal, cause.to_string()),
                None => return std::future::pending().await,
            }
        }
    }

    /// Ends after the transactions that are open now.
    pub(super) async fn close(mut self) -> Result<()> {
        self.counter.closing.store(true, Ordering::Release);
        let mut outcome = Ok(());
        while let Some(ended) = self.connections.join_next().await {
            let ended = ended.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()));
            // The first cause is told; all connections are waited for.
            outcome = outcome.and(ended.and_then(|ended| ended));
        }
        outcome
    }
}

impl Counter {
    fn schedule(&self) -> MutexGuard<'_, ShopSchedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job when it is due; none when the shop closes.
    async fn next(&self) -> Option<Job> {
        let job = self.schedule().next();
        loop {
            if self.closing.load(Ordering::Acquire) {
                return None;
            }
            let wait = job.due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                let late = job.due.elapsed().as_micros() as u64;
                self.late_micros.store(late, Ordering::Relaxed);
                return Some(job);
            }
            tokio::time::sleep(wait.min(NAP)).await;
        }
    }
}

/// An event before it is written.
struct NewEvent {
    id: Uuid,
    aggregate_type: &'static str,
    aggregate_id: String,
    kind: &'static str,
    payload: String,
    number: i64,
}

impl NewEvent {
    fn of_order(order: i64, kind: &'static str, number: i64, payload: &serde_json::Value) -> Self {
        Self {
            id: Uuid::new_v4(),
            aggregate_type: "order",
            aggregate_id: format!("order-{order}"),
            kind,
            payload: payload.to_string(),
            number,
        }
    }

    fn written(&self) -> WrittenEvent {
        WrittenEvent {
            id: EventId(self.id.into_bytes()),
            aggregate_id: self.aggregate_id.clone(),
            number: self.number.cast_unsigned(),
        }
    }
}

/// One connection with its statements.
struct Clerk {
    session: ShopSession,
    customer_register: Statement,
    order_place: Statement,
    order_line: Statement,
    order_lock: Statement,
    order_step: Statement,
    event: Statement,
}

impl Clerk {
    async fn connect(url: &str) -> Result<Self> {
        let session = connect(url).await?;
        let client = &session.client;
        let prepared = try_join!(
            client.prepare(CUSTOMER_REGISTER),
            client.prepare(ORDER_PLACE),
            client.prepare(ORDER_LINE),
            client.prepare(ORDER_LOCK),
            client.prepare(ORDER_STEP),
            client.prepare(EVENT),
        );
        let (customer_register, order_place, order_line, order_lock, order_step, event) =
            prepared.map_err(|cause| classify("prepare the shop's statements", cause))?;
        Ok(Self {
            session,
            customer_register,
            order_place,
            order_line,
            order_lock,
            order_step,
            event,
        })
    }

    async fn run(self, counter: Arc<Counter>) -> Result<()> {
        while let Some(job) = counter.next().await {
            let ended = self.transact(&job, &counter.check).await;
            let committed = matches!(ended, Ok(Fate::Committed));
            match job.work {
                ShopWork::Place { order, .. } if committed => counter.schedule().placed(order),
                ShopWork::Advance { order } if !committed => counter.schedule().not_advanced(order),
                ShopWork::Place { .. } | ShopWork::Advance { .. } => {}
            }
            ended.map_err(|cause| classify("write orders", cause))?;
        }
        Ok(())
    }

    /// One transaction, from its begin to the check's knowledge of its end.
    async fn transact(&self, job: &Job, check: &Check) -> PostgresResult<Fate> {
        let written = match job.work {
            ShopWork::Place { order, customer } => self.place(order, customer).await,
            ShopWork::Advance { order } => self.advance(order).await,
        };
        // Without a commit there is nothing that could arrive.
        let events = written?.iter().map(NewEvent::written).collect();
        let sent_at = Instant::now();
        let client = &self.session.client;
        let (fate, outcome) = match job.intent {
            ShopIntent::RollBack => (Fate::RolledBack, client.batch_execute("rollback").await),
            ShopIntent::Commit => match client.batch_execute("commit").await {
                Ok(()) => (Fate::Committed, Ok(())),
                Err(cause) => (Fate::Unknown, Err(cause)),
            },
        };
        check.transaction_ended(&Ending { events, fate, sent_at });
        outcome.map(|()| fate)
    }

    /// Writes an order with its lines and its event, and the new customer's where there is one.
    async fn place(&self, order: i64, customer: Customer) -> PostgresResult<Vec<NewEvent>> {
        let (product, price_cents) = PRODUCTS[order.cast_unsigned() as usize % PRODUCTS.len()];
        let quantity = i32::try_from(1 + order % 3).expect("at most three");
        let total_cents = price_cents * i64::from(quantity);
        let client = &self.session.client;
        client.batch_execute("begin").await?;
        let mut events = Vec::new();
        let number = match customer {
            Customer::Known(number) => number,
            Customer::New(number) => {
                events.push(self.register(number).await?);
                number
            }
        };
        let payload = json!({
            "order": order, "customer": number, "total_cents": total_cents,
            "lines": [{"product": product, "quantity": quantity, "price_cents": price_cents}],
        });
        let placed = NewEvent::of_order(order, "OrderPlaced", 1, &payload);
        let order_values: [Parameter<'_>; 3] = [&order, &number, &total_cents];
        let line_values: [Parameter<'_>; 5] = [&order, &1_i16, &product, &quantity, &price_cents];
        // Sent together; PostgreSQL runs them in this order.
        try_join!(
            client.execute(&self.order_place, &order_values),
            client.execute(&self.order_line, &line_values),
            self.emit(&placed),
        )?;
        events.push(placed);
        Ok(events)
    }

    async fn register(&self, number: i64) -> PostgresResult<NewEvent> {
        let name = format!("Customer {number}");
        let event = NewEvent {
            id: Uuid::new_v4(),
            aggregate_type: "customer",
            aggregate_id: format!("customer-{number}"),
            kind: "CustomerRegistered",
            payload: json!({"customer": number, "name": name}).to_string(),
            number: 1,
        };
        let values: [Parameter<'_>; 2] = [&number, &name];
        let client = &self.session.client;
        try_join!(client.execute(&self.customer_register, &values), self.emit(&event))?;
        Ok(event)
    }

    /// Locks the order, then takes it one step further and says so.
    async fn advance(&self, order: i64) -> PostgresResult<Vec<NewEvent>> {
        let client = &self.session.client;
        let lock_values: [Parameter<'_>; 1] = [&order];
        let (_, row) = try_join!(
            client.batch_execute("begin"),
            client.query_one(&self.order_lock, &lock_values),
        )?;
        let (status, version, total_cents): (&str, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let (next, kind) = match status {
            "placed" => ("paid", "OrderPaid"),
            "paid" => ("shipped", "OrderShipped"),
            _ => return Ok(Vec::new()),
        };
        let payload = json!({"order": order, "status": next, "total_cents": total_cents});
        let event = NewEvent::of_order(order, kind, version + 1, &payload);
        let step_values: [Parameter<'_>; 2] = [&order, &next];
        try_join!(client.execute(&self.order_step, &step_values), self.emit(&event))?;
        Ok(vec![event])
    }

    async fn emit(&self, event: &NewEvent) -> PostgresResult<u64> {
        let values: [Parameter<'_>; 5] =
            [&event.id, &event.aggregate_type, &event.aggregate_id, &event.kind, &event.payload];
        self.session.client.execute(&self.event, &values).await
    }
}
