//! What tools ask a running instance over HTTP: figures, and whether it works.
//!
//! Promises: an answer costs the relay nothing but the reading of counters, and slow or many clients hold
//! up neither the relay nor each other. Must not: steer anything, or ask the database. Fails: at the start, when an address that was asked for cannot be listened on.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | all figures, in the text form of OpenMetrics |
//! | `/livez` | 200 as long as the process runs |
//! | `/readyz` | 200 while it works or stands by, 503 between two sessions |

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::{door, openmetrics};
use crate::config::AdminListen;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens, and answers until the process ends. An address that nobody asked for may be taken: several
/// instances may run on one host.
///
/// # Errors
/// [`ErrorKind::Config`] when an address that was asked for cannot be listened on.
pub async fn serve(listen: AdminListen, monitor: Arc<Monitor>) -> Result<()> {
    let (address, is_asked) = match listen {
        AdminListen::Off => return Ok(()),
        AdminListen::Default(address) => (address, false),
        AdminListen::On(address) => (address, true),
    };
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(cause) if is_asked => {
            let cause = format!("--admin-listen {address} cannot be listened on: {cause}");
            return Err(Error::new(ErrorKind::Config, cause)
                .with_remedy("give another address, port 0 for any, or off"));
        }
        Err(cause) => {
            tracing::warn!(%address, %cause, "no metrics: give --admin-listen a free address");
            return Ok(());
        }
    };
    let address: Option<SocketAddr> = listener.local_addr().ok();
    tracing::info!(address = address.map(|address| address.to_string()), "answering /metrics");
    tokio::spawn(door::answer(listener, routes(monitor)));
    Ok(())
}

pub(super) fn routes(monitor: Arc<Monitor>) -> Router {
    Router::new()
        .route("/metrics", get(figures))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readiness))
        .with_state(monitor)
}

async fn figures(State(monitor): State<Arc<Monitor>>) -> impl IntoResponse {
    match openmetrics::text(monitor) {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], text),
        Err(cause) => {
            let text = format!("the figures cannot be written: {cause}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], text)
        }
    }
}

async fn readiness(State(monitor): State<Arc<Monitor>>) -> (StatusCode, &'static str) {
    match monitor.is_working() {
        true => (StatusCode::OK, "working\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no session with PostgreSQL and Kafka\n"),
    }
}
