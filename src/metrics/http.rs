//! What tools ask a running instance over HTTP: figures, and whether it works.
//!
//! Promises: an answer costs the relay nothing but the reading of counters, and slow or many clients hold
//! up neither the relay nor each other. Must not: ask the database for an answer, or steer anything without a token
//! ([`steer`]). Fails: at the start, when an address that was asked for cannot be listened on.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | all figures, in the text form of OpenMetrics |
//! | `/livez` | 200 while the runtime and the threads that publish and poll give signs of life |
//! | `/readyz` | 200 while it gets on, stands by, or has nothing to do; else 503, and why |
//! | `/` | how things are, as a page |
//! | `/api/v1/…` | how things are, as JSON |
//!
//! The probes take `?verbose` and `?exclude=NAME`, and answer in the form of Kubernetes' own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::{api, door, host, openmetrics, page, steer};
use crate::config::AdminListen;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::metrics::admin::Admin;
use crate::metrics::health::HealthCheck;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens, and answers until the process ends. An address that nobody asked for may be taken: several
/// instances may run on one host.
///
/// # Errors
/// [`ErrorKind::Config`] when an address that was asked for cannot be listened on.
pub async fn serve(listen: AdminListen, admin: Admin) -> Result<()> {
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
    tokio::spawn(door::answer(listener, routes(admin)));
    Ok(())
}

pub(super) fn routes(admin: Admin) -> Router {
    let steering = match &admin.steering {
        Some(_) => steer::routes(),
        None => Router::new(),
    };
    let admin = Arc::new(admin);
    let named = Router::new().route("/", get(page::page)).merge(api::routes()).merge(steering);
    let named = named.route_layer(from_fn_with_state(Arc::clone(&admin), host::ours));
    Router::new()
        .route("/metrics", get(figures))
        .route("/livez", get(life))
        .route("/readyz", get(readiness))
        .merge(named)
        .with_state(admin)
}

async fn figures(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match openmetrics::text(Arc::clone(&admin.monitor)) {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], text),
        Err(cause) => {
            let text = format!("the figures cannot be written: {cause}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], text)
        }
    }
}

async fn life(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let checks = admin.vitals.checks(Instant::now());
    answer("livez", "alive", checks, &AskedChecks::read(query.as_deref()))
}

async fn readiness(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> (StatusCode, String) {
    let checks = admin.monitor.health().ready();
    answer("readyz", "working", checks, &AskedChecks::read(query.as_deref()))
}

/// How an answer is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct AskedChecks {
    detail: Detail,
    /// Checks that do not count.
    excluded: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Detail {
    /// Each check, if one is not well.
    #[default]
    OnFailure,
    /// Each check.
    Verbose,
}

impl AskedChecks {
    /// As Kubernetes asks: `verbose`, and `exclude` as often as needed.
    fn read(query: Option<&str>) -> Self {
        let mut asked = Self::default();
        for part in query.unwrap_or_default().split('&') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("verbose", _) => asked.detail = Detail::Verbose,
                ("exclude", name) => asked.excluded.push(name.to_owned()),
                _ => {}
            }
        }
        asked
    }
}

/// In the form of Kubernetes' own endpoints.
fn answer(
    path: &str,
    word: &str,
    checks: Vec<HealthCheck>,
    asked: &AskedChecks,
) -> (StatusCode, String) {
    let mut lines = Vec::new();
    let mut is_well = true;
    for check in &checks {
        if asked.excluded.contains(&check.name) {
            lines.push(format!("[+]{} excluded: ok", check.name));
        } else {
            is_well &= check.is_well();
            lines.push(check.to_string());
        }
    }
    let unknown =
        asked.excluded.iter().filter(|name| checks.iter().all(|check| check.name != **name));
    lines.extend(unknown.map(|name| {
        format!(
            "warn: some health checks cannot be excluded: no matches for {}",
            legible::name(name)
        )
    }));
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if is_well && asked.detail == Detail::OnFailure {
        return (status, format!("{word}\n"));
    }
    lines.push(format!("{path} check {}\n", if is_well { "passed" } else { "failed" }));
    (status, lines.join("\n"))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::metrics::health::HealthOutcome;

    fn check(name: &str, outcome: HealthOutcome, words: &str) -> HealthCheck {
        HealthCheck {
            name: name.to_owned(),
            outcome,
            words: words.to_owned(),
            since_millis: None,
            remedy: None,
        }
    }

    fn asked(query: &str) -> (StatusCode, String) {
        let silent = "nothing acknowledged for 34s, 6.0 MiB in flight";
        let checks = vec![
            check("postgres", HealthOutcome::Well, "ok"),
            check("kafka", HealthOutcome::Ill, silent),
        ];
        answer("readyz", "working", checks, &AskedChecks::read(Some(query)))
    }

    #[test]
    fn what_is_ill_is_told_without_being_asked() {
        let text = "[+]postgres ok\n[-]kafka nothing acknowledged for 34s, 6.0 MiB in flight\n\
                    readyz check failed\n";
        assert_eq!(asked(""), (StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
        assert_eq!(asked("verbose"), asked("verbose=1"));
        assert_eq!(asked("verbose").1, text);
    }

    #[test]
    fn what_is_excluded_does_not_count() {
        assert_eq!(asked("exclude=kafka"), (StatusCode::OK, "working\n".to_owned()));
        let text = "[+]postgres ok\n[+]kafka excluded: ok\nreadyz check passed\n";
        assert_eq!(asked("verbose&exclude=kafka"), (StatusCode::OK, text.to_owned()));
        let (status, text) = asked("exclude=Kafka");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("no matches for Kafka"), "{text}");
    }

    #[test]
    fn a_runtime_where_nobody_looks_is_dead() {
        let checks = crate::metrics::counters::Monitor::default().health().live(31_000);
        let (status, text) = answer("livez", "alive", checks, &AskedChecks::default());
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.starts_with("[-]runtime nobody has looked for 31s\n"), "{text}");
    }
}
