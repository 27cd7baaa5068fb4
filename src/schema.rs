//! The schema that holds the control tables of one outbox.
//!
//! Promises: a name that was read here needs no escape but double quotes, wherever our SQL has it: in a literal, in a
//! format string, between dollar quotes; a process works with one schema from its first look at the name to its end.
//! Must not: know a session. Fails: [`ErrorKind::Config`] for a name that no such schema can have.
//!
//! What belongs to a whole database or server carries the name, too, so that two outboxes do not meet: slots,
//! publications, names of sessions, keys of advisory locks, prefixes of messages, Kafka's transactional ids. Some of
//! these take few letters or bytes: there a [`Schema::tag`] stands for the name. The usual schema's carry none.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};

/// The schema of whoever names none.
pub const USUAL: &str = "postrider";

/// As PostgreSQL keeps names: what is longer it would cut.
const NAME_BYTES_MAX: usize = 63;
/// A plain name up to here is its own tag.
const TAG_BYTES_MAX: usize = 24;
/// How much of another name its tag shows.
const SHOWN_LETTERS_MAX: usize = 11;
/// What would end or change a quoted text: quotes, places of format strings, dollar quotes, escapes, our own places.
const FORBIDDEN: &[char] = &['"', '\'', '%', '$', '\\', '{', '}'];
/// Schemas of others: PostgreSQL's, everybody's, and that of consumers.
const OF_OTHERS: [&str; 3] = ["public", "information_schema", "postrider_inbox"];
/// The key of the usual schema's advisory locks, which instances before migration 15 take.
const USUAL_LOCK_SEED: u64 = 4711;

/// What this process works with.
static CHOSEN: OnceLock<Schema> = OnceLock::new();

/// The name of a schema, as PostgreSQL keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema(String);

impl Default for Schema {
    fn default() -> Self {
        Self(USUAL.to_owned())
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Schema {
    type Err = Error;

    /// Reads the name as it stands, its case as well; double quotes around it may be there or not.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when no schema of ours can have the name.
    fn from_str(text: &str) -> Result<Self> {
        let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let name = inner.unwrap_or(text);
        let refuse = |cause: String, remedy: &str| {
            Err(Error::new(ErrorKind::Config, cause).with_remedy(remedy))
        };
        if name.is_empty() {
            return refuse(
                "--schema is empty".to_owned(),
                "name the schema of the control tables, or leave --schema out for postrider",
            );
        }
        if name.len() > NAME_BYTES_MAX {
            return refuse(
                format!("--schema {name:?} has {} bytes", name.len()),
                "give a name of at most 63 bytes: PostgreSQL cuts longer ones",
            );
        }
        if name.starts_with("pg_") || OF_OTHERS.contains(&name) {
            return refuse(
                format!("--schema {name} is no schema for postrider's control tables"),
                "name one that holds nothing else, and does not begin with pg_; migrate up makes it",
            );
        }
        let is_odd = |letter: char| letter.is_control() || FORBIDDEN.contains(&letter);
        if name.contains(is_odd) || name.trim() != name {
            return refuse(
                format!("--schema {name:?} holds a character that it may not"),
                "use letters, digits, _, - and the like; no quotes, %, $, \\, braces or control \
                 characters, and no blank at an end",
            );
        }
        Ok(Self(name.to_owned()))
    }
}

impl Schema {
    /// Whether it is that of whoever names none.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        self.0 == USUAL
    }

    /// Its name, if it is not the usual one.
    #[must_use]
    pub fn unusual(&self) -> Option<&str> {
        (!self.is_usual()).then_some(&*self.0)
    }

    /// The name without quotes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The name as SQL has it.
    #[must_use]
    pub fn quoted(&self) -> String {
        if self.is_usual() { USUAL.to_owned() } else { format!("\"{}\"", self.0) }
    }

    /// A thing in it, as SQL and people name it: `postrider.parked`.
    #[must_use]
    pub fn of(&self, thing: &str) -> String {
        format!("{}.{thing}", self.quoted())
    }

    /// The prefix of its messages in the log: `postrider.outbox`. The name has no quotes there.
    #[must_use]
    pub fn message_prefix(&self, kind: &str) -> String {
        format!("{}.{kind}", self.0)
    }

    /// A short name that no other schema has, of small letters, digits and underscores. A plain name is its own; what
    /// stands for another begins with a digit, as no plain name does.
    #[must_use]
    pub fn tag(&self) -> String {
        let is_plain = self
            .0
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && !self.0.starts_with(|first: char| first.is_ascii_digit());
        if is_plain && self.0.len() <= TAG_BYTES_MAX {
            return self.0.clone();
        }
        let letter = |letter: char| match letter.to_ascii_lowercase() {
            plain if plain.is_ascii_alphanumeric() => plain,
            _ => '_',
        };
        let shown: String = self.0.chars().take(SHOWN_LETTERS_MAX).map(letter).collect();
        format!("0{shown}_{:016x}", self.hash())
    }

    /// A name that belongs to the whole database, made this schema's own.
    #[must_use]
    pub fn tagged(&self, usual: &str) -> String {
        if self.is_usual() { usual.to_owned() } else { format!("{usual}_{}", self.tag()) }
    }

    /// How the process calls itself where several may be seen side by side.
    #[must_use]
    pub fn program(&self) -> String {
        if self.is_usual() { USUAL.to_owned() } else { format!("{USUAL}/{}", self.tag()) }
    }

    /// Keeps the advisory locks of two schemas apart: a number that a `bigint` takes.
    #[must_use]
    pub fn lock_seed(&self) -> u64 {
        if self.is_usual() { USUAL_LOCK_SEED } else { self.hash() >> 1 }
    }

    /// Source: Fowler, Noll, Vo, "FNV-1a", 64 bits.
    fn hash(&self) -> u64 {
        self.0.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

/// Has this process work with a schema.
///
/// # Errors
/// [`ErrorKind::Internal`] when it works with another one already: a text of SQL may have been sent.
pub fn choose(schema: Schema) -> Result<()> {
    let chosen = CHOSEN.get_or_init(|| schema.clone());
    if *chosen == schema {
        return Ok(());
    }
    let cause = format!("this process works with schema {chosen} already, not with {schema}");
    Err(Error::new(ErrorKind::Internal, cause))
}

/// The schema with which this process works: the usual one, if nobody has chosen.
pub fn chosen() -> &'static Schema {
    CHOSEN.get_or_init(Schema::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str) -> Schema {
        name.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    #[test]
    fn the_name_is_read_as_it_stands() {
        let long = "x".repeat(63);
        for (typed, name) in [
            ("postrider", "postrider"),
            ("billing", "billing"),
            ("Billing", "Billing"),
            ("Billing-2", "Billing-2"),
            ("\"Billing-2\"", "Billing-2"),
            ("two words", "two words"),
            ("büro", "büro"),
            ("select", "select"),
            ("PG_like", "PG_like"),
            (&long, &long),
        ] {
            assert_eq!(schema(typed).name(), name);
        }
    }

    #[test]
    fn a_name_that_no_schema_of_ours_can_have_is_refused() {
        let (long, wide) = ("x".repeat(64), "ü".repeat(32));
        for typed in [
            "",
            "\"\"",
            &long,
            &wide,
            "pg_catalog",
            "pg_x",
            "information_schema",
            "public",
            "\"public\"",
            "postrider_inbox",
            "a\"b",
            "\"a",
            "o'clock",
            "50%",
            "a$b",
            "a\\b",
            "{schema}",
            "a\nb",
            "a\0",
            " a",
            "a ",
        ] {
            let error = typed.parse::<Schema>().expect_err(typed);
            assert_eq!(error.kind(), ErrorKind::Config, "{typed:?}");
            assert!(error.remedy().is_some() && error.message().contains("--schema"), "{error}");
        }
    }

    #[test]
    fn the_usual_schema_adds_nothing_to_any_name() {
        let usual = Schema::default();
        assert_eq!(usual.of("parked"), "postrider.parked");
        assert_eq!(usual.message_prefix("tick"), "postrider.tick");
        assert_eq!(usual.tagged("postrider_messages"), "postrider_messages");
        assert_eq!((usual.program().as_str(), usual.lock_seed()), ("postrider", 4711));
        assert_eq!(usual.unusual(), None);
    }

    #[test]
    fn tags_are_short_plain_and_nobody_elses() {
        let names = [
            "billing",
            "Billing",
            "BILLING",
            "billing-2",
            "billing_2",
            "Billing-2",
            "2billing",
            "0billing",
            "ünter",
            &"x".repeat(24),
            &"x".repeat(25),
            &"x".repeat(63),
        ];
        let tags: Vec<String> = names.iter().map(|name| schema(name).tag()).collect();
        for tag in &tags {
            let is_plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(tag.bytes().all(is_plain) && tag.len() <= 29, "{tag}");
            assert_eq!(tags.iter().filter(|other| *other == tag).count(), 1, "{tag}");
        }
        assert_eq!((tags[0].as_str(), tags[4].as_str()), ("billing", "billing_2"));
        // A plain name in the form of a tag is not taken for one.
        let forged: Schema = tags[1].parse().expect("it is a name");
        assert_ne!(forged.tag(), tags[1]);
        let longest = schema(&"X".repeat(63));
        assert!(longest.tagged("postrider_messages").len() <= 63);
        assert!(format!("{} adopted tables", longest.program()).len() <= 63);
        assert!(i64::try_from(longest.lock_seed()).is_ok());
        assert_ne!(longest.lock_seed(), schema("billing").lock_seed());
    }
}
