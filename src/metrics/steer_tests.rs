use std::path::PathBuf;

use axum::http::Method;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::config::admin_token::AdminToken;
use crate::metrics::http;
use crate::metrics::sample::{SMALL, admin, monitor};
use crate::postgres::DatabaseConfig;

const TOKEN: &str = "0123456789abcdef-right";

/// An instance whose PostgreSQL is not there: whoever comes as far as that was let in.
fn steered(name: &str) -> (Admin, PathBuf) {
    let file = std::env::temp_dir().join(format!("postrider-steer-{name}-{}", std::process::id()));
    std::fs::write(&file, TOKEN).expect("it can be written");
    let token = AdminToken::open(file.clone()).expect("it is one");
    let database =
        DatabaseConfig::parse("postgres://nobody@127.0.0.1:1/none").expect("it is a URL");
    (admin(&monitor(SMALL)).steered(Some(token), &database), file)
}

#[derive(Clone)]
struct Asked<'a> {
    method: Method,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

async fn ask_all(name: &str, asked: &[(Asked<'_>, StatusCode)]) {
    let (admin, file) = steered(name);
    let routes = TowerToHyperService::new(http::routes(admin));
    for (Asked { method, path, headers, body }, wanted) in asked.iter().cloned() {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("it is a request");
        let answer = routes.call(request).await.expect("routes answer");
        let status = answer.status();
        let text = to_bytes(answer.into_body(), 1 << 20).await.expect("it is short");
        let text = String::from_utf8_lossy(&text);
        assert_eq!(status, wanted, "{path} {headers:?} {body}: {text}");
        assert!(!text.contains(TOKEN), "{text}");
    }
    std::fs::remove_file(file).expect("it is there");
}

const RIGHT: &str = "Bearer 0123456789abcdef-right";
const GOOD: &[(&str, &str)] =
    &[("host", "a:1"), ("content-type", "application/json"), ("authorization", RIGHT)];
/// It was let in, and PostgreSQL is not there.
const LET_IN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

fn post<'a>(path: &'a str, headers: &'a [(&'a str, &'a str)], body: &'a str) -> Asked<'a> {
    Asked { method: Method::POST, path, headers, body }
}

const RESUME: &str = "/api/v1/resume";

#[tokio::test]
async fn nothing_is_done_without_the_token() {
    let kind = ("content-type", "application/json");
    for refused in [
        vec![("host", "a:1"), kind],
        vec![("host", "a:1"), kind, ("authorization", "Bearer ")],
        vec![("host", "a:1"), kind, ("authorization", "Bearer 0123456789abcdef-righ")],
        vec![("host", "a:1"), kind, ("authorization", "Bearer 0123456789abcdef-right1")],
        vec![("host", "a:1"), kind, ("authorization", "Basic 0123456789abcdef-right")],
        vec![("host", "a:1"), kind, ("authorization", "0123456789abcdef-right")],
    ] {
        let asked = post(RESUME, &refused, "{}");
        ask_all("token", &[(asked, StatusCode::UNAUTHORIZED)]).await;
    }
    ask_all("token", &[(post(RESUME, GOOD, "{}"), LET_IN)]).await;
}

#[tokio::test]
async fn nothing_is_done_for_another_page() {
    let with = |more: &[(&'static str, &'static str)]| [GOOD, more].concat();
    for (more, wanted) in [
        (vec![("origin", "http://a:1")], LET_IN),
        (vec![("origin", "https://a:1"), ("sec-fetch-site", "same-origin")], LET_IN),
        (vec![("origin", "http://evil.example")], StatusCode::FORBIDDEN),
        (vec![("origin", "null")], StatusCode::FORBIDDEN),
        (vec![("origin", "http://a:1.evil.example")], StatusCode::FORBIDDEN),
        (vec![("origin", "http://a:1"), ("origin", "http://evil.example")], StatusCode::FORBIDDEN),
        (vec![("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN),
        (vec![("sec-fetch-site", "same-site")], StatusCode::FORBIDDEN),
        (vec![("host", "b:1")], StatusCode::FORBIDDEN),
    ] {
        let headers = with(&more);
        ask_all("page", &[(post(RESUME, &headers, "{}"), wanted)]).await;
    }
    ask_all("page", &[(post(RESUME, &GOOD[1..], "{}"), StatusCode::FORBIDDEN)]).await;
}

#[tokio::test]
async fn what_has_no_meaning_is_refused() {
    let bad = StatusCode::BAD_REQUEST;
    let long = format!("{{\"reason\": \"{}\"}}", "x".repeat(9_000));
    let wordy = format!("{{\"reason\": \"{}\"}}", "x".repeat(1_001));
    let plain = [("host", "a:1"), ("content-type", "text/plain"), ("authorization", RIGHT)];
    let (pause, discard) = ("/api/v1/pause", "/api/v1/parked/discard");
    ask_all(
        "meaning",
        &[
            (post(RESUME, &plain, "{}"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (post(RESUME, GOOD, ""), bad),
            (post(RESUME, GOOD, "{\"now\": true}"), bad),
            (post(pause, GOOD, "{}"), bad),
            (post(pause, GOOD, "{\"reason\": \"  \"}"), bad),
            (post(pause, GOOD, &wordy), bad),
            (post(pause, GOOD, &long), StatusCode::PAYLOAD_TOO_LARGE),
            (post(pause, GOOD, "{\"reason\": \"a\", \"for_seconds\": -1}"), bad),
            (post(pause, GOOD, "{\"reason\": \"a\", \"for_seconds\": 1e300}"), bad),
            (post(pause, GOOD, "{\"reason\": \"a\", \"for_seconds\": null}"), LET_IN),
            (post(discard, GOOD, "{}"), bad),
            (post(discard, GOOD, "{\"all\": false}"), bad),
            (post(discard, GOOD, "{\"reason\": \"none\"}"), bad),
            (post(discard, GOOD, "{\"reason\": \"refused\", \"all\": true}"), bad),
            (post(discard, GOOD, "{\"event\": \"7\"}"), bad),
            (post(discard, GOOD, "{\"reason\": \"refused\"}"), LET_IN),
        ],
    )
    .await;
}

#[tokio::test]
async fn who_has_no_token_file_has_no_such_path() {
    let routes = TowerToHyperService::new(http::routes(admin(&monitor(SMALL))));
    for path in [RESUME, "/api/v1/pause", "/api/v1/parked/retry", "/api/v1/parked/discard"] {
        let request = Request::post(path).header("authorization", RIGHT).body(Body::empty());
        let answer = routes.call(request.expect("it is a request")).await.expect("routes answer");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    // And to look changes nothing.
    let get = Asked { method: Method::GET, path: RESUME, headers: GOOD, body: "" };
    ask_all("get", &[(get, StatusCode::METHOD_NOT_ALLOWED)]).await;
}

/// Whose body does not come is told so, before the connection ends.
#[tokio::test]
async fn a_body_that_does_not_come_is_answered() {
    let (admin, file) = steered("body");
    let routes = TowerToHyperService::new(http::routes(admin));
    let never = futures_util::stream::pending::<std::io::Result<Vec<u8>>>();
    let mut request = Request::post(RESUME);
    for (name, value) in GOOD {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from_stream(never)).expect("it is a request");
    let answer = routes.call(request).await.expect("routes answer");
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    let text = to_bytes(answer.into_body(), 1 << 20).await.expect("it is short");
    assert!(String::from_utf8_lossy(&text).contains("nothing was done"), "{text:?}");
    std::fs::remove_file(file).expect("it is there");
}
