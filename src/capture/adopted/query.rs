//! The statement of a copy, and its rows.
//!
//! Promises: the statement runs nothing that a table's owner has made: names are quoted, constants escaped, no value is
//! cast; a row that cannot be read comes all the same, with the reason and what can be read of it. Must not: know a
//! session. Fails: with [`ErrorKind::Schema`] where an answer is not what was asked for.

use postgres_protocol::escape::{escape_identifier, escape_literal};

use crate::capture::adopted::mapping::{Adopted, ColumnMap, Form, Part, PartOrigin, TableColumn};
use crate::capture::adopted::row::id_of;
use crate::capture::log::decode::LoggedEvent;
use crate::capture::log::flawed::{Flawed, id_at};
use crate::capture::log::printed::from_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::event::OwnedEvent;
use crate::order::holds::Refusal;
use crate::postgres::{fill, without_head};
use crate::record::large::{HandedForm, HandedOn, HandedTexts, LargeRow, LargeValue};
use crate::schema;

const COPY: &str = include_str!("../../../sql/queries/adopted_copy.sql");
/// A value that is longer comes in parts of this size, if its event is larger than what is read.
const PART_BYTES: usize = 1024 * 1024;
/// What is behind it is no time of Kafka's, and does not fit where it is counted.
const TIME: &str = "case when isfinite({column}) then least(greatest(
    extract(epoch from {column}) * 1000000, -9223371331200000000), 9223371331200000000)::bigint::text end";

/// A row of the answer.
#[derive(Debug)]
pub(super) struct CopiedRow {
    /// The lower half of the transaction's id.
    pub(super) written_by: Option<String>,
    pub(super) content: RowAnswer,
}

/// What a row of the answer brings.
#[derive(Debug)]
pub(super) enum RowAnswer {
    /// An event.
    Event(LoggedEvent),
    /// One of which values are too long, and how many parts of these follow.
    Large(Box<LargeRow>, u64),
    /// A part of the value of this number.
    Part(u16, Vec<u8>),
}

/// A copy of one table.
#[derive(Debug)]
pub(super) struct CopyQuery {
    sql: String,
    name: String,
    /// The forms of the parts: what is padded comes with its blanks.
    forms: [Form; Part::ALL.len()],
}

impl CopyQuery {
    /// Of the rows for which the condition holds; an event of more than `event_bytes_max` comes in parts.
    pub(super) fn new(
        table: &Adopted,
        map: &ColumnMap,
        columns: &[TableColumn],
        condition: &str,
        event_bytes_max: usize,
    ) -> Self {
        let form = |part| match map.origin(part) {
            Some(PartOrigin::Column(name)) => columns
                .iter()
                .find(|column| column.name == *name)
                .and_then(|column| column.form)
                .unwrap_or(Form::Text),
            Some(PartOrigin::Constant(_)) | None => Form::Text,
        };
        let forms = Part::ALL.map(form);
        let sources = Part::ALL.map(|part| PartSource::of(part, map, forms[part as usize]));
        let list = |text: &dyn Fn(Part, &PartSource) -> Option<String>, separator: &str| {
            let texts = Part::ALL.into_iter().zip(&sources);
            let texts: Vec<String> =
                texts.filter_map(|(part, source)| text(part, source)).collect();
            texts.join(separator)
        };
        let faults = list(&PartSource::fault, ", ");
        let limit = i64::try_from(event_bytes_max).unwrap_or(i64::MAX).to_string();
        let part_bytes = PART_BYTES.to_string();
        let fault = if faults.is_empty() {
            "null::text".to_owned()
        } else {
            format!("concat_ws('; ', {faults})")
        };
        let sql = fill(
            without_head(COPY),
            &[
                ("{event_bytes_max}", &limit),
                ("{part_bytes}", &part_bytes),
                ("{parts}", &list(&PartSource::value, ", ")),
                ("{fault}", &fault),
                ("{columns}", &list(&PartSource::column, ", ")),
                ("{table}", &table.name.quoted()),
                ("{condition}", condition),
                ("{order}", &table.copy_order),
                ("{printed}", &list(&PartSource::printed, " ")),
            ],
        );
        Self { sql, name: table.name.to_string(), forms }
    }

    /// The statement.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// A row of the answer; an event of it gets this place.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when it is none.
    pub(super) fn read(&self, row: Vec<Option<String>>, place: i64) -> Result<CopiedRow> {
        let odd = || {
            let cause = format!("the copy of {} brings what was not asked for", self.name);
            Error::new(ErrorKind::Schema, cause)
                .with_remedy("tell us the table and the server's version")
        };
        let row: [Option<String>; 13] = row.try_into().map_err(|_| odd())?;
        let [
            id,
            aggregate_type,
            aggregate_id,
            kind,
            payload,
            bytes,
            headers,
            at,
            written_by,
            fault,
            lengths,
            number,
            content,
        ] = row;
        if let (Some(number), Some(content)) = (number, content) {
            let number = number.parse().map_err(|_| odd())?;
            let content = RowAnswer::Part(number, from_hex(content.as_bytes()).ok_or_else(odd)?);
            return Ok(CopiedRow { written_by, content });
        }
        let bytes = bytes.map(|hex| from_hex(hex.as_bytes()).ok_or_else(odd)).transpose()?;
        let at = at.map(|at| at.parse::<i64>().map_err(|_| odd())).transpose()?;
        let texts = [aggregate_type, aggregate_id, kind, headers];
        let parts = [Part::AggregateType, Part::AggregateId, Part::Kind, Part::Headers];
        let mut texts = texts.into_iter().zip(parts).map(|(text, part)| self.trimmed(part, text));
        let mut next = || texts.next().expect("there are four");
        let event = CopiedEvent {
            id: self.trimmed(Part::Id, id),
            aggregate_type: next(),
            aggregate_id: next(),
            kind: next(),
            headers: next(),
            payload: bytes.or_else(|| self.trimmed(Part::Payload, payload).map(String::into_bytes)),
            created_at_micros: at.unwrap_or_else(now_micros),
            fault,
        };
        let content = match lengths {
            None => RowAnswer::Event(event.into_event(place)),
            Some(lengths) => {
                let lengths: Option<Vec<u64>> =
                    lengths.split(',').map(|length| length.parse().ok()).collect();
                let lengths = lengths.and_then(|lengths| lengths.try_into().ok());
                let lengths: [u64; 5] = lengths.ok_or_else(odd)?;
                let parts = lengths.into_iter().filter(|length| is_handed_on(*length));
                let parts = parts.map(|length| length.div_ceil(PART_BYTES as u64)).sum();
                RowAnswer::Large(Box::new(event.into_large(place, &lengths, &self.forms)), parts)
            }
        };
        Ok(CopiedRow { written_by, content })
    }

    fn trimmed(&self, part: Part, text: Option<String>) -> Option<String> {
        let text = text?;
        Some(match (part, self.forms[part as usize]) {
            (_, Form::Padded) => text.trim_end_matches(' ').to_owned(),
            (Part::Id, Form::Bytes) => text.trim_start_matches("\\x").to_owned(),
            _ => text,
        })
    }
}

fn is_handed_on(length: u64) -> bool {
    length > PART_BYTES as u64
}

/// Where a part of an event comes from, in SQL.
enum PartSource {
    /// It is the same for all rows, or there is none.
    Fixed(String),
    /// A column of which every value has a text.
    Safe(String),
    /// Bytes that go as they are.
    Bytes(String),
    Time(String),
    /// A column of which a value may have no text.
    Careful(String),
}

impl PartSource {
    fn of(part: Part, map: &ColumnMap, form: Form) -> Self {
        let name = match map.origin(part) {
            None => return Self::Fixed("null::text".to_owned()),
            Some(PartOrigin::Constant(text)) => {
                return Self::Fixed(format!("{}::text", escape_literal(text)));
            }
            Some(PartOrigin::Column(name)) => format!("adopted_row.{}", escape_identifier(name)),
        };
        match (part, form) {
            (Part::CreatedAt, _) => Self::Time(name),
            (Part::Payload, Form::Bytes) => Self::Bytes(name),
            (_, Form::Uuid | Form::Integer) => Self::Safe(name),
            _ => Self::Careful(name),
        }
    }

    /// What is read of the table.
    fn column(part: Part, source: &Self) -> Option<String> {
        match source {
            Self::Fixed(_) => None,
            Self::Safe(name) | Self::Bytes(name) | Self::Time(name) | Self::Careful(name) => {
                Some(format!("{name} as {}", alias(part)))
            }
        }
    }

    /// The part, and of a payload also its bytes. `concat` calls the type's output function, as the stream does; a
    /// cast might be one that the table's owner has made, and would run with our rights.
    fn value(part: Part, source: &Self) -> Option<String> {
        let column = format!("ordered.{}", alias(part));
        let name = escape_identifier(part.name());
        let text = match source {
            Self::Fixed(text) => text.clone(),
            Self::Safe(_) => format!("case when num_nulls({column}) = 0 then concat({column}) end"),
            Self::Time(_) => TIME.replace("{column}", &column),
            Self::Bytes(_) => "null::text".to_owned(),
            Self::Careful(_) if part == Part::Payload => {
                format!("case when {0}.fault is null then {0}.printed end", printed(part))
            }
            Self::Careful(_) => format!("{}.printed", printed(part)),
        };
        let bytes = match source {
            _ if part != Part::Payload => return Some(format!("{text} as {name}")),
            Self::Bytes(_) => column,
            Self::Careful(_) => format!("{}.raw", printed(part)),
            Self::Fixed(_) | Self::Safe(_) | Self::Time(_) => "null::bytea".to_owned(),
        };
        Some(format!("{text} as {name}, {bytes} as payload_bytes"))
    }

    fn fault(part: Part, source: &Self) -> Option<String> {
        let is_careful = matches!(source, Self::Careful(_));
        is_careful.then(|| format!("'{}: ' || {}.fault", part.name(), printed(part)))
    }

    fn printed(part: Part, source: &Self) -> Option<String> {
        let is_careful = matches!(source, Self::Careful(_));
        let column = format!("ordered.{}", alias(part));
        let function = schema::chosen().of("printed");
        is_careful.then(|| format!("cross join lateral {function}({column}) as {}", printed(part)))
    }
}

/// What a part's column is called: no column of the table is, by which the order may go.
fn alias(part: Part) -> String {
    format!("postrider_{}", part.name())
}

fn printed(part: Part) -> String {
    format!("printed_{}", part.name())
}

/// An event as it was copied.
struct CopiedEvent {
    id: Option<String>,
    aggregate_type: Option<String>,
    aggregate_id: Option<String>,
    kind: Option<String>,
    headers: Option<String>,
    payload: Option<Vec<u8>>,
    created_at_micros: i64,
    fault: Option<String>,
}

impl CopiedEvent {
    fn into_event(self, seq: i64) -> LoggedEvent {
        let event = OwnedEvent {
            seq,
            id: id_of(&self.id.unwrap_or_default()),
            aggregate_type: self.aggregate_type.unwrap_or_default(),
            aggregate_id: self.aggregate_id.unwrap_or_default(),
            kind: self.kind.unwrap_or_default(),
            payload: self.payload,
            headers: self.headers,
            created_at_micros: self.created_at_micros,
        };
        match self.fault {
            None => LoggedEvent::Copied(Box::new(event)),
            Some(fault) => {
                let flawed = Flawed::of_copied(event, Refusal::unreadable(&fault));
                LoggedEvent::Flawed(Box::new(flawed))
            }
        }
    }

    fn into_large(
        self,
        place: i64,
        lengths: &[u64; 5],
        forms: &[Form; Part::ALL.len()],
    ) -> LargeRow {
        let handed_on = |number: u16, form| {
            let is_so = is_handed_on(lengths[usize::from(number)]);
            is_so.then(|| HandedOn { number, form, head: String::new() })
        };
        let text = |number, part, text: Option<String>| {
            let is_padded = forms[part as usize] == Form::Padded;
            let form = if is_padded { HandedForm::Padded } else { HandedForm::Text };
            match (handed_on(number, form), text) {
                (Some(value), _) => LargeValue::HandedOn(value),
                (None, Some(text)) => LargeValue::Here(text),
                (None, None) => LargeValue::None,
            }
        };
        LargeRow {
            place,
            // Of what is not here there is no hash.
            id: self.id.map_or_else(|| id_at(place), |id| id_of(&id)),
            created_at_micros: self.created_at_micros,
            aggregate_type: text(0, Part::AggregateType, self.aggregate_type),
            aggregate_id: text(1, Part::AggregateId, self.aggregate_id),
            kind: text(2, Part::Kind, self.kind),
            headers: text(3, Part::Headers, self.headers),
            payload: match (handed_on(4, HandedForm::Bytes), self.payload) {
                (Some(value), _) => LargeValue::HandedOn(value),
                (None, Some(payload)) => LargeValue::Here(payload),
                (None, None) => LargeValue::None,
            },
            event_bytes: lengths.iter().sum(),
            fault: self.fault,
            texts: HandedTexts::Utf8,
        }
    }
}

/// For rows that do not say when they were written.
fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
