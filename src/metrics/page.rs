//! The page at `/`: how things are, for people.
//!
//! Promises: one file, which asks nobody but this instance; a browser runs and styles by it nothing but what the file
//! itself has, also where a row's text says otherwise. Must not: be shown inside another page.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page/index.html");

/// What a browser may do with the page: its one script and its one style sheet are known by their digests.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        digest(between(PAGE, "<script>", "</script>")),
        digest(between(PAGE, "<style>", "</style>")),
    );
    HeaderValue::from_str(&policy).expect("it is plain text")
});

/// The page.
pub(super) async fn page() -> Response {
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (head, PAGE).into_response()
}

fn digest(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, behind) = text.split_once(begin).expect("the page has it once");
    behind.split_once(end).expect("it ends").0
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
