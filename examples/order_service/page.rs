//! The page: one file that asks for the view twice a second, and buttons for the faults.

use std::sync::{Arc, PoisonError};

use anyhow::{Context as _, Result};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::chaos::{Blow, strike};
use crate::scenes;
use crate::watch::{View, Watch};

/// Serves until the process ends; the answer is where.
pub(crate) async fn serve(watch: Arc<Watch>, address: std::net::SocketAddr) -> Result<String> {
    let router = Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/view", get(view))
        .route("/fault/{name}", post(fault))
        .with_state(watch);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("the page cannot be shown at {address}: give --page another"))?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}/"))
}

async fn view(State(watch): State<Arc<Watch>>) -> Json<View> {
    Json(watch.view.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// `POST /fault/kafka`, a process's name, `slow` or `switch`. A foreign page in the same browser cannot send the
/// header that is asked for here.
async fn fault(
    State(watch): State<Arc<Watch>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    if !headers.contains_key("x-order-service") {
        return (StatusCode::FORBIDDEN, "only from this page".to_owned());
    }
    let stage = &watch.stage;
    let done = match name.as_str() {
        "slow" => stage.set_slow(!stage.is_slow()).map(|()| Blow::Struck),
        "switch" => {
            let to = if stage.capture() == "poll" { "wal" } else { "poll" };
            scenes::switch_capture(stage, to).await.map(|()| Blow::Struck)
        }
        name => match stage.victims().into_iter().find(|victim| victim.name() == name) {
            Some(victim) => strike(stage, victim),
            None => return (StatusCode::NOT_FOUND, format!("nobody is called {name}")),
        },
    };
    match done {
        Ok(Blow::Struck) => (StatusCode::OK, String::new()),
        Ok(Blow::IsAway) => (StatusCode::CONFLICT, format!("{name} is away already")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
    }
}
