//! Two services without an outbox: both write twice, and a kill in between leaves one half.
//!
//! One commits and then sends: killed in between, or while Kafka is away, an order has no event. The other sends and
//! then commits: killed in between, or while PostgreSQL is away, an event has no order. Both do what code of this kind
//! does: they wait for the answer and report an error. It does not help, as nobody can take back the first half.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::put;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::arguments::Service;
use crate::database::Pool;
use crate::ledger::NAIVE_TOPIC;

const CONNECTIONS: usize = 8;
/// How long a record may take: a request does not wait for ever.
const SEND_DEADLINE: Duration = Duration::from_secs(2);

type Producer = BaseProducer<Delivered>;

/// Whether the last record of a producer has arrived.
#[derive(Debug, Default)]
struct Delivered(AtomicBool);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.store(result.is_ok(), Ordering::Release);
    }
}

struct Shop {
    pool: Pool,
    brokers: String,
    /// Those that no request uses.
    producers: Mutex<Vec<Producer>>,
}

/// Serves until the process ends.
pub(crate) async fn serve(service: &Service) -> Result<()> {
    let shop = Arc::new(Shop {
        pool: Pool::new(&service.database_url, CONNECTIONS),
        brokers: service.brokers.clone(),
        producers: Mutex::default(),
    });
    let router = Router::new()
        .route("/commit-then-send/{id}", put(commit_then_send))
        .route("/send-then-commit/{id}", put(send_then_commit))
        .with_state(shop);
    let listener = tokio::net::TcpListener::bind(service.listen).await.context("no port")?;
    Ok(axum::serve(listener, router).await?)
}

async fn commit_then_send(shop: State<Arc<Shop>>, id: Path<String>) -> Result<(), StatusCode> {
    answer(async {
        shop.commit(&id).await?;
        shop.send(&id).await
    })
    .await
}

async fn send_then_commit(shop: State<Arc<Shop>>, id: Path<String>) -> Result<(), StatusCode> {
    answer(async {
        shop.send(&id).await?;
        shop.commit(&id).await
    })
    .await
}

async fn answer(work: impl Future<Output = Result<()>>) -> Result<(), StatusCode> {
    work.await.map_err(|error| {
        eprintln!("an order is half done, or not at all: {error:#}");
        StatusCode::SERVICE_UNAVAILABLE
    })
}

impl Shop {
    async fn commit(&self, id: &str) -> Result<()> {
        let client = self.pool.get().await?;
        client.execute(include_str!("sql/naive_place.sql"), &[&id]).await?;
        Ok(())
    }

    /// Sends, and waits until Kafka has it. A producer of its own per request that is under way, so that one request's
    /// flush waits for no other's record.
    async fn send(self: &Arc<Self>, id: &str) -> Result<()> {
        let (shop, id) = (Arc::clone(self), id.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer = shop.producer()?;
            producer.context().0.store(false, Ordering::Release);
            let record = BaseRecord::to(NAIVE_TOPIC).key(id.as_bytes()).payload("{}");
            producer.send(record).map_err(|(cause, _)| cause)?;
            producer.flush(SEND_DEADLINE * 2)?;
            ensure!(producer.context().0.load(Ordering::Acquire), "Kafka did not take it");
            shop.producers.lock().unwrap_or_else(PoisonError::into_inner).push(producer);
            Ok(())
        })
        .await?
    }

    fn producer(&self) -> Result<Producer> {
        let idle = self.producers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(producer) => Ok(producer),
            None => Ok(ClientConfig::new()
                .set("bootstrap.servers", &self.brokers)
                .set("acks", "all")
                .set("linger.ms", "0")
                .set("message.timeout.ms", SEND_DEADLINE.as_millis().to_string())
                .set("reconnect.backoff.max.ms", "500")
                .create_with_context(Delivered::default())?),
        }
    }
}
