//! Where `postrider top` has its figures from.
//!
//! Promises: asks once a second, and PostgreSQL less often where it takes long; nobody is waited for longer than
//! [`PATIENCE`]. Must not: end because somebody gives no answer. Fails: at the start, when PostgreSQL refuses.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::capture::tier_look::{Looker, TierLook};
use crate::cli::top::view::{InstanceView, TopView};
use crate::error::Result;
use crate::metrics::shape::{PARKED_SCHEMA, ParkedReport};
use crate::postgres::DatabaseConfig;

const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause behind a look at the database is so many times as long as the look was.
const PAUSE_PER_LOOK: u32 = 20;
/// Longer than any answer.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Instances that are asked over HTTP.
pub(super) struct InstanceSource {
    authorities: Vec<String>,
}

impl InstanceSource {
    pub(super) fn new(authorities: Vec<String>) -> Self {
        Self { authorities }
    }

    /// Asks until nobody listens any more.
    pub(super) async fn follow(self, sender: mpsc::Sender<TopView>) {
        loop {
            if sender.send(self.look().await).await.is_err() {
                return;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(&self) -> TopView {
        let instances = join_all(self.authorities.iter().map(|authority| async move {
            InstanceView {
                authority: authority.clone(),
                report: get(authority, "/api/v1/status").await,
            }
        }));
        let instances = instances.await;
        // All instances tell of one tier: the first that answers is enough.
        let answers = |one: &&InstanceView| one.report.is_ok();
        let teller = instances.iter().find(answers).map(|one| one.authority.as_str());
        let (mut tier, mut parked) = (None, None);
        if let Some(authority) = teller {
            tier = get(authority, "/api/v1/tier").await.ok();
            parked = get(authority, "/api/v1/parked?limit=500").await.ok();
        }
        TopView { instances, tier, parked, trouble: None }
    }
}

/// PostgreSQL, which knows the tier.
pub(super) struct DatabaseSource {
    database: DatabaseConfig,
    session: Option<TierLook>,
}

impl DatabaseSource {
    pub(super) async fn open(database: DatabaseConfig) -> Result<Self> {
        let session = Some(TierLook::open(&database, "top").await?);
        Ok(Self { database, session })
    }

    /// Looks until nobody listens any more.
    pub(super) async fn follow(mut self, sender: mpsc::Sender<TopView>) {
        loop {
            let began = Instant::now();
            let view = match Box::pin(self.look()).await {
                Ok(view) => view,
                Err(cause) => {
                    self.session = None;
                    TopView { trouble: Some(cause.message().to_owned()), ..TopView::default() }
                }
            };
            if sender.send(view).await.is_err() {
                return;
            }
            tokio::time::sleep((began.elapsed() * PAUSE_PER_LOOK).max(INTERVAL)).await;
        }
    }

    async fn look(&mut self) -> Result<TopView> {
        let session = match &mut self.session {
            Some(session) => session,
            None => self.session.insert(TierLook::open(&self.database, "top").await?),
        };
        let sight = session.look(Looker::People).await?;
        let parked = ParkedReport {
            schema: PARKED_SCHEMA.to_owned(),
            seen_seconds_ago: 0.0,
            counts: sight.tier.parked.clone(),
            listed: sight.parked,
        };
        let (tier, parked) = (Some(sight.tier), Some(parked));
        Ok(TopView { tier, parked, ..TopView::default() })
    }
}

/// An answer, or why there is none.
async fn get<T: DeserializeOwned>(authority: &str, path: &str) -> std::result::Result<T, String> {
    let answer = timeout(PATIENCE, converse(authority, path)).await;
    let answer = answer
        .map_err(|_| format!("none within {} s", PATIENCE.as_secs()))?
        .map_err(|cause| cause.to_string())?;
    read(&answer)
}

async fn converse(authority: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn read<T: DeserializeOwned>(answer: &str) -> std::result::Result<T, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is none of HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("the answer is {status}; is it a postrider of this version?"));
    }
    serde_json::from_str(body).map_err(|cause| format!("the answer has another shape: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::shape::ErrorReport;

    #[test]
    fn an_answer_is_read_or_told_of() {
        let body = r#"{"schema": "s", "error": "e", "remedy": "r", "more": 1}"#;
        let read = |text: String| read::<ErrorReport>(&text).map(|report| report.error);
        assert_eq!(read(format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{body}")), Ok("e".to_owned()));
        let refused = read(format!("HTTP/1.1 404 Not Found\r\n\r\n{body}"));
        assert!(refused.is_err_and(|cause| cause.contains("404")));
        assert!(read("SSH-2.0-OpenSSH".to_owned()).is_err());
        assert!(read("HTTP/1.1 200 OK\r\n\r\n{}".to_owned()).is_err());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_of() {
        let view = InstanceSource::new(vec!["127.0.0.1:1".to_owned()]).look().await;
        assert!(view.instances[0].report.is_err() && view.tier.is_none());
    }
}
