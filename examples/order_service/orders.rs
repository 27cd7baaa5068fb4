//! The orders service: takes requests by HTTP, and leads the saga by what stock and payments answer.
//!
//! Each request is one transaction on one database: the order's row and its event. There is no moment at which one is
//! there without the other, and nothing to be sent by the service itself. A customer who gets no answer asks again:
//! placing is known by the order's number, and a step that was taken is not taken twice.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{post, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio_postgres::Transaction;

use crate::arguments::Service;
use crate::consumer::{Consumer, Effect};
use crate::database::Pool;
use crate::events::{Event, Order, PAYMENT_TOPIC, STOCK_TOPIC, emit};
use crate::saga::{self, Moved};

const CONNECTIONS: usize = 8;

/// Serves until the process ends.
pub(crate) async fn serve(service: &Service) -> Result<()> {
    let pool = Arc::new(Pool::new(&service.database_url, CONNECTIONS));
    let router = Router::new()
        .route("/orders/{id}", put(place).get(show))
        .route("/orders/{id}/{step}", post(step))
        .with_state(pool);
    let listener = tokio::net::TcpListener::bind(service.listen).await.context("no port")?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let topics = &[STOCK_TOPIC, PAYMENT_TOPIC];
    Consumer { name: "orders", topics, service }.run(&LeadSaga).await;
    Ok(())
}

/// `PUT /orders/{id}`: the customer has made up the number, so that asking again is safe.
async fn place(
    State(pool): State<Arc<Pool>>,
    Path(id): Path<String>,
    Json(order): Json<Order>,
) -> Result<Json<Value>, Failure> {
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;
    let sql = include_str!("sql/order_place.sql");
    let Order { customer, sku, quantity, amount_cents, .. } = &order;
    let placed = transaction.execute(sql, &[&id, customer, sku, quantity, amount_cents]).await?;
    if placed == 1 {
        emit(&transaction, "order", &id, saga::PLACED, &order).await?;
    }
    transaction.commit().await?;
    Ok(Json(json!({ "id": id })))
}

/// `POST /orders/{id}/pay`, `ship` or `cancel`; the answer is where the order stands then.
async fn step(
    State(pool): State<Arc<Pool>>,
    Path((id, word)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let (step, reason) = match word.as_str() {
        "pay" => (saga::PAY, None),
        "ship" => (saga::SHIP, None),
        "cancel" => (saga::CANCEL, Some("customer")),
        _ => return Err(Failure(StatusCode::NOT_FOUND, format!("no step {word}"))),
    };
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;
    let moved = saga::take(&transaction, &id, &step, reason).await?;
    transaction.commit().await?;
    let state = state(&client, &id).await?;
    // Asked again for a step that was taken, the answer is the same as the first time.
    match moved == Moved::Yes || state["state"] == step.to {
        true => Ok(Json(state)),
        false => Err(Failure(StatusCode::CONFLICT, state.to_string())),
    }
}

/// `GET /orders/{id}`.
async fn show(
    State(pool): State<Arc<Pool>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let client = pool.get().await?;
    Ok(Json(state(&client, &id).await?))
}

async fn state(client: &tokio_postgres::Client, id: &str) -> Result<Value, Failure> {
    let row = client.query_opt(include_str!("sql/order_show.sql"), &[&id]).await?;
    let row = row.ok_or_else(|| Failure(StatusCode::NOT_FOUND, format!("no order {id}")))?;
    let (state, reason): (String, Option<String>) = (row.try_get("state")?, row.try_get("reason")?);
    Ok(json!({ "id": id, "state": state, "reason": reason }))
}

/// What stock and payments have done decides where an order goes.
struct LeadSaga;

impl Effect for LeadSaga {
    async fn apply(&self, transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()> {
        let (step, reason) = match event.kind {
            "StockReserved" => (saga::RESERVE, None),
            "StockRefused" => (saga::CANCEL, Some("out of stock")),
            "PaymentTaken" => (saga::SETTLE, None),
            "PaymentRefused" => (saga::CANCEL, Some("payment refused")),
            // What was given back changes nothing more for a cancelled order.
            _ => return Ok(()),
        };
        // An answer that comes too late, as the customer has cancelled meanwhile, moves nothing. The cancellation is
        // on its way to whoever answered, behind the event that was answered.
        let moved = saga::take(transaction, event.order_id, &step, reason).await?;
        // An answer proves that the order is committed. If it cannot be seen it soon can be: the poll is done again.
        ensure!(moved != Moved::Unknown, "{} cannot be seen yet", event.order_id);
        Ok(())
    }
}

/// Why a request has no answer, or not the one that was hoped for.
#[derive(Debug)]
struct Failure(StatusCode, String);

impl axum::response::IntoResponse for Failure {
    fn into_response(self) -> axum::response::Response {
        (self.0, self.1).into_response()
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    /// The database is away: whoever asks again later may be luckier.
    fn from(cause: E) -> Self {
        let cause: anyhow::Error = cause.into();
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("{cause:#}"))
    }
}
