//! The customers: they place orders, pay, wait and now and then change their mind; who gets no answer asks again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::events::Order;
use crate::ledger;
use crate::random::Random;
use crate::request;

/// How long a customer waits before looking again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_000));
/// How long the last orders may take, servers that come back included.
const LAST_ORDERS: Duration = Duration::from_secs(120);
/// What there is to buy: its price in cents, and how many of a hundred customers want it.
const ARTICLES: [(&str, i64, u64); 4] =
    [("lamp", 1_999, 40), ("chair", 8_950, 30), ("table", 24_900, 22), ("signed-print", 49_900, 8)];
const CUSTOMERS: u64 = 100;

/// Where customers go, and what they remember.
#[derive(Debug)]
pub(crate) struct Customers {
    pub(crate) orders: SocketAddr,
    /// The services without an outbox, if they are there.
    pub(crate) naive: Option<SocketAddr>,
    pub(crate) seed: u64,
    pub(crate) figures: Figures,
}

/// What customers remember.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Orders that the service has answered for.
    pub(crate) placed: AtomicU64,
    /// Orders that came to their end: shipped or cancelled.
    pub(crate) ended: AtomicU64,
    /// Requests that were asked again because there was no answer.
    pub(crate) asked_again: AtomicU64,
    /// When each order was placed, and how long the answer took.
    latencies: Mutex<Vec<(Instant, Duration)>>,
}

impl Figures {
    /// Placed, at their end, asked again.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [&self.placed, &self.ended, &self.asked_again].map(|count| count.load(Ordering::Relaxed))
    }

    /// The median and the 99th percentile of the answers to new orders within this time.
    pub(crate) fn latency(&self, from: Instant, to: Instant) -> Option<(Duration, Duration)> {
        let all = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut some: Vec<Duration> =
            all.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, took)| *took).collect();
        some.sort_unstable();
        Some((*some.get(some.len() / 2)?, *some.get(some.len() * 99 / 100)?))
    }
}

impl Customers {
    /// Customers come at a rate until somebody says that it is enough; those who came see their orders to the end.
    pub(crate) async fn come(self: Arc<Self>, rate: u64, enough: impl Future<Output = ()>) {
        let mut orders = JoinSet::new();
        let mut due =
            tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).expect("a rate"));
        tokio::pin!(enough);
        for number in 1_u64.. {
            tokio::select! {
                _ = due.tick() => {}
                () = &mut enough => break,
            }
            let customers = Arc::clone(&self);
            orders.spawn(async move { customers.order(number).await });
            if let Some(naive) = self.naive {
                for path in ledger::paths(number) {
                    // Who gets no answer here goes away: asking again would be another order.
                    orders.spawn(async move { drop(request::ask(naive, "PUT", &path, "").await) });
                }
            }
            while orders.try_join_next().is_some() {}
        }
        let all_ended = async { while orders.join_next().await.is_some() {} };
        // Who is left over then shows in the audit.
        if tokio::time::timeout(LAST_ORDERS, all_ended).await.is_err() {
            println!("some orders do not come to their end");
        }
    }

    async fn order(&self, number: u64) {
        let mut random = Random::new(self.seed, number);
        let path = format!("/orders/order-{number:06}");
        let order = serde_json::to_string(&wish(&mut random)).expect("it is an object");
        let begin = Instant::now();
        self.insist("PUT", &path, &order).await;
        let took = (begin, begin.elapsed());
        self.figures.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        self.figures.placed.fetch_add(1, Ordering::Relaxed);
        let changes_mind_at = match random.below(100) {
            0..4 => "placed",
            4..8 => "reserved",
            8..12 => "paying",
            12..16 => "paid",
            _ => "never",
        };
        let mut pause = PAUSE.0;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(PAUSE.1);
            let state = self.insist("GET", &path, "").await;
            let step = match state["state"].as_str() {
                Some("shipped" | "cancelled") => break,
                Some(state) if state == changes_mind_at => "cancel",
                Some("reserved") => "pay",
                Some("paid") => "ship",
                _ => continue,
            };
            self.insist("POST", &format!("{path}/{step}"), "").await;
        }
        self.figures.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks until there is an answer. "Conflict" is one: the order went another way meanwhile.
    async fn insist(&self, method: &str, path: &str, body: &str) -> Value {
        let mut pause = PAUSE.0;
        loop {
            if let Ok(answer) = request::ask(self.orders, method, path, body).await
                && matches!(answer.status, 200 | 409)
            {
                return serde_json::from_str(&answer.body).unwrap_or_default();
            }
            self.figures.asked_again.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE.1);
        }
    }
}

fn wish(random: &mut Random) -> Order {
    let mut choice = random.below(100);
    let (sku, price, _) = ARTICLES
        .into_iter()
        .find(|(_, _, share)| {
            let is_it = choice < *share;
            choice = choice.saturating_sub(*share);
            is_it
        })
        .expect("the shares are a hundred");
    let quantity = 1 + i32::try_from(random.below(3)).expect("it is small");
    Order {
        customer: format!("customer-{}", random.below(CUSTOMERS)),
        sku: sku.to_owned(),
        quantity,
        amount_cents: price * i64::from(quantity),
        reason: None,
    }
}
