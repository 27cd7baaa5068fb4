//! `postrider parked show`.
//!
//! Promises: the whole event, but for values that are too large to be shown; what is no text is shown in
//! hexadecimal, and what would move a terminal escaped. Must not: change anything.
//! Fails: when no parked event has the id; as its parent.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::postgres::{Sql, classify};
use crate::schema;

static SHOW: Sql = Sql::of(include_str!("../../../sql/queries/parked_show.sql"));

/// Of a text that has a line of its own: longer than what is written by hand.
const LINE_CHARACTERS: usize = 4_000;
/// Values of more bytes are not shown.
const SHOWN_BYTES: i64 = 16 * 1024 * 1024;

/// Shows a parked event, whole; of a value of more than 16 MiB its size.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider parked show 018f4e6a-5b1c-7def-8a00-0123456789ab
  postrider parked show 018f4e6a-5b1c-7def-8a00-0123456789ab --json | jq -r .payload")]
pub(super) struct ShowArguments {
    /// The event's id.
    #[arg(value_name = "ID")]
    event: Uuid,

    /// Prints JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    common: CommonSettings,
}

/// A parked event.
#[derive(Debug, Serialize)]
struct ShownParked {
    seq: i64,
    bucket: i16,
    id: String,
    aggregatetype: String,
    aggregateid: String,
    r#type: String,
    /// As text; none for a tombstone, and for what is no text.
    payload: Option<String>,
    /// What is no text, in hexadecimal.
    payload_hex: Option<String>,
    /// Also of one that is too large to be shown.
    payload_bytes: Option<i64>,
    headers: Option<Value>,
    created_at: String,
    reason: String,
    detail: String,
    /// Why columns are not as they were in the row.
    fault: Option<String>,
    topic: Option<String>,
    attempts: i32,
    parked_at: String,
    last_attempt_at: Option<String>,
}

pub(super) fn run(arguments: ShowArguments) -> Result<ExitCode> {
    let id = arguments.event;
    let shown: Vec<ShownParked> = block_on(async move {
        let connection = open_outbox(arguments.common, "parked").await?;
        let rows = connection.client().query(SHOW.text(), &[&id, &SHOWN_BYTES]).await;
        Ok(rows.map_err(|cause| classify("show a parked event", cause))?.iter().map(read).collect())
    })?;
    if shown.is_empty() {
        return Err(Error::new(ErrorKind::Internal, format!("no event {id} is parked"))
            .with_remedy("list those that are: postrider parked list"));
    }
    for event in shown {
        if arguments.json {
            output::answer_json(&event)?;
        } else {
            output::answer(&event.text())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(row: &Row) -> ShownParked {
    let payload: Option<Vec<u8>> = row.get("payload");
    let headers: Option<String> = row.get("headers");
    let (payload, payload_hex) = match payload.map(String::from_utf8) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(bytes)) => (None, Some(hexadecimal(bytes.as_bytes()))),
    };
    ShownParked {
        seq: row.get("seq"),
        bucket: row.get("bucket"),
        id: row.get::<_, Uuid>("id").to_string(),
        aggregatetype: row.get("aggregatetype"),
        aggregateid: row.get("aggregateid"),
        r#type: row.get("type"),
        payload,
        payload_hex,
        payload_bytes: row.get("payload_bytes"),
        headers: headers.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
        created_at: row.get("created_at"),
        reason: row.get("reason"),
        detail: row.get("detail"),
        fault: row.get("fault"),
        topic: row.get("topic"),
        attempts: row.get("attempts"),
        parked_at: row.get("parked_at"),
        last_attempt_at: row.get("last_attempt_at"),
    }
}

/// Lines that cannot be taken for ours: all but the first are indented.
fn lines(text: &str) -> String {
    legible::lines(text).replace('\n', "\n           ")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text takes text");
        text
    })
}

impl ShownParked {
    fn text(&self) -> String {
        let line = |text: &str| legible::shown(text, LINE_CHARACTERS);
        let open = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), line);
        let payload = match (&self.payload, &self.payload_hex, self.payload_bytes) {
            (Some(text), ..) => lines(text),
            (None, Some(hex), _) => format!("\\x{hex}"),
            (None, None, Some(bytes)) => {
                format!("- ({bytes} bytes, in {})", schema::chosen().of("parked"))
            }
            (None, None, None) if self.fault.is_some() => "- (see the fault)".to_owned(),
            (None, None, None) => "- (a tombstone)".to_owned(),
        };
        let headers = self
            .headers
            .as_ref()
            .map_or_else(|| "-".to_owned(), |headers| lines(&headers.to_string()));
        let aggregate = legible::aggregate(&self.aggregatetype, &self.aggregateid);
        [
            ("event", self.id.clone()),
            ("aggregate", aggregate),
            ("type", line(&self.r#type)),
            ("seq", format!("{} (bucket {})", self.seq, self.bucket)),
            ("created", self.created_at.clone()),
            ("reason", self.reason.clone()),
            ("detail", if self.detail.is_empty() { "-".to_owned() } else { line(&self.detail) }),
            ("fault", open(&self.fault)),
            ("topic", open(&self.topic)),
            ("parked", self.parked_at.clone()),
            ("attempts", format!("{}, the last {}", self.attempts, open(&self.last_attempt_at))),
            ("headers", headers),
            ("payload", payload),
        ]
        .iter()
        .fold(String::new(), |mut text, (name, value)| {
            writeln!(text, "{name:<10} {value}").expect("text takes text");
            text
        })
    }
}
