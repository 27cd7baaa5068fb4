//! By which names the page and the API are answered.
//!
//! Promises: a page of another site, whose name was led here, sees nothing of them. Must not: stand before the figures and
//! the probes: whatever scrapes and probes may ask by any name. Fails: with 421 and an error in the form of the answers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::Response;

use crate::legible;
use crate::metrics::admin::Admin;
use crate::metrics::api::error;

/// Answers whoever asks by a name that is ours.
pub(super) async fn ours(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    match foreign(&admin, &request) {
        None => next.run(request).await,
        Some(name) => {
            let what = format!("this instance is not asked for by the name {name}");
            let remedy = "ask by its address, or allow the name: --admin-hosts NAME";
            error(StatusCode::MISDIRECTED_REQUEST, &what, remedy)
        }
    }
}

/// A name that is not ours. A program of old may send none; no browser is one.
fn foreign(admin: &Admin, request: &Request) -> Option<String> {
    let in_target = request.uri().authority().map(|authority| authority.as_str());
    let hosts = request.headers().get_all(HOST).iter();
    let named = hosts.map(|host| host.to_str().unwrap_or("?")).chain(in_target);
    let mut strange = named.filter(|host| !admin.hosts.answers(host));
    strange.next().map(legible::name)
}
