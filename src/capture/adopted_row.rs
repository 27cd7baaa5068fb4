//! A row of an adopted table in the stream, as an event.
//!
//! Promises: payload and headers stay in the receive buffer; what a column's type does not say as text
//! is written as PostgreSQL would. Must not: know a connection. Fails: with [`ErrorKind::Schema`] when the
//! table is not what was adopted any more, or a text is no UTF-8.
//!
//! Source: the send functions of PostgreSQL, `src/backend/utils/adt`.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::{Buf, Bytes};
use hashbrown::HashMap;
use uuid::Uuid;

use super::pgoutput::{Relation, Tuple, Value};
use super::printed;
use crate::adopted::{Adopted, ColumnMap, Form, Origin, Part, ValueForm};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId};

/// Ids that are neither UUIDs nor numbers are hashed into UUIDs under this name.
const ID_NAMESPACE: Uuid = uuid::uuid!("a3a2d7a4-6f0e-4d0c-9f53-6b8a2f0c9d11");
/// Places of adopted rows lie above every `seq` of an outbox.
const PLACE_BASE: i64 = 1 << 62;
/// From 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Before the text of a `jsonb`.
const JSONB_VERSION_BYTES: usize = 1;

/// The forms of all types of a database.
pub type Forms = HashMap<u32, Form>;

/// The place of a row at this position of the log, in the order of writing.
pub fn place_at(log_position: i64) -> i64 {
    PLACE_BASE + log_position
}

/// The id that an event has: a UUID as it is, a number as a UUID that ends with it, any other text as
/// the UUID that its hash gives. Empty is the nil UUID.
pub fn id_of(text: &str) -> EventId {
    let id = match (text.parse::<Uuid>(), text.parse::<u64>()) {
        (Ok(id), _) => id,
        (_, Ok(number)) => Uuid::from_u128(number.into()),
        _ if text.is_empty() => Uuid::nil(),
        _ => Uuid::new_v5(&ID_NAMESPACE, text.as_bytes()),
    };
    EventId(id.into_bytes())
}

/// Where one part of an event stands in a row.
#[derive(Clone, Debug)]
enum Cell {
    /// In the column of this number.
    Column(usize, Form),
    Constant(String),
    Missing,
}

/// An adopted table as the stream describes it.
#[derive(Debug)]
pub struct AdoptedLeaf {
    table: usize,
    cells: [Cell; Part::ALL.len()],
}

impl AdoptedLeaf {
    /// Finds the columns; `table` is its number among all adopted ones.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when a column is gone, or has a type of another form.
    pub fn new(
        table: usize,
        adopted: &Adopted,
        relation: &Relation,
        forms: &Forms,
    ) -> Result<Self> {
        let find = |part| {
            find_cell(&adopted.columns, part, relation, forms).ok_or_else(|| {
                let name = part_column(&adopted.columns, part);
                Error::new(
                    ErrorKind::Schema,
                    format!(
                        "the column {name} of the adopted table {} is not what it was",
                        adopted.name
                    ),
                )
                .with_remedy(format!(
                    "restore it, or give the table back (`postrider adopt {} --end`) and adopt it \
                     with another map",
                    adopted.name
                ))
            })
        };
        let mut cells = [const { Cell::Missing }; Part::ALL.len()];
        for part in Part::ALL {
            cells[part as usize] = find(part)?;
        }
        Ok(Self { table, cells })
    }

    /// A row as an event. A null reads as an empty text; a row without a time has that of its commit.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when a text is no UTF-8.
    pub fn read(
        &self,
        row: &Tuple,
        log_position: i64,
        committed_at_micros: i64,
    ) -> Result<AdoptedRow> {
        let found = self.find(row)?;
        let bytes = row.bytes();
        let mut names = String::new();
        let mut ends = [0; 3];
        for (part, end) in
            [Part::AggregateType, Part::AggregateId, Part::Kind].into_iter().zip(&mut ends)
        {
            self.write_text(part, &found, &mut names)?;
            *end = names.len();
        }
        let mut id = String::new();
        self.write_text(Part::Id, &found, &mut id)?;
        let headers = found[Part::Headers as usize].as_ref().map(|found| found.bytes.clone());
        if let Some(headers) = &headers {
            text_of(headers)?;
        }
        let payload = found[Part::Payload as usize].as_ref().map(Found::payload).transpose()?;
        let time = found[Part::CreatedAt as usize].as_ref().map(Found::time).transpose()?;
        let is_finite = |micros: &i64| !matches!(*micros, i64::MIN | i64::MAX);
        let created_at_micros = time
            .filter(is_finite)
            .map_or(committed_at_micros, |micros| micros.saturating_add(EPOCH_MICROS));
        Ok(AdoptedRow {
            table: self.table,
            place: place_at(log_position),
            id: id_of(&id),
            created_at_micros,
            names: names.into_boxed_str(),
            ends: [ends[0], ends[1]],
            payload,
            headers,
            row_bytes: bytes.len(),
        })
    }

    /// Where the parts' values lie, without what stands before or behind a text.
    fn find(&self, row: &Tuple) -> Result<[Option<Found>; Part::ALL.len()]> {
        let mut found = [const { None }; Part::ALL.len()];
        let values: Vec<Value<Range<u32>>> = row.ranges().collect();
        for part in Part::ALL {
            let Cell::Column(column, form) = &self.cells[part as usize] else { continue };
            let (range, value_form) = match values.get(*column).cloned() {
                Some(Value::Binary(range)) => (range, ValueForm::Binary),
                Some(Value::Text(range)) => (range, ValueForm::Text),
                Some(Value::Null | Value::Unchanged) | None => continue,
            };
            if value_form == ValueForm::Binary && !form.is_written_here() && part != Part::CreatedAt
            {
                return Err(begun_before(part));
            }
            let bytes = row.bytes().slice(range.start as usize..range.end as usize);
            found[part as usize] = Some(Found::new(bytes, *form, value_form));
        }
        Ok(found)
    }

    fn write_text(
        &self,
        part: Part,
        found: &[Option<Found>; Part::ALL.len()],
        out: &mut String,
    ) -> Result<()> {
        if let Cell::Constant(text) = &self.cells[part as usize] {
            out.push_str(text);
            return Ok(());
        }
        let Some(Found { bytes, form, value_form }) = &found[part as usize] else { return Ok(()) };
        match (form, value_form) {
            (Form::Uuid | Form::Bytes, ValueForm::Binary) => match Uuid::from_slice(bytes) {
                Ok(id) => push(out, id),
                Err(_) => bytes.iter().for_each(|byte| push(out, format_args!("{byte:02x}"))),
            },
            (Form::Integer, ValueForm::Binary) => push(out, integer(bytes)),
            (Form::Bytes, ValueForm::Text) => {
                out.push_str(text_of(bytes)?.trim_start_matches("\\x"));
            }
            _ => out.push_str(text_of(bytes)?),
        }
        Ok(())
    }
}

/// A value in a row, without what stands before or behind a text.
#[derive(Debug)]
struct Found {
    /// Lent from the receive buffer.
    bytes: Bytes,
    form: Form,
    value_form: ValueForm,
}

impl Found {
    fn new(mut bytes: Bytes, form: Form, value_form: ValueForm) -> Self {
        match (form, value_form) {
            (Form::Jsonb, ValueForm::Binary) => {
                bytes.advance(JSONB_VERSION_BYTES.min(bytes.len()));
            }
            (Form::Padded, _) => {
                let blanks = bytes.iter().rev().take_while(|byte| **byte == b' ').count();
                bytes.truncate(bytes.len() - blanks);
            }
            _ => {}
        }
        Self { bytes, form, value_form }
    }

    fn payload(&self) -> Result<Bytes> {
        match (self.form, self.value_form) {
            (Form::Bytes, ValueForm::Text) => printed::from_hex(&self.bytes)
                .map(Bytes::from)
                .ok_or_else(|| oddly_printed("bytea")),
            _ => Ok(self.bytes.clone()),
        }
    }

    /// In microseconds since 2000.
    fn time(&self) -> Result<i64> {
        let time = match self.value_form {
            ValueForm::Binary => self.bytes[..].try_into().ok().map(i64::from_be_bytes),
            ValueForm::Text => printed::micros(text_of(&self.bytes)?),
        };
        time.ok_or_else(|| oddly_printed("time"))
    }
}

fn oddly_printed(what: &str) -> Error {
    Error::new(ErrorKind::Schema, format!("a {what} of an adopted table comes in no known form"))
        .with_remedy("tell us the value and the server's version")
}

/// A column's type was changed while the log was read: from the next session on its values come as text.
fn begun_before(part: Part) -> Error {
    let cause = format!("the column for {} has another type since the log is read", part.name());
    Error::new(ErrorKind::Schema, cause).with_remedy("start postrider again: it reads the new type")
}

fn push(out: &mut String, what: impl std::fmt::Display) {
    write!(out, "{what}").expect("a string takes everything");
}

/// Two, four or eight bytes, the most significant first.
fn integer(bytes: &[u8]) -> i64 {
    let fill = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    let start = wide.len().saturating_sub(bytes.len());
    wide[start..].copy_from_slice(&bytes[..8 - start]);
    i64::from_be_bytes(wide)
}

fn text_of(bytes: &[u8]) -> Result<&str> {
    str::from_utf8(bytes).map_err(|cause| {
        Error::new(ErrorKind::Schema, format!("a text of an adopted table is no UTF-8: {cause}"))
            .with_remedy("convert the database's texts to its value_form")
    })
}

fn find_cell(columns: &ColumnMap, part: Part, relation: &Relation, forms: &Forms) -> Option<Cell> {
    match columns.origin(part) {
        None => Some(Cell::Missing),
        Some(Origin::Constant(text)) => Some(Cell::Constant(text.clone())),
        Some(Origin::Column(name)) => {
            let number = relation.columns.iter().position(|column| column.name.as_str() == name)?;
            let form = forms.get(&relation.columns[number].type_oid).copied();
            let form = form.unwrap_or(Form::Printed);
            part.takes(form).then_some(Cell::Column(number, form))
        }
    }
}

fn part_column(columns: &ColumnMap, part: Part) -> &str {
    match columns.origin(part) {
        Some(Origin::Column(name)) => name,
        Some(Origin::Constant(_)) | None => part.name(),
    }
}

/// A row of an adopted table.
#[derive(Debug)]
pub struct AdoptedRow {
    /// The table's number among all adopted ones.
    pub table: usize,
    place: i64,
    id: EventId,
    created_at_micros: i64,
    /// Kind of aggregate, aggregate, kind of event.
    names: Box<str>,
    ends: [usize; 2],
    payload: Option<Bytes>,
    headers: Option<Bytes>,
    /// Of the whole row, as long as a part of it is lent.
    row_bytes: usize,
}

impl AdoptedRow {
    /// Its place in the order of writing.
    pub fn place(&self) -> i64 {
        self.place
    }

    /// The bytes that it keeps in memory.
    pub fn size_bytes(&self) -> usize {
        self.row_bytes + self.names.len()
    }

    /// The aggregate.
    pub fn aggregate_id(&self) -> &[u8] {
        self.names[self.ends[0]..self.ends[1]].as_bytes()
    }

    /// As an event.
    pub fn event(&self) -> Event<'_> {
        let [first, second] = self.ends;
        Event {
            seq: self.place,
            id: self.id,
            aggregate_type: &self.names[..first],
            aggregate_id: &self.names[first..second],
            kind: &self.names[second..],
            payload: self.payload.as_deref(),
            headers: self
                .headers
                .as_deref()
                .map(|bytes| str::from_utf8(bytes).expect("checked when it was read")),
            created_at_micros: self.created_at_micros,
        }
    }
}

#[cfg(test)]
#[path = "adopted_row_tests.rs"]
mod tests;
