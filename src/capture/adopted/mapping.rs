//! A table that postrider did not make: what of its rows is an event.
//!
//! Promises: a map is complete before a row is read by it; names are only ever quoted, constants are
//! escaped. Must not: know a session. Fails: [`ErrorKind::Config`] for a map without meaning,
//! [`ErrorKind::Schema`] for a table that does not fit.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::outbox::OutboxName;

/// A part of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its identity.
    Id,
    /// The kind of aggregate.
    AggregateType,
    /// The aggregate.
    AggregateId,
    /// The kind of event.
    Kind,
    /// The record's value.
    Payload,
    /// More headers.
    Headers,
    /// When it was written.
    CreatedAt,
}

impl Part {
    /// All parts, in their order.
    pub const ALL: [Self; 7] = [
        Self::Id,
        Self::AggregateType,
        Self::AggregateId,
        Self::Kind,
        Self::Payload,
        Self::Headers,
        Self::CreatedAt,
    ];

    /// As it is typed; also the column that is taken where nobody says another, as Debezium's event
    /// router does.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::AggregateType => "aggregatetype",
            Self::AggregateId => "aggregateid",
            Self::Kind => "type",
            Self::Payload => "payload",
            Self::Headers => "headers",
            Self::CreatedAt => "created_at",
        }
    }

    /// A table may lack it.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Headers | Self::CreatedAt)
    }

    /// It may be the same for all rows.
    const fn may_be_constant(self) -> bool {
        matches!(self, Self::AggregateType | Self::Kind)
    }

    /// Whether it is written as the text that PostgreSQL prints for the value.
    const fn is_printed(self) -> bool {
        matches!(self, Self::Id | Self::AggregateType | Self::AggregateId | Self::Kind)
    }

    /// Whether values of this form can be it.
    pub fn takes(self, form: Form) -> bool {
        match self {
            Self::Id => form != Form::Jsonb,
            Self::AggregateType | Self::Kind | Self::AggregateId => {
                !matches!(form, Form::Jsonb | Form::Bytes)
            }
            Self::Payload => matches!(form, Form::Text | Form::Padded | Form::Bytes | Form::Jsonb),
            Self::Headers => matches!(form, Form::Text | Form::Jsonb),
            Self::CreatedAt => form == Form::Time,
        }
    }
}

/// How a type's values look in binary form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As text: `text`, `varchar`, `json`, `xml`, an enum, `citext`.
    Text,
    /// As text that is filled up with blanks: `char(n)`.
    Padded,
    /// As they are: `bytea`.
    Bytes,
    /// As text behind a byte with a version.
    Jsonb,
    /// Sixteen bytes.
    Uuid,
    /// A number of two, four or eight bytes.
    Integer,
    /// Microseconds since 2000: `timestamptz`; `timestamp` is taken for UTC.
    Time,
    /// A number of any size: `numeric`. Only the server knows its text.
    Numeric,
    /// Of any other type: only the server knows its text.
    Printed,
}

impl Form {
    /// The form that PostgreSQL's send function of this name writes. A type without one is sent as text.
    pub fn of_sender(sender: Option<&str>) -> Self {
        match sender.unwrap_or_default() {
            "textsend" | "varcharsend" | "namesend" | "json_send" | "xml_send" | "enum_send"
            | "citextsend" => Self::Text,
            "bpcharsend" => Self::Padded,
            "byteasend" => Self::Bytes,
            "jsonb_send" => Self::Jsonb,
            "uuid_send" => Self::Uuid,
            "int2send" | "int4send" | "int8send" => Self::Integer,
            "timestamptz_send" | "timestamp_send" => Self::Time,
            "numeric_send" => Self::Numeric,
            _ => Self::Printed,
        }
    }

    /// Whether its text can be written from its binary form.
    pub const fn is_written_here(self) -> bool {
        !matches!(self, Self::Time | Self::Numeric | Self::Printed)
    }
}

/// Where a part of an event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartOrigin {
    /// The column of this name.
    Column(String),
    /// It is the same for all rows.
    Constant(String),
}

/// One part and its origin: `aggregateid=order_id`, `type='Placed'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The part.
    pub part: Part,
    /// Where it comes from.
    pub origin: PartOrigin,
}

impl fmt::Display for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            PartOrigin::Column(column) => write!(formatter, "{}={column}", self.part.name()),
            PartOrigin::Constant(text) => {
                write!(formatter, "{}='{}'", self.part.name(), text.replace('\'', "''"))
            }
        }
    }
}

impl FromStr for Mapping {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::Config`] when the text is no such pair.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |cause: String| {
            Err(Error::new(ErrorKind::Config, cause).with_remedy(
                "write it as part=column, like aggregateid=order_id, or as type='Placed' \
                 (aggregatetype and type) where it is the same for all rows",
            ))
        };
        let Some((name, origin)) = text.split_once('=') else {
            return refuse(format!("{text:?} is not part=column"));
        };
        let Some(part) = Part::ALL.into_iter().find(|part| part.name() == name.trim()) else {
            return refuse(format!("an event has no part {name:?}"));
        };
        let origin = origin.trim();
        let origin = match origin.strip_prefix('\'') {
            None if origin.is_empty() => return refuse(format!("{text:?} names no column")),
            None => PartOrigin::Column(origin.to_owned()),
            Some(rest) => match rest.strip_suffix('\'') {
                Some(constant) if part.may_be_constant() => {
                    PartOrigin::Constant(constant.replace("''", "'"))
                }
                _ => return refuse(format!("{text:?} is no constant that this part can have")),
            },
        };
        Ok(Self { part, origin })
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name, without quotes.
    pub name: String,
    /// What its type is called.
    pub type_name: String,
    /// How its values look; none when it is generated, so that the log does not bring it.
    pub form: Option<Form>,
}

/// In which form the stream brings the values of all tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueForm {
    /// In the binary form of their types: nothing is printed and read again.
    #[default]
    Binary,
    /// As PostgreSQL prints them.
    Text,
}

/// Where each part of an event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnMap(Vec<Mapping>);

impl ColumnMap {
    /// A map that was checked when the table was adopted.
    pub fn restore(mappings: Vec<Mapping>) -> Self {
        Self(mappings)
    }

    /// The map of a table: what is asked for, and for the rest the columns that bear a part's name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a part is given twice; [`ErrorKind::Schema`] when a column is missing, or
    /// of a type that the part cannot have.
    pub fn resolve(asked: &[Mapping], columns: &[TableColumn]) -> Result<Self> {
        let mut mappings = Vec::new();
        for part in Part::ALL {
            let mut given = asked.iter().filter(|mapping| mapping.part == part);
            let origin = given.next().map(|mapping| mapping.origin.clone());
            if given.next().is_some() {
                let cause = format!("the part {} is given twice", part.name());
                return Err(Error::new(ErrorKind::Config, cause).with_remedy("give it once"));
            }
            let is_asked = origin.is_some();
            let origin = origin.unwrap_or_else(|| PartOrigin::Column(part.name().to_owned()));
            match check(part, &origin, columns) {
                Ok(()) => mappings.push(Mapping { part, origin }),
                Err(_) if part.is_optional() && !is_asked => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(mappings))
    }

    /// How the stream has to bring a table's values: as text where only the server can print one that is to be
    /// printed.
    pub fn value_form(&self, columns: &[TableColumn]) -> ValueForm {
        let is_beyond_us = |mapping: &Mapping| match &mapping.origin {
            PartOrigin::Constant(_) => false,
            PartOrigin::Column(name) => columns
                .iter()
                .find(|column| column.name == *name)
                .and_then(|column| column.form)
                .is_some_and(|form| mapping.part.is_printed() && !form.is_written_here()),
        };
        if self.0.iter().any(is_beyond_us) { ValueForm::Text } else { ValueForm::Binary }
    }

    /// The pairs.
    pub fn mappings(&self) -> &[Mapping] {
        &self.0
    }

    /// Where a part comes from; none when the table lacks it.
    pub fn origin(&self, part: Part) -> Option<&PartOrigin> {
        self.0.iter().find(|mapping| mapping.part == part).map(|mapping| &mapping.origin)
    }
}

fn check(part: Part, origin: &PartOrigin, columns: &[TableColumn]) -> Result<()> {
    let PartOrigin::Column(name) = origin else { return Ok(()) };
    let refuse = |cause: String, remedy: String| {
        Err(Error::new(ErrorKind::Schema, cause).with_remedy(remedy))
    };
    let part_name = part.name();
    let Some(column) = columns.iter().find(|column| column.name == *name) else {
        let cause = format!("the table has no column {name}, from which {part_name} would come");
        let constant =
            if part.may_be_constant() { ", or the same for all: type='…'" } else { "" };
        return refuse(cause, format!("give --column {part_name}=<column>{constant}"));
    };
    let another = format!("give --column {part_name}=<another column>");
    match column.form {
        Some(form) if part.takes(form) => Ok(()),
        Some(_) => {
            let type_name = &column.type_name;
            let cause =
                format!("the column {name} has a type that {part_name} cannot have: {type_name}");
            refuse(cause, another)
        }
        None => {
            let cause = format!("the column {name} is generated: the log does not bring it");
            refuse(cause, another)
        }
    }
}

/// No transaction's id: among those of a table whose rows the stream does not bring until they are copied.
pub(super) const LEFT_OUT: TransactionId = 0;

/// An adopted table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its name.
    pub name: OutboxName,
    /// What of a row is an event.
    pub columns: ColumnMap,
    /// Which rows nobody had published when it was adopted, as SQL; all where none.
    pub pending: Option<String>,
    /// The order of rows that the stream does not bring, as SQL.
    pub copy_order: String,
    /// The transactions whose rows are published; none before the first.
    pub passed: Option<Snapshot>,
    /// Ids above the lowest that `passed` lacks that are transactions of their own, not savepoints'; none
    /// until the reader has noted them, also where the snapshot was given.
    pub streamed: Option<Vec<TransactionId>>,
}

impl Adopted {
    /// Whether everything is published that such a snapshot sees.
    pub fn covers(&self, snapshot: &Snapshot) -> bool {
        self.passed.as_ref().is_some_and(|passed| passed.covers(snapshot))
    }

    /// Whether the slot's stream brings its rows, and has from where they were copied on.
    pub fn is_streamed(&self) -> bool {
        let left_out = |ids: &Vec<TransactionId>| ids.contains(&LEFT_OUT);
        self.passed.is_some() && self.streamed.as_ref().is_some_and(|ids| !left_out(ids))
    }

    /// The ids of transactions whose rows are published that need no further proof. The latest that a snapshot sees
    /// had ended when it was taken, and nothing that ends is a savepoint of what goes on.
    pub fn proven(&self) -> Vec<TransactionId> {
        match (&self.streamed, &self.passed) {
            (Some(streamed), _) => streamed.clone(),
            (None, Some(passed)) => vec![passed.xmax() - 1],
            (None, None) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(pairs: &[(&str, Form)]) -> Vec<TableColumn> {
        let column = |(name, form): &(&str, Form)| TableColumn {
            name: (*name).to_owned(),
            type_name: format!("{form:?}"),
            form: Some(*form),
        };
        pairs.iter().map(column).collect()
    }

    const DEBEZIUM: &[(&str, Form)] = &[
        ("id", Form::Uuid),
        ("aggregatetype", Form::Text),
        ("aggregateid", Form::Text),
        ("type", Form::Text),
        ("payload", Form::Jsonb),
    ];

    fn mapping(text: &str) -> Mapping {
        text.parse().expect(text)
    }

    #[test]
    fn mappings_are_written_as_they_are_read() {
        for text in ["aggregateid=order_id", "type='Placed'", "aggregatetype='it''s'", "type=''"] {
            assert_eq!(mapping(text).to_string(), text);
        }
        assert_eq!(mapping("type = kind").to_string(), "type=kind");
        for text in ["", "id", "id=", "key=a", "id='1'", "type='a", "payload='{}'"] {
            let error = text.parse::<Mapping>().expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.remedy().is_some());
        }
    }

    #[test]
    fn debeziums_names_are_the_default() {
        let map = ColumnMap::resolve(&[], &columns(DEBEZIUM)).expect("the table fits");
        assert_eq!(map.origin(Part::Kind), Some(&PartOrigin::Column("type".to_owned())));
        assert_eq!(map.origin(Part::Headers), None);
        let mut more = columns(DEBEZIUM);
        more.extend(columns(&[("headers", Form::Jsonb), ("created_at", Form::Text)]));
        let map = ColumnMap::resolve(&[], &more).expect("the table fits");
        assert_eq!(map.origin(Part::Headers), Some(&PartOrigin::Column("headers".to_owned())));
        assert_eq!(map.origin(Part::CreatedAt), None, "a text is no time");
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused_with_the_column() {
        let table = columns(&[("id", Form::Integer), ("body", Form::Time), ("key", Form::Integer)]);
        let asked = |texts: &[&str]| texts.iter().map(|text| mapping(text)).collect::<Vec<_>>();
        for (given, kind, cause) in [
            (vec![], ErrorKind::Schema, "no column aggregatetype"),
            (vec!["aggregatetype='order'", "type='T'"], ErrorKind::Schema, "no column aggregateid"),
            (
                vec!["aggregatetype='order'", "type='T'", "aggregateid=key", "payload=body"],
                ErrorKind::Schema,
                "body has a type that payload cannot have",
            ),
            (vec!["id=id", "id=key"], ErrorKind::Config, "id is given twice"),
        ] {
            let error = ColumnMap::resolve(&asked(&given), &table).expect_err(cause);
            assert_eq!(error.kind(), kind);
            assert!(error.message().contains(cause), "{error}");
        }
        let mut table = columns(DEBEZIUM);
        for (form, cause) in [(Some(Form::Printed), "cannot have: Jsonb"), (None, "is generated")] {
            table[4].form = form;
            let error = ColumnMap::resolve(&[], &table).expect_err(cause);
            assert!(error.message().contains(cause), "{error}");
        }
    }

    #[test]
    fn the_stream_brings_text_where_only_the_server_can_print_a_value() {
        let mut table = columns(DEBEZIUM);
        table.extend(columns(&[("created_at", Form::Time)]));
        let map = ColumnMap::resolve(&[], &table).expect("the table fits");
        assert_eq!(map.value_form(&table), ValueForm::Binary);
        for form in [Form::Printed, Form::Numeric, Form::Time] {
            for column in [0, 1, 2, 3] {
                let mut table = table.clone();
                table[column].form = Some(form);
                let map = ColumnMap::resolve(&[], &table).expect("the table fits");
                assert_eq!(map.value_form(&table), ValueForm::Text, "{form:?}");
            }
        }
    }
}
