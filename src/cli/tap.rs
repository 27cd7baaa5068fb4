//! `postrider tap`: records as they would be sent.
//!
//! Promises: reads only, and asks no broker; what is shown is a sample. Must not: move a cursor.
//! Fails: when the outbox cannot be read, or holds no events.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::ser::SerializeMap;

use crate::capture::mode::{Mode, read_state};
use crate::capture::table::claim::WithheldRow;
use crate::capture::table::sample::{OutboxSampler, SampleFilter};
use crate::cli::output::Reader;
use crate::cli::{block_on, output, prepare};
use crate::config::Config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::config::units::Span;
use crate::control::migrate::load;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventPlace, LendEvent};
use crate::legible;
use crate::order::holds::Refusal;
use crate::postgres::connect;
use crate::record::encode::{Encoder, Record, size_bytes};

/// So many of what is there already are shown, where nobody says how many.
const FORMER_MAX: i64 = 10;
/// So many are shown per look.
const PER_LOOK_MAX: i64 = 100;

/// Shows records as they would be sent, one JSON object per line, without Kafka.
#[derive(Args, Debug)]
#[command(after_help = "\
Begins with the newest events that the outbox holds, published or not, and goes on with those that
are written, 100 per interval at most: it is a sample. Changes nothing.

Examples:
  postrider tap --limit 1
  postrider tap --aggregate order/4711 --format cloudevents
  postrider tap --type OrderPlaced --interval 5s | jq .headers")]
pub(super) struct TapArguments {
    /// Shows events of this aggregate: its type up to the first slash, its id behind it.
    #[arg(long, value_name = "TYPE/ID", value_parser = crate::cli::parked::aggregate)]
    aggregate: Option<(String, String)>,

    /// Shows events of aggregates of this type, also of one with a slash in it.
    #[arg(long, value_name = "TYPE", conflicts_with = "aggregate")]
    aggregate_type: Option<String>,

    /// Shows events of aggregates of this id.
    #[arg(long, value_name = "ID", conflicts_with = "aggregate")]
    aggregate_id: Option<String>,

    /// Shows events of this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    /// Ends after so many [default: never].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// Looks this often.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Span,

    #[command(flatten)]
    relay: RelaySettings,
    #[command(flatten)]
    common: CommonSettings,
}

/// A record, or why there is none.
#[derive(Debug, Serialize)]
struct Tapped<'a> {
    seq: i64,
    topic: Option<&'a str>,
    key: &'a str,
    headers: Option<TappedHeaders<'a>>,
    /// Text, or null for a tombstone; absent where the payload is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    size_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<TappedRefusal<'a>>,
}

#[derive(Debug, Serialize)]
struct TappedRefusal<'a> {
    reason: &'static str,
    detail: &'a str,
}

/// In their order, a name as often as a record has it.
#[derive(Debug)]
struct TappedHeaders<'a>(Record<'a>);

impl Serialize for TappedHeaders<'_> {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.header_count()))?;
        for (name, value) in self.0.headers() {
            map.serialize_entry(name, &value.map(String::from_utf8_lossy))?;
        }
        map.end()
    }
}

pub(super) fn run(arguments: TapArguments) -> Result<ExitCode> {
    block_on(tap(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn tap(arguments: TapArguments) -> Result<()> {
    let interval = Duration::from(arguments.interval);
    let mut left = arguments.limit.map(i64::from);
    let filter = filter(&arguments);
    let (common, relay, _) = prepare(arguments.common, arguments.relay, "warn")?;
    let config = Config::resolve(&common, &relay)?;
    let connection = connect(&config.database, "tap").await?;
    let outbox = load(connection.client(), &config.outbox).await?;
    let state = read_state(&connection).await?;
    if config.capture.unwrap_or(state.mode) == Mode::Message {
        let cause = "by message events are in the WAL alone, where the relay reads them: the outbox holds none";
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("read the topic, or look at rows with --capture poll"));
    }
    if state.adopted > 0 {
        tracing::warn!("rows of adopted tables are not shown: tap reads the outbox");
    }
    let mut encoder = config.kafka.encoder(outbox.payload);
    let mut sampler =
        OutboxSampler::new(connection, &outbox, config.max_event_bytes, filter).await?;
    let mut at_once = left.unwrap_or(FORMER_MAX);
    loop {
        for row in sampler.look(at_once.min(PER_LOOK_MAX)).await? {
            let shown = match row.withheld(config.max_event_bytes) {
                None => show(&mut encoder, &row.event())?,
                Some(withheld) => show_withheld(&withheld)?,
            };
            if shown == Reader::Gone {
                return Ok(());
            }
            left = left.map(|left| left - 1);
        }
        if left == Some(0) {
            return Ok(());
        }
        at_once = left.unwrap_or(PER_LOOK_MAX);
        tokio::time::sleep(interval).await;
    }
}

fn filter(arguments: &TapArguments) -> SampleFilter {
    let (aggregate_type, aggregate_id) = match &arguments.aggregate {
        Some((aggregate_type, id)) => (Some(aggregate_type.clone()), Some(id.clone())),
        None => (arguments.aggregate_type.clone(), arguments.aggregate_id.clone()),
    };
    SampleFilter { aggregate_type, aggregate_id, kind: arguments.kind.clone() }
}

fn show(encoder: &mut Encoder, event: &Event<'_>) -> Result<Reader> {
    let place = EventPlace { seq: Some(event.seq), position: None };
    let line = match encoder.encode(event, place) {
        Ok(record) => line(&of_record(event, record)),
        Err(cause) => {
            let refusal = Refusal::from(cause);
            line(&of_refusal(event, &refusal))
        }
    };
    encoder.rest();
    output::answer_while_read(&legible::json(line?))
}

/// What stands in the place of a row that cannot be read; of its value nothing is known.
fn show_withheld(withheld: &WithheldRow) -> Result<Reader> {
    let event = withheld.event();
    let refused =
        withheld.flaw().map(|refusal| Tapped { value: None, ..of_refusal(&event, refusal) });
    match refused {
        Some(tapped) => output::answer_while_read(&legible::json(line(&tapped)?)),
        None => Ok(Reader::There),
    }
}

fn line(tapped: &Tapped<'_>) -> Result<String> {
    serde_json::to_string(tapped).map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("a record cannot be written as JSON: {cause}"))
    })
}

fn of_record<'a>(event: &Event<'a>, record: Record<'a>) -> Tapped<'a> {
    let (value, value_hex) = shown(record.value);
    Tapped {
        seq: event.seq,
        topic: Some(record.topic),
        key: record.key,
        size_bytes: Some(size_bytes(&record)),
        headers: Some(TappedHeaders(record)),
        value,
        value_hex,
        refused: None,
    }
}

fn of_refusal<'a>(event: &Event<'a>, refusal: &'a Refusal) -> Tapped<'a> {
    let (value, value_hex) = shown(event.payload);
    Tapped {
        seq: event.seq,
        topic: None,
        key: event.aggregate_id,
        size_bytes: None,
        headers: None,
        value,
        value_hex,
        refused: Some(TappedRefusal { reason: refusal.reason.name(), detail: &refusal.detail }),
    }
}

/// As text, or in hexadecimal digits what is none.
fn shown(value: Option<&[u8]>) -> (Option<Option<&str>>, Option<String>) {
    match value.map(std::str::from_utf8) {
        None => (Some(None), None),
        Some(Ok(text)) => (Some(Some(text)), None),
        Some(Err(_)) => {
            let digits = value.unwrap_or_default().iter().map(|byte| format!("{byte:02x}"));
            (None, Some(digits.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::EventId;

    fn tapped(kind: &str, payload: Option<&[u8]>, headers: Option<&str>) -> Value {
        let event = Event {
            seq: 7,
            id: EventId([0x11; 16]),
            aggregate_type: "order",
            aggregate_id: "42",
            kind,
            payload,
            headers,
            created_at_micros: 0,
        };
        let mut encoder = Encoder::new("t.{aggregatetype}".parse().expect("a topic"));
        let said = match encoder.encode(&event, EventPlace::default()) {
            Ok(record) => line(&of_record(&event, record)),
            Err(cause) => line(&of_refusal(&event, &cause.into())),
        };
        serde_json::from_str(&said.expect("it is written")).expect("it is JSON")
    }

    #[test]
    fn a_line_is_the_record_that_would_be_sent() {
        let found = tapped("placed", Some(b"{\"a\": 1}"), Some(r#"{"trace": "x", "none": null}"#));
        let id = "11111111-1111-1111-1111-111111111111";
        let headers = json!({"id": id, "type": "placed", "trace": "x", "none": null});
        assert_eq!(found["headers"], headers);
        assert_eq!((&found["topic"], &found["key"]), (&json!("t.order"), &json!("42")));
        assert_eq!((&found["value"], &found["seq"]), (&json!("{\"a\": 1}"), &json!(7)));
        assert!(found["size_bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{found}");
        let gone = tapped("placed", None, None);
        assert!(gone["value"].is_null() && gone.get("value").is_some(), "{gone}");
        let bytes = tapped("placed", Some(&[0, 0xff]), None);
        assert_eq!((bytes.get("value"), &bytes["value_hex"]), (None, &json!("00ff")));
    }

    #[test]
    fn what_would_be_parked_says_why() {
        let found = tapped("placed", None, Some("[1]"));
        assert_eq!(found["refused"]["reason"], "bad-headers");
        assert!(found["headers"].is_null() && found["topic"].is_null(), "{found}");
    }
}
