//! A row of an adopted table in the stream, as an event.
//!
//! Promises: payload and headers stay in the receive buffer, where they are UTF-8; what a column's type does not say
//! as text is written as PostgreSQL would; a row that cannot be read comes all the same, with the reason and what can
//! be read of it. Must not: know a connection. Fails: with [`ErrorKind::Schema`] when the table is not what was adopted
//! any more; with [`ErrorKind::SlotUnusable`] when the stream has to begin again.
//!
//! Source: the send functions of PostgreSQL, `src/backend/utils/adt`.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::ops::Range;

use bytes::{Buf, Bytes};
use hashbrown::HashMap;
use uuid::Uuid;

use crate::capture::adopted::mapping::{Adopted, ColumnMap, Form, Part, PartOrigin, ValueForm};
use crate::capture::log::encoding::Encoding;
use crate::capture::log::flawed::{Flawed, ReadRow, id_at};
use crate::capture::log::misformed::unprinted;
use crate::capture::log::pgoutput::{Relation, Tuple, Value};
use crate::capture::log::printed;
use crate::capture::log::sieve::{Keep, Oversized};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId};
use crate::order::holds::Refusal;
use crate::record::large::{HandedForm, HandedOn, HandedTexts, LargeRow, LargeValue};

/// Ids that are neither UUIDs nor numbers are hashed into UUIDs under this name.
const ID_NAMESPACE: Uuid = uuid::uuid!("a3a2d7a4-6f0e-4d0c-9f53-6b8a2f0c9d11");
/// Places of adopted rows lie above every `seq` of an outbox.
pub const PLACE_BASE: i64 = 1 << 62;
/// From 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Before the text of a `jsonb`.
const JSONB_VERSION_BYTES: usize = 1;

/// The forms of all types of a database.
pub type Forms = HashMap<u32, Form>;

/// The place of a row at this position of the log, in the order of writing.
pub fn place_at(arrival: i64) -> i64 {
    PLACE_BASE + arrival
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

    /// Its number among all adopted tables.
    pub fn table(&self) -> usize {
        self.table
    }

    /// What is kept of its columns, of which there are so many, where a row is long.
    pub fn keeps(&self, columns: usize) -> Vec<Keep> {
        let keep = |column: usize| {
            let form_here = |cell: &Cell| match cell {
                Cell::Column(place, form) if *place == column => Some(*form),
                Cell::Column(..) | Cell::Constant(_) | Cell::Missing => None,
            };
            match self.cells.iter().find_map(form_here) {
                Some(Form::Bytes) => Keep::HandOnBytes,
                Some(_) => Keep::HandOn,
                None => Keep::Nothing,
            }
        };
        (0..columns).map(keep).collect()
    }

    /// A row as an event. A null reads as an empty text; a row without a time has that of its commit.
    ///
    /// # Errors
    /// [`ErrorKind::SlotUnusable`] when a value comes in a form that is read no more.
    pub fn read(
        &self,
        row: &Tuple,
        encoding: &Encoding,
        log_position: i64,
        committed_at_micros: i64,
    ) -> Result<ReadRow<AdoptedRow>> {
        let found = self.find(row)?;
        let mut reading = RowReading { encoding, fault: None };
        let mut names = String::new();
        let mut ends = [0; 3];
        for (part, end) in
            [Part::AggregateType, Part::AggregateId, Part::Kind].into_iter().zip(&mut ends)
        {
            self.write_text(part, &found, &mut reading, &mut names);
            *end = names.len();
        }
        let mut id = String::new();
        self.write_text(Part::Id, &found, &mut reading, &mut id);
        let event = AdoptedRow {
            table: self.table,
            place: place_at(log_position),
            id: id_of(&id),
            created_at_micros: reading.created_at(&found, committed_at_micros),
            names: names.into_boxed_str(),
            ends: [ends[0], ends[1]],
            payload: found[Part::Payload as usize].as_ref().map(|found| reading.payload(found)),
            headers: found[Part::Headers as usize].as_ref().map(|found| reading.headers(found)),
            row_bytes: row.bytes().len(),
        };
        Ok(match reading.fault {
            None => ReadRow::Whole(event),
            Some(fault) => {
                let refusal = Refusal::unreadable(&fault);
                let flawed = Flawed::of_adopted(event.event().to_owned(), refusal, self.table);
                ReadRow::Flawed(Box::new(flawed))
            }
        })
    }

    /// A row of which values were handed on in parts.
    ///
    /// # Errors
    /// As [`AdoptedLeaf::read`].
    pub fn read_large(
        &self,
        row: &Tuple,
        oversized: &Oversized,
        encoding: &Encoding,
        log_position: i64,
        committed_at_micros: i64,
    ) -> Result<LargeRow> {
        let mut found = self.find(row)?;
        let mut reading = RowReading { encoding, fault: None };
        // What is handed on is read by nobody here, but for its beginning.
        let handed_on = Part::ALL.map(|part| {
            let number = self.number(part).filter(|number| oversized.handed_on.contains(number));
            let value = found[part as usize].take_if(|_| number.is_some());
            number.zip(value).map(|(number, value)| value.handed_on(number, encoding))
        });
        let text = |part: Part, reading: &mut RowReading<'_>| match &handed_on[part as usize] {
            Some(value) => LargeValue::HandedOn(value.clone()),
            None => {
                let mut text = String::new();
                self.write_text(part, &found, reading, &mut text);
                LargeValue::Here(text)
            }
        };
        let place = place_at(log_position);
        let id = text(Part::Id, &mut reading);
        let [aggregate_type, aggregate_id, kind] =
            [Part::AggregateType, Part::AggregateId, Part::Kind]
                .map(|part| text(part, &mut reading));
        let headers = match found[Part::Headers as usize] {
            None if handed_on[Part::Headers as usize].is_none() => LargeValue::None,
            _ => text(Part::Headers, &mut reading),
        };
        let payload = match (&handed_on[Part::Payload as usize], &found[Part::Payload as usize]) {
            (Some(value), _) => LargeValue::HandedOn(value.clone()),
            (None, Some(found)) => LargeValue::Here(reading.payload(found).into()),
            (None, None) => LargeValue::None,
        };
        Ok(LargeRow {
            place,
            // Of what is not here there is no hash.
            id: id.here().map_or_else(|| id_at(place), |text| id_of(text)),
            created_at_micros: reading.created_at(&found, committed_at_micros),
            aggregate_type,
            aggregate_id,
            kind,
            headers,
            payload,
            event_bytes: oversized.bytes as u64,
            fault: reading.fault,
            texts: match encoding {
                Encoding::Utf8 => HandedTexts::Utf8,
                _ => HandedTexts::AsInDatabase,
            },
        })
    }

    /// The number of a part's column.
    fn number(&self, part: Part) -> Option<u16> {
        match self.cells[part as usize] {
            Cell::Column(column, _) => u16::try_from(column).ok(),
            Cell::Constant(_) | Cell::Missing => None,
        }
    }

    /// Where the parts' values lie, without what stands before or behind a text.
    fn find(&self, row: &Tuple) -> Result<[Option<FoundValue>; Part::ALL.len()]> {
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
            found[part as usize] = Some(FoundValue { part, bytes, form: *form, value_form });
        }
        Ok(found)
    }

    fn write_text(
        &self,
        part: Part,
        found: &[Option<FoundValue>; Part::ALL.len()],
        reading: &mut RowReading<'_>,
        out: &mut String,
    ) {
        if let Cell::Constant(text) = &self.cells[part as usize] {
            out.push_str(text);
            return;
        }
        let Some(found) = &found[part as usize] else { return };
        let bytes = found.trimmed();
        match (found.form, found.value_form) {
            (Form::Uuid | Form::Bytes, ValueForm::Binary) => match Uuid::from_slice(&bytes) {
                Ok(id) => push(out, id),
                Err(_) => bytes.iter().for_each(|byte| push(out, format_args!("{byte:02x}"))),
            },
            (Form::Integer, ValueForm::Binary) => push(out, integer(&bytes)),
            (Form::Bytes, ValueForm::Text) => {
                out.push_str(reading.text(part, &bytes).trim_start_matches("\\x"));
            }
            _ => out.push_str(&reading.text(part, &bytes)),
        }
    }
}

/// Reads the values of one row. What cannot be read gets a form that can, and the row a fault.
struct RowReading<'a> {
    encoding: &'a Encoding,
    fault: Option<String>,
}

impl RowReading<'_> {
    fn text<'b>(&mut self, part: Part, bytes: &'b [u8]) -> Cow<'b, str> {
        self.encoding.decode(bytes).unwrap_or_else(|cause| {
            self.note(part, &format_args!("cannot be read: {cause}"));
            Cow::Owned(self.encoding.escape(bytes))
        })
    }

    fn headers(&mut self, found: &FoundValue) -> Bytes {
        let bytes = found.trimmed();
        match self.text(found.part, &bytes) {
            Cow::Borrowed(_) => {}
            Cow::Owned(text) => return text.into(),
        }
        bytes
    }

    /// As it lies there, if it cannot be read.
    fn payload(&mut self, found: &FoundValue) -> Bytes {
        let bytes = found.trimmed();
        match (found.form, found.value_form, self.encoding) {
            (Form::Bytes, ValueForm::Text, _) => match printed::from_hex(&bytes) {
                Some(bytes) => return bytes.into(),
                None => self.note(found.part, &"is printed in no known form"),
            },
            // The server has checked what it sends in UTF-8.
            (Form::Bytes, ValueForm::Binary, _) | (_, _, Encoding::Utf8) => {}
            (_, _, encoding) => match encoding.decode(&bytes) {
                Ok(Cow::Borrowed(_)) => {}
                Ok(Cow::Owned(text)) => return text.into(),
                Err(cause) => self.note(found.part, &format_args!("cannot be read: {cause}")),
            },
        }
        bytes
    }

    /// In microseconds since 1970; what is no time has that of the commit.
    fn created_at(
        &mut self,
        found: &[Option<FoundValue>; Part::ALL.len()],
        committed_at_micros: i64,
    ) -> i64 {
        let Some(found) = &found[Part::CreatedAt as usize] else { return committed_at_micros };
        let time = match found.value_form {
            ValueForm::Binary => found.bytes[..].try_into().ok().map(i64::from_be_bytes),
            ValueForm::Text => printed::micros(&self.text(found.part, &found.bytes)),
        };
        if time.is_none() {
            self.note(found.part, &"is in no known form");
        }
        let is_finite = |micros: &i64| !matches!(*micros, i64::MIN | i64::MAX);
        time.filter(is_finite)
            .map_or(committed_at_micros, |micros| micros.saturating_add(EPOCH_MICROS))
    }

    fn note(&mut self, part: Part, what: &dyn Display) {
        let fault = self.fault.get_or_insert_default();
        let separator = if fault.is_empty() { "" } else { "; " };
        push(fault, format_args!("{separator}{} {what}", part.name()));
    }
}

/// A value in a row.
#[derive(Debug)]
struct FoundValue {
    part: Part,
    /// Lent from the receive buffer.
    bytes: Bytes,
    form: Form,
    value_form: ValueForm,
}

impl FoundValue {
    /// Without what stands before or behind a text.
    fn trimmed(&self) -> Bytes {
        let mut bytes = self.bytes.clone();
        match (self.form, self.value_form) {
            (Form::Jsonb, ValueForm::Binary) => bytes.advance(JSONB_VERSION_BYTES.min(bytes.len())),
            (Form::Padded, _) => {
                let blanks = bytes.iter().rev().take_while(|byte| **byte == b' ').count();
                bytes.truncate(bytes.len() - blanks);
            }
            _ => {}
        }
        bytes
    }

    /// The same where only the beginning is here.
    fn handed_on(&self, number: u16, encoding: &Encoding) -> HandedOn {
        let form = match (self.form, self.value_form) {
            (Form::Jsonb, ValueForm::Binary) => HandedForm::Jsonb,
            (Form::Padded, _) => HandedForm::Padded,
            (Form::Bytes, ValueForm::Text) => HandedForm::Hexadecimal,
            (Form::Bytes, ValueForm::Binary) => HandedForm::Bytes,
            _ => HandedForm::Text,
        };
        HandedOn { number, form, head: encoding.escape(&self.trimmed()) }
    }
}

/// A column's type was changed while the log was read: from the next session on its values come as text.
fn begun_before(part: Part) -> Error {
    unprinted(format!("the column for {} has another type since the log is read", part.name()))
}

fn push(out: &mut String, what: impl Display) {
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

fn find_cell(columns: &ColumnMap, part: Part, relation: &Relation, forms: &Forms) -> Option<Cell> {
    match columns.origin(part) {
        None => Some(Cell::Missing),
        Some(PartOrigin::Constant(text)) => Some(Cell::Constant(text.clone())),
        Some(PartOrigin::Column(name)) => {
            let number = relation.columns.iter().position(|column| column.name.as_str() == name)?;
            let form = forms.get(&relation.columns[number].type_oid).copied();
            let form = form.unwrap_or(Form::Printed);
            part.takes(form).then_some(Cell::Column(number, form))
        }
    }
}

fn part_column(columns: &ColumnMap, part: Part) -> &str {
    match columns.origin(part) {
        Some(PartOrigin::Column(name)) => name,
        Some(PartOrigin::Constant(_)) | None => part.name(),
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
#[path = "row_tests.rs"]
mod tests;
