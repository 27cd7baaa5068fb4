//! The texts of `sql/`, made ready for the server.
//!
//! Promises: a value is never looked into for places, nor for the schema's name; what names the control tables comes
//! out with the name of the schema that this process works with, and byte for byte as it is in the file where that is
//! the usual one. Must not: quote a value.
//! Fails: never; a place that our own SQL lacks is a broken invariant and panics.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::schema::{self, Schema, USUAL};

/// A text of `sql/` that names the control tables. `tests/house` sees to it that each such text is one.
#[derive(Debug)]
pub struct Sql {
    file: &'static str,
    /// For another schema than the usual one.
    rendered: OnceLock<String>,
}

impl Sql {
    /// The text as it is in its file.
    #[must_use]
    pub const fn of(file: &'static str) -> Self {
        Self { file, rendered: OnceLock::new() }
    }

    /// The text for the schema that this process works with.
    pub fn text(&'static self) -> &'static str {
        let schema = schema::chosen();
        if schema.is_usual() {
            return self.file;
        }
        self.rendered.get_or_init(|| render(self.file, schema).into_owned())
    }
}

/// What is no schema's name behind `postrider.`: settings of a session, and the mark of an escaped text.
const OTHER_WORDS: [&str; 5] = ["direct", "retention", "writer", "relay", "escaped"];
/// The publications' names, without the schema's.
const PUBLICATIONS: [&str; 2] = ["_messages", "_adopted"];
/// How the text of a message's prefix begins in our SQL and its comments.
const BEFORE_PREFIX: [&str; 2] = ["pg_logical_emit_message(true, '", "the prefix "];
/// How a schema is named in SQL without anything in it.
const BEFORE_NAME: [&str; 2] = ["schema ", "schema %I, "];

/// The text with another schema in place of the usual one.
#[must_use]
pub fn render<'a>(text: &'a str, schema: &Schema) -> Cow<'a, str> {
    if schema.is_usual() {
        return Cow::Borrowed(text);
    }
    let text = numbers(text, schema);
    let (mut rendered, mut left) = (String::new(), text.as_str());
    while let Some(start) = left.find(USUAL) {
        let (before, found) = left.split_at(start);
        let after = &found[USUAL.len()..];
        rendered.push_str(before);
        let is_whole =
            !rendered.ends_with(|last: char| last.is_alphanumeric() || "_$`".contains(last));
        let taken = if is_whole { name_at(&mut rendered, after, schema) } else { None };
        left = taken.unwrap_or_else(|| {
            rendered.push_str(USUAL);
            after
        });
    }
    rendered.push_str(left);
    Cow::Owned(rendered)
}

/// Writes what stands for the name between two texts, if it is the schema's; gives what is left of the second.
fn name_at<'a>(before: &mut String, after: &'a str, schema: &Schema) -> Option<&'a str> {
    if let Some(member) = after.strip_prefix('.') {
        let end = member.find(|next: char| !next.is_ascii_alphanumeric() && next != '_');
        let word = &member[..end.unwrap_or(member.len())];
        // `'postrider.' || relname` has none; nor has the end of a sentence.
        if OTHER_WORDS.contains(&word) || word.is_empty() && !member.starts_with('\'') {
            return None;
        }
        let is_prefix = BEFORE_PREFIX.iter().any(|lead| before.ends_with(lead));
        before.push_str(&if is_prefix { schema.name().to_owned() } else { schema.quoted() });
        return Some(after);
    }
    if let Some(suffix) = PUBLICATIONS.iter().find(|suffix| after.starts_with(**suffix)) {
        before.push_str(&schema.tagged(&format!("{USUAL}{suffix}")));
        return Some(&after[suffix.len()..]);
    }
    match (before.ends_with('\''), after.starts_with('\'')) {
        // A name in the catalog, or one that PostgreSQL reads as SQL.
        (true, true) if before.ends_with("nspname = '") => before.push_str(schema.name()),
        (true, true) => before.push_str(&schema.quoted()),
        // The name of a session, or a pattern for those.
        (true, false) if after.starts_with(" %'") => {
            before.push_str(&schema.program().replace('_', "\\_"))
        }
        (true, false) if after.starts_with(' ') => before.push_str(&schema.program()),
        _ if BEFORE_NAME.iter().any(|lead| before.ends_with(lead)) => {
            before.push_str(&schema.quoted());
        }
        _ => return None,
    }
    Some(after)
}

/// What is made of the schema's name: the slot, the keys of locks, and the bytes of a message's prefix.
fn numbers(text: &str, schema: &Schema) -> String {
    let (usual, tag) = (Schema::default(), schema.tag());
    let prefix = |schema: &Schema| {
        let prefix = schema.message_prefix("outbox");
        let digits: String = prefix.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("11, {}) = '\\x{digits}00'", prefix.len() + 1)
    };
    text.replace("'postrider_' || oid", &format!("'postrider_' || oid || '_{tag}'"))
        .replace(&format!(", {})", usual.lock_seed()), &format!(", {})", schema.lock_seed()))
        .replace(&prefix(&usual), &prefix(schema))
}

/// Fills each place once, from left to right.
///
/// # Panics
/// When the template does not name the places in this order.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut left = template;
    for (place, value) in values {
        let (before, after) =
            left.split_once(place).expect("our own SQL names its places in this order");
        filled.push_str(before);
        filled.push_str(value);
        left = after;
    }
    filled.push_str(left);
    filled
}

/// SQL without the comment that heads its file.
pub fn without_head(sql: &str) -> &str {
    let mut rest = sql;
    while rest.starts_with("--") {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
