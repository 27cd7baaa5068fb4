//! The outbox: its name, and how it was made.
//!
//! Promises: a name that was read here is safe in SQL, because it is only ever quoted.
//! Must not: know a session.
//! Fails: [`ErrorKind::Config`] for a name or a type without meaning.

use std::fmt;
use std::str::FromStr;

use postgres_protocol::escape::{escape_identifier, escape_literal};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::order::snapshot::TransactionId;

/// Longest table name, in bytes: the partitions' names are longer, and PostgreSQL cuts at 63.
const TABLE_NAME_BYTES: usize = 54;
const IDENTIFIER_BYTES: usize = 63;

/// A schema and a table, as PostgreSQL stores their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboxName {
    /// The schema's name, without quotes.
    pub schema: String,
    /// The table's name, without quotes.
    pub table: String,
}

impl OutboxName {
    /// The qualified name, quoted, for SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", escape_identifier(&self.schema), escape_identifier(&self.table))
    }
}

impl Default for OutboxName {
    fn default() -> Self {
        Self { schema: "public".to_owned(), table: "outbox".to_owned() }
    }
}

impl fmt::Display for OutboxName {
    /// As one would type it: quoted only where SQL needs it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = |name: &str| {
            if is_plain(name) { name.to_owned() } else { escape_identifier(name) }
        };
        write!(formatter, "{}.{}", typed(&self.schema), typed(&self.table))
    }
}

impl FromStr for OutboxName {
    type Err = Error;

    /// Reads `table`, `schema.table`, with SQL's quotes and folding; the schema is `public` if open.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the text is not such a name, or the name is too long.
    fn from_str(text: &str) -> Result<Self> {
        let (first, rest) = identifier(text.trim(), text)?;
        let (schema, table) = match rest.strip_prefix('.') {
            None if rest.is_empty() => ("public".to_owned(), first),
            None => return Err(unreadable(text)),
            Some(second) => match identifier(second, text)? {
                (second, "") => (first, second),
                _ => return Err(unreadable(text)),
            },
        };
        if table.len() > TABLE_NAME_BYTES || schema.len() > IDENTIFIER_BYTES {
            let cause = format!("the outbox's name {text} is too long");
            return Err(Error::new(ErrorKind::Config, cause).with_remedy(format!(
                "use at most {TABLE_NAME_BYTES} bytes for the table's name"
            )));
        }
        Ok(Self { schema, table })
    }
}

fn is_plain(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first == '_' || first.is_ascii_lowercase());
    let goes_on = |next: char| next == '_' || next.is_ascii_lowercase() || next.is_ascii_digit();
    starts && name.chars().all(goes_on)
}

/// One identifier at the start of `text`, and what follows it.
fn identifier<'a>(text: &'a str, whole: &str) -> Result<(String, &'a str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let folded = text[..end].to_ascii_lowercase();
        return if is_plain(&folded) { Ok((folded, &text[end..])) } else { Err(unreadable(whole)) };
    };
    let mut name = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' if characters.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
            '"' if name.is_empty() => break,
            '"' => return Ok((name, &quoted[place + 1..])),
            '\0' => break,
            _ => name.push(character),
        }
    }
    Err(unreadable(whole))
}

fn unreadable(text: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{text:?} is not the name of a table"))
        .with_remedy("write it as schema.table; put odd names in double quotes: app.\"My Outbox\"")
}

/// The type of the column `payload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// JSON, kept byte for byte.
    #[default]
    Json,
    /// JSON, taken apart: smaller to search, dearer to write, rewritten when read.
    Jsonb,
    /// Text of any kind.
    Text,
    /// Bytes of any kind, such as Avro or Protobuf.
    Bytea,
}

impl PayloadType {
    const ALL: [Self; 4] = [Self::Json, Self::Jsonb, Self::Text, Self::Bytea];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Text => "text",
            Self::Bytea => "bytea",
        }
    }
}

impl fmt::Display for PayloadType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for PayloadType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|payload| payload.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("payload type \"{text}\" is not known"))
                .with_remedy("use json, jsonb, text or bytea")
        })
    }
}

/// The outbox as it was made. Fixed for the life of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// The schema's name, without quotes.
    pub schema: String,
    /// The table's name, without quotes.
    pub table: String,
    /// How many hash partitions it has.
    pub buckets: u16,
    /// The type of the column `payload`.
    pub payload: PayloadType,
    /// How long a generation lasts.
    pub generation_seconds: u32,
    /// The sequence behind the column `seq`, quoted and qualified.
    pub sequence: String,
}

impl Outbox {
    /// How many generations each bucket has, in a ring.
    pub const GENERATIONS: u16 = 3;

    /// Its name.
    pub fn name(&self) -> OutboxName {
        OutboxName { schema: self.schema.clone(), table: self.table.clone() }
    }

    /// A bucket's table, quoted and qualified.
    pub fn bucket_table(&self, bucket: Bucket) -> String {
        self.part(format!("{}_b{:02}", self.table, bucket.0))
    }

    /// The table of a bucket's generation, quoted and qualified.
    pub fn partition_table(&self, bucket: Bucket, generation: u16) -> String {
        self.part(format!("{}_b{:02}_g{generation}", self.table, bucket.0))
    }

    /// The tables of buckets as literals in SQL, separated by commas.
    pub fn bucket_tables(&self, buckets: &[Bucket]) -> String {
        let literal = |bucket: &Bucket| escape_literal(&self.bucket_table(*bucket));
        buckets.iter().map(literal).collect::<Vec<_>>().join(", ")
    }

    fn part(&self, table: String) -> String {
        OutboxName { schema: self.schema.clone(), table }.quoted()
    }
}

/// Whether the sequence gives out one value at a time, upwards: the law on which ticks rest.
///
/// # Errors
/// [`ErrorKind::Schema`] with the command that helps.
pub fn check_sequence(sequence: &str, cache: i64, increment: i64) -> Result<()> {
    let (what, setting) = if cache != 1 {
        ("hands out numbers in blocks, which mixes up their order", "cache 1")
    } else if increment < 1 {
        ("counts downwards", "increment by 1")
    } else {
        return Ok(());
    };
    let cause = format!("the outbox was changed: its sequence {sequence} {what}");
    // It waits for every open writer, and all later writers wait behind it.
    Err(Error::new(ErrorKind::Schema, cause).with_remedy(format!(
        "Run: set lock_timeout = '1s'; alter sequence {sequence} {setting}; again until it gets its lock, as it waits \
         for open writers and holds up the next ones; nothing is lost meanwhile"
    )))
}

/// Which texts were cut. They are whole in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// The column `aggregatetype`.
    pub aggregate_type: bool,
    /// The column `aggregateid`.
    pub aggregate_id: bool,
    /// The column `type`.
    pub kind: bool,
    /// The column `headers`.
    pub headers: bool,
}

/// A row of the outbox that is whole in its table alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTable {
    /// Its bucket.
    pub bucket: Bucket,
    /// What of it did not come, besides the payload.
    pub cuts: Cuts,
    /// Who wrote it, once whoever reads the stream has told.
    pub written_by: Option<TransactionId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_as_sql_does() {
        for (text, schema, table) in [
            ("outbox", "public", "outbox"),
            ("App.OutBox", "app", "outbox"),
            ("app.\"My Outbox\"", "app", "My Outbox"),
            ("\"a.b\".\"c\"\"d\"", "a.b", "c\"d"),
            ("\"É\"", "public", "É"),
            (" public.outbox ", "public", "outbox"),
        ] {
            let name: OutboxName = text.parse().unwrap();
            assert_eq!((name.schema.as_str(), name.table.as_str()), (schema, table), "{text}");
            assert_eq!(name.to_string().parse::<OutboxName>().unwrap(), name, "{text}");
        }
        let quoted = "app.\"c\"\"d\"".parse::<OutboxName>().unwrap().quoted();
        assert_eq!(quoted, "\"app\".\"c\"\"d\"");
    }

    #[test]
    fn refuses_what_is_no_name() {
        let long = "x".repeat(55);
        for text in
            ["", ".", "a.", ".b", "a.b.c", "a b", "1a", "\"\"", "\"a", "\"a\"b", "a;b", "é", &long]
        {
            let error = text.parse::<OutboxName>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.remedy().is_some(), "{text}");
        }
        assert!("x".repeat(54).parse::<OutboxName>().is_ok());
    }

    #[test]
    fn payload_types_are_read_as_they_are_written() {
        for payload in PayloadType::ALL {
            assert_eq!(payload.to_string().parse::<PayloadType>().unwrap(), payload);
        }
        assert!("xml".parse::<PayloadType>().is_err());
    }

    #[test]
    fn bucket_tables_are_quoted() {
        let outbox = Outbox {
            schema: "app".into(),
            table: "My Outbox".into(),
            buckets: 16,
            payload: PayloadType::Json,
            generation_seconds: 600,
            sequence: String::new(),
        };
        assert_eq!(outbox.bucket_table(Bucket(7)), "\"app\".\"My Outbox_b07\"");
    }
}
