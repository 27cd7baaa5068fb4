//! How things are, as JSON.
//!
//! Promises: the shapes of [`crate::metrics::shape`], out of what is in memory; what a terminal would obey is escaped.
//! Must not: ask the database. Fails: with 503 and an error in the same form where nothing was seen yet, with 400 for a
//! question without a meaning.
//!
//! | path | answer |
//! |---|---|
//! | `/api/v1/status` | this instance |
//! | `/api/v1/tier` | all instances and buckets, as they were seen last |
//! | `/api/v1/parked?limit=100` | the first parked events of each aggregate, as they were seen last |
//! | `/api/v1/config` | by which settings this instance works, without secrets |

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::legible;
use crate::metrics::admin::Admin;
use crate::metrics::describe;
use crate::metrics::shape::{ERROR_SCHEMA, ErrorReport};

/// Parked events that are listed where nobody says how many.
const LIMIT: usize = 100;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/tier", get(tier))
        .route("/api/v1/parked", get(parked))
        .route("/api/v1/config", get(config))
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    json(StatusCode::OK, &describe::instance_status(&admin.monitor))
}

async fn tier(State(admin): State<Arc<Admin>>) -> Response {
    describe::tier_status(&admin.monitor).map_or_else(unseen, |tier| json(StatusCode::OK, &tier))
}

async fn parked(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    match limit(query.as_deref()) {
        Some(limit) => describe::parked_status(&admin.monitor, limit)
            .map_or_else(unseen, |parked| json(StatusCode::OK, &parked)),
        None => error(
            StatusCode::BAD_REQUEST,
            "limit is no whole number",
            "write it as /api/v1/parked?limit=100",
        ),
    }
}

async fn config(State(admin): State<Arc<Admin>>) -> Response {
    json(StatusCode::OK, &admin.config)
}

fn limit(query: Option<&str>) -> Option<usize> {
    let parts = query.unwrap_or_default().split('&');
    let given = parts.filter_map(|part| part.strip_prefix("limit=")).next_back();
    given.map_or(Some(LIMIT), |given| given.parse().ok())
}

fn unseen() -> Response {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        "the tier was not seen yet",
        "ask again in a few seconds; /readyz?verbose says what is in the way of a session",
    )
}

/// What is wrong, and what helps.
pub(super) fn error(status: StatusCode, error: &str, remedy: &str) -> Response {
    let (schema, error, remedy) = (ERROR_SCHEMA.to_owned(), error.to_owned(), remedy.to_owned());
    json(status, &ErrorReport { schema, error, remedy })
}

/// An answer that no cache keeps, and that is nothing but JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let text = match serde_json::to_string(value) {
        Ok(text) => legible::json(text),
        Err(cause) => {
            let text = format!("the answer cannot be written: {cause}\n");
            return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        }
    };
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, head, text).into_response()
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
