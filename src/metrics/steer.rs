//! What those may do who have the token: pause, resume, and have parked events tried again or discarded.
//!
//! Promises: nothing is done for anybody without the token, nor for another page in somebody's browser; each thing that was
//! done is in the log; one at a time, so that nobody opens more than one session. Must not: publish, or stop the relay.
//! Fails: with the status and an error in the form of the answers; 503 when PostgreSQL refuses.
//!
//! | path | body |
//! |---|---|
//! | `POST /api/v1/pause` | `{"reason": "…", "for_seconds": 1800}`; without the latter until it is resumed |
//! | `POST /api/v1/resume` | `{}` |
//! | `POST /api/v1/parked/retry` | `{"event": "…"}`, `{"reason": "too-large"}` or `{"all": true}` |
//! | `POST /api/v1/parked/discard` | the same |

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::post;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use crate::capture::mode;
use crate::config::admin_token::TokenVerdict;
use crate::control::parked::ask::{self, ParkedChoice};
use crate::error::{Error, Result};
use crate::metrics::admin::{Admin, Steering};
use crate::metrics::api::{error, json};
use crate::metrics::sentence;
use crate::metrics::shape::DONE_SCHEMA;
use crate::order::refusal::Reason;
use crate::postgres::{Connection, connect};

/// A reason of a thousand characters fits.
const BODY_BYTES_MAX: usize = 8 * 1024;
/// Within this a body has come; with [`PATIENCE`] it is shorter than a connection lasts.
const BODY_TIME: Duration = Duration::from_secs(3);
/// Within this PostgreSQL has answered.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longer pauses have no end that anybody means.
const PAUSE_SECONDS_MAX: f64 = 366.0 * 86_400.0;
/// By which browsers say from which page a request comes.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    schema: &'static str,
    done: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedPause {
    reason: String,
    #[serde(default)]
    for_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedResume {}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AskedChoice {
    event: Option<String>,
    reason: Option<String>,
    all: bool,
}

/// Why nothing is done.
type Refused = Box<Response>;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/v1/pause", post(pause))
        .route("/api/v1/resume", post(resume))
        .route("/api/v1/parked/retry", post(retry))
        .route("/api/v1/parked/discard", post(discard))
}

async fn pause(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let asked = match admitted::<AskedPause>(&admin, request).await {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let lasts = match asked.for_seconds {
        None => None,
        Some(seconds) if (1.0..=PAUSE_SECONDS_MAX).contains(&seconds) => {
            Some(Duration::from_secs_f64(seconds))
        }
        Some(_) => return bad("for_seconds is no time for a pause", "give 1 to 31622400, or null"),
    };
    let reason = match mode::checked_reason(&asked.reason) {
        Ok(reason) => reason,
        Err(refused) => return bad(refused.message(), "give reason between 1 and 1000 characters"),
    };
    done(&admin, "pause", async |connection: &Connection| {
        mode::pause(connection, &reason, lasts).await?;
        Ok("publishing is paused; what is in flight lands".to_owned())
    })
    .await
}

async fn resume(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    if let Err(refused) = admitted::<AskedResume>(&admin, request).await {
        return *refused;
    }
    done(&admin, "resume", async |connection: &Connection| {
        let was_paused = mode::resume(connection).await?;
        Ok(if was_paused { "publishing goes on" } else { "publishing was not paused" }.to_owned())
    })
    .await
}

async fn retry(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let choice = match chosen(&admin, request).await {
        Ok(choice) => choice,
        Err(refused) => return *refused,
    };
    done(&admin, "parked retry", async |connection: &Connection| {
        let aggregates = ask::retry(connection, choice).await?;
        Ok(format!("{} will be tried again", sentence::count(aggregates, "aggregate")))
    })
    .await
}

async fn discard(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let choice = match chosen(&admin, request).await {
        Ok(choice) => choice,
        Err(refused) => return *refused,
    };
    done(&admin, "parked discard", async |connection: &Connection| {
        let events = ask::discard(connection, choice).await?;
        Ok(format!("{} discarded", sentence::count(events, "event")))
    })
    .await
}

async fn chosen(admin: &Admin, request: Request) -> std::result::Result<ParkedChoice, Refused> {
    let asked = admitted::<AskedChoice>(admin, request).await?;
    match (asked.event, asked.reason, asked.all) {
        (Some(event), None, false) => match Uuid::parse_str(&event) {
            Ok(event) => Ok(ParkedChoice::Event(event)),
            Err(cause) => {
                let what = format!("event is no id: {cause}");
                Err(Box::new(bad(&what, "give it as /api/v1/parked has it")))
            }
        },
        (None, Some(reason), false) => match reason.parse::<Reason>() {
            Ok(reason) => Ok(ParkedChoice::Reason(reason)),
            Err(cause) => Err(Box::new(bad(&cause, "give one of them as reason"))),
        },
        (None, None, true) => Ok(ParkedChoice::All),
        _ => Err(Box::new(bad(
            "it is not said which parked events are meant",
            "give event, reason, or all: true, and one of them alone",
        ))),
    }
}

/// What is asked for, if it may be.
async fn admitted<T: DeserializeOwned>(
    admin: &Admin,
    request: Request,
) -> std::result::Result<T, Refused> {
    let steering = admin.steering.as_ref().expect("without it there is no such path");
    let (head, body) = request.into_parts();
    comes_from_here(&head.headers)?;
    has_token(steering, &head.headers)?;
    is_json(&head.headers)?;
    read(body).await
}

/// A page of another site in somebody's browser may send, but not read: it is told apart by what browsers add.
fn comes_from_here(headers: &HeaderMap) -> std::result::Result<(), Refused> {
    let text = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap_or("?"));
        if values.next().is_some() { Some("?") } else { first }
    };
    let host = text(HOST).filter(|host| !host.is_empty() && *host != "?");
    let is_own_page = match (text(ORIGIN), host) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(origin), Some(host)) => ["http://", "https://"]
            .iter()
            .any(|scheme| origin.strip_prefix(scheme).is_some_and(|rest| rest == host)),
    };
    let is_own_site = text(FETCH_SITE).is_none_or(|site| ["same-origin", "none"].contains(&site));
    if is_own_page && is_own_site {
        return Ok(());
    }
    Err(Box::new(error(
        StatusCode::FORBIDDEN,
        "the request comes from another page",
        "use the instance's own page, or a program that sends Host and no Origin",
    )))
}

fn has_token(steering: &Steering, headers: &HeaderMap) -> std::result::Result<(), Refused> {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match steering.token.judge(shown.unwrap_or_default()) {
        Ok(TokenVerdict::Right) => Ok(()),
        Ok(TokenVerdict::Wrong) => {
            let mut refused = error(
                StatusCode::UNAUTHORIZED,
                "the token is missing, or is another one",
                "send Authorization: Bearer, and what --admin-token-file holds",
            );
            refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            Err(Box::new(refused))
        }
        Err(cause) => Err(Box::new(failed(&cause))),
    }
}

fn is_json(headers: &HeaderMap) -> std::result::Result<(), Refused> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Box::new(error(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body is not said to be JSON",
        "send Content-Type: application/json",
    )))
}

async fn read<T: DeserializeOwned>(body: Body) -> std::result::Result<T, Refused> {
    let Ok(came) = timeout(BODY_TIME, to_bytes(body, BODY_BYTES_MAX)).await else {
        return Err(Box::new(error(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come within 3 seconds; nothing was done",
            "send as many bytes as Content-Length says, at once",
        )));
    };
    let Ok(bytes) = came else {
        return Err(Box::new(error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too long, or was cut off",
            "send 8 KiB at most",
        )));
    };
    serde_json::from_slice(&bytes).map_err(|cause| {
        Box::new(bad(&format!("the body has no meaning: {cause}"), "see docs/api.md"))
    })
}

/// Does it in a session of its own, and says that it was done.
async fn done(
    admin: &Admin,
    what: &str,
    work: impl AsyncFnOnce(&Connection) -> Result<String>,
) -> Response {
    let steering = admin.steering.as_ref().expect("it was looked for");
    let worked = async {
        let _turn = steering.turn.lock().await;
        let connection = connect(&steering.database, "admin").await?;
        work(&connection).await
    };
    match timeout(PATIENCE, Box::pin(worked)).await {
        Ok(Ok(done)) => {
            tracing::warn!(what, done, "somebody with the admin token has steered this instance");
            json(StatusCode::OK, &Done { schema: DONE_SCHEMA, done })
        }
        Ok(Err(cause)) => failed(&cause),
        Err(_) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "PostgreSQL gave no answer in time; it may have been done all the same",
            "look at /api/v1/tier, and try again",
        ),
    }
}

fn failed(cause: &Error) -> Response {
    let remedy = cause.remedy().unwrap_or("the instance's log may say more");
    error(StatusCode::SERVICE_UNAVAILABLE, cause.message(), remedy)
}

fn bad(what: &str, remedy: &str) -> Response {
    error(StatusCode::BAD_REQUEST, what, remedy)
}

#[cfg(test)]
#[path = "steer_tests.rs"]
mod tests;
