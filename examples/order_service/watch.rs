//! The observer: twice a second it looks into every database and every topic, and keeps what the page shows.
//!
//! It has rights that no service has. Nothing depends on it: while PostgreSQL or Kafka is away it shows what it saw
//! last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use hashbrown::{HashMap, HashSet};
use serde::Serialize;
use tokio_postgres::Client;

use crate::customers::Customers;
use crate::events::{ORDER_TOPIC, PAYMENT_TOPIC, STOCK_TOPIC};
use crate::ledger::{self, Losses, NAIVE_TOPIC};
use crate::stage::Stage;
use crate::topics::{Groups, Reader, Seen, aside};

const LOOK: Duration = Duration::from_millis(500);
const LAST_ORDERS: i64 = 12;
/// The answers of so long are measured.
const LATENCY_WINDOW: Duration = Duration::from_secs(10);

/// What the page shows.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct View {
    pub(crate) seconds: u64,
    pub(crate) placed: u64,
    pub(crate) ended: u64,
    pub(crate) asked_again: u64,
    /// The answers to new orders, in milliseconds: median and 99th percentile of the last seconds.
    pub(crate) latency_ms: Option<(f64, f64)>,
    /// Who was killed how often.
    pub(crate) kills: Vec<(&'static str, u32)>,
    /// Events that were written, by service.
    pub(crate) written: BTreeMap<&'static str, i64>,
    /// Events and repeats, by topic.
    pub(crate) topics: BTreeMap<String, TopicView>,
    pub(crate) consumers: BTreeMap<&'static str, ConsumerView>,
    pub(crate) sagas: Vec<SagaView>,
    pub(crate) last_orders: Vec<OrderView>,
    pub(crate) losses: Vec<Losses>,
    pub(crate) journal: Vec<String>,
    pub(crate) is_slow: bool,
    /// How the relays read.
    pub(crate) capture: &'static str,
    /// The end: what the audit said.
    pub(crate) verdict: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct TopicView {
    pub(crate) events: u64,
    pub(crate) repeats: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct ConsumerView {
    pub(crate) admitted: i64,
    pub(crate) repeats: i64,
    /// Records that wait in Kafka.
    pub(crate) lag: i64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SagaView {
    state: String,
    reason: Option<String>,
    orders: i64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct OrderView {
    id: String,
    customer: String,
    sku: String,
    quantity: i32,
    amount_cents: i64,
    state: String,
    reason: Option<String>,
    /// As they arrived, without repeats.
    events: Vec<String>,
}

/// What was seen in topics so far.
#[derive(Debug, Default)]
struct Memory {
    ids: HashSet<String>,
    events_by_order: HashMap<String, Vec<String>>,
    /// Keys of the events that tell of a new order, with and without an outbox.
    placed: HashSet<String>,
    topics: BTreeMap<String, TopicView>,
}

impl Memory {
    fn learn(&mut self, record: Seen) {
        let topic = self.topics.entry(record.topic.clone()).or_default();
        if record.topic == NAIVE_TOPIC {
            topic.events += 1;
            self.placed.insert(record.key);
            return;
        }
        if !self.ids.insert(record.id) {
            topic.repeats += 1;
            return;
        }
        topic.events += 1;
        if record.kind == crate::saga::PLACED {
            self.placed.insert(record.key.clone());
        }
        self.events_by_order.entry(record.key).or_default().push(record.kind);
    }
}

/// The observer's post.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) stage: Arc<Stage>,
    pub(crate) customers: Arc<Customers>,
    pub(crate) view: Mutex<View>,
}

impl Watch {
    /// Looks until it is aborted.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            if let Err(error) = self.session().await {
                self.update(|view| view.journal.push(format!("cannot see: {error:#}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn session(&self) -> Result<()> {
        let begin = Instant::now();
        let brokers = self.stage.brokers().to_owned();
        let topics = [ORDER_TOPIC, STOCK_TOPIC, PAYMENT_TOPIC, NAIVE_TOPIC];
        let clients = aside(move || Ok((Reader::new(&brokers, &topics)?, Groups::new(&brokers)?)));
        let (mut reader, mut groups) = clients.await?;
        let mut memory = Memory::default();
        let mut databases = None;
        loop {
            tokio::time::sleep(LOOK).await;
            self.look_at_ourselves(begin);
            let looked = aside(move || {
                let mut seen = Vec::new();
                let read = reader.read_to_end(&mut seen);
                let lags = read.and_then(|()| groups.lags(&reader));
                Ok((reader, groups, seen, lags))
            });
            let (seen, lags);
            (reader, groups, seen, lags) = looked.await?;
            seen.into_iter().for_each(|record| memory.learn(record));
            self.update(|view| view.topics.clone_from(&memory.topics));
            // Without, Kafka is away, or was a moment ago.
            if let Ok(lags) = lags {
                self.update(|view| {
                    for (name, lag) in lags {
                        view.consumers.entry(name).or_default().lag = lag;
                    }
                });
            }
            let all = match databases.take() {
                Some(all) => Ok(all),
                None => Databases::open(&self.stage).await,
            };
            // PostgreSQL is away, or was a moment ago.
            if let Ok(all) = all
                && self.look_into(&all, &memory).await.is_ok()
            {
                databases = Some(all);
            }
        }
    }

    fn look_at_ourselves(&self, begin: Instant) {
        let (figures, now) = (&self.customers.figures, Instant::now());
        let window = now.checked_sub(LATENCY_WINDOW).unwrap_or(begin);
        let milliseconds = |latency: Duration| latency.as_secs_f64() * 1_000.0;
        self.update(|view| {
            let [placed, ended, asked_again] = figures.counts();
            (view.placed, view.ended, view.asked_again) = (placed, ended, asked_again);
            view.seconds = begin.elapsed().as_secs();
            let latency = figures.latency(window, now);
            view.latency_ms = latency.map(|(p50, p99)| (milliseconds(p50), milliseconds(p99)));
            view.kills = self.stage.kills();
            view.journal = self.stage.journal();
            view.is_slow = self.stage.is_slow();
            view.capture = self.stage.capture();
        });
    }

    async fn look_into(&self, databases: &Databases, memory: &Memory) -> Result<()> {
        let mut written = BTreeMap::new();
        let mut consumers = HashMap::new();
        for (name, client) in &databases.services {
            if *name != crate::read_model::NAME {
                let row = client.query_one(include_str!("sql/page_outbox.sql"), &[]).await?;
                written.insert(*name, row.try_get("events")?);
            }
            let row = client.query_one(include_str!("sql/page_figures.sql"), &[]).await?;
            consumers.insert(*name, (row.try_get("admitted")?, row.try_get("repeats")?));
        }
        let orders = &databases.services[0].1;
        let sagas = sagas(orders).await?;
        let last_orders = last_orders(orders, memory).await?;
        let losses = databases.losses(&memory.placed).await?;
        self.update(|view| {
            (view.written, view.sagas, view.last_orders) = (written, sagas, last_orders);
            view.losses = losses;
            for (name, (admitted, repeats)) in consumers {
                let consumer = view.consumers.entry(name).or_default();
                (consumer.admitted, consumer.repeats) = (admitted, repeats);
            }
        });
        Ok(())
    }
}

/// Connections to all databases.
#[derive(Debug)]
struct Databases {
    /// The first is that of the orders.
    services: Vec<(&'static str, Client)>,
    naive: Option<Client>,
}

impl Databases {
    async fn open(stage: &Stage) -> Result<Self> {
        let mut services = Vec::new();
        for name in ["orders", "stock", "payments", crate::read_model::NAME] {
            services.push((name, stage.database(name).await?));
        }
        let naive = match stage.naive {
            Some(_) => Some(stage.database("naive").await?),
            None => None,
        };
        Ok(Self { services, naive })
    }

    /// The ledger: with an outbox, and without where that is shown.
    async fn losses(&self, placed: &HashSet<String>) -> Result<Vec<Losses>> {
        let orders = &self.services[0].1;
        let mut losses = ledger::compare(orders, ledger::WITH_OUTBOX, placed).await?;
        if let Some(naive) = &self.naive {
            losses.extend(ledger::compare(naive, ledger::WITHOUT, placed).await?);
        }
        Ok(losses)
    }
}

async fn sagas(orders: &Client) -> Result<Vec<SagaView>> {
    let mut sagas = Vec::new();
    for row in orders.query(include_str!("sql/page_sagas.sql"), &[]).await? {
        let (state, reason) = (row.try_get("state")?, row.try_get("reason")?);
        sagas.push(SagaView { state, reason, orders: row.try_get("orders")? });
    }
    Ok(sagas)
}

async fn last_orders(orders: &Client, memory: &Memory) -> Result<Vec<OrderView>> {
    let mut last = Vec::new();
    for row in orders.query(include_str!("sql/page_last_orders.sql"), &[&LAST_ORDERS]).await? {
        let id: String = row.try_get("id")?;
        last.push(OrderView {
            customer: row.try_get("customer")?,
            sku: row.try_get("sku")?,
            quantity: row.try_get("quantity")?,
            amount_cents: row.try_get("amount_cents")?,
            state: row.try_get("state")?,
            reason: row.try_get("reason")?,
            events: memory.events_by_order.get(&id).cloned().unwrap_or_default(),
            id,
        });
    }
    Ok(last)
}
