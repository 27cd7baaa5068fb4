//! The page of tables is what a real server says after all migrations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use postrider::control::migrate;
use postrider::control::migrate::MigrationRequest;
use postrider::postgres::{DatabaseConfig, connect};

use crate::support::fixture::empty_database;

const TABLES: &str = include_str!("reference_tables.sql");
/// Set, the page is written instead of compared.
const WRITES: &str = "POSTRIDER_WRITE_REFERENCE";
const TITLE: &str = "# Tables, views and functions";
const HEAD: &str = "The names, types and defaults are made from a server on which all migrations ran (`just reference`), with the default \
of `migrate up`;\nwhat they mean is written by hand, here. A test compares the page with the server. Only the outbox, \
`postrider.emit`, `postrider.events`,\n`postrider.health` and `postrider_inbox.admit` are for applications and operators; \
the rest may change with any version, by a migration.\nThe outbox itself: [the outbox table](../outbox.md).";

/// What people wrote: about a relation, and about what it has.
type Meanings = BTreeMap<(String, String), String>;

/// A column or a function, as the server describes it.
struct Item {
    relation: String,
    kind: String,
    about: String,
    name: String,
    form: String,
    may_be_null: String,
    default: String,
    words: String,
}

fn page_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference/tables.md")
}

/// The last cell of each row, by heading and first cell; the line below a heading under no cell.
fn written(page: &str) -> Meanings {
    let mut meanings = Meanings::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.split(" (").next().unwrap_or_default().clone_into(&mut heading);
        } else if let Some(row) = line.strip_prefix("| `") {
            let item = row.split('`').next().unwrap_or_default();
            let cells = row.trim_end_matches(" |").rsplit(" | ");
            let meaning = cells.into_iter().next().unwrap_or_default();
            meanings.insert((heading.clone(), item.to_owned()), meaning.trim().to_owned());
        } else if !heading.is_empty() && !line.is_empty() && !line.starts_with('|') {
            meanings.insert((heading.clone(), String::new()), line.to_owned());
        }
    }
    meanings
}

/// What was written about it, else the comment in the database.
fn meaning(meanings: &Meanings, relation: &str, item: &str, comment: &str) -> String {
    let key = (relation.to_owned(), item.to_owned());
    let by_hand = meanings.get(&key).filter(|text| !text.is_empty());
    by_hand.map_or(comment, String::as_str).replace('|', "\\|")
}

fn made(items: &[Item], meanings: &Meanings) -> String {
    let mut page = format!("{TITLE}\n\n{HEAD}\n");
    let mut relation = "";
    for item in items {
        let is_function = item.kind == "functions";
        if item.relation != relation {
            let about = meaning(meanings, &item.relation, "", &item.about);
            let head = match is_function {
                true => "| function | returns | what it is for |\n|---|---|---|",
                false => {
                    "| column | type | may be null | default | meaning |\n|---|---|---|---|---|"
                }
            };
            let kind = if is_function { String::new() } else { format!(" ({})", item.kind) };
            write!(page, "\n## {}{kind}\n\n{about}\n\n{head}\n", item.relation)
                .expect("it is text");
            relation = &item.relation;
        }
        let Item { name, form, may_be_null, default, words, .. } = item;
        let words = meaning(meanings, relation, name, words);
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        match is_function {
            true => writeln!(page, "| `{name}` | {form} | {words} |"),
            false => writeln!(page, "| `{name}` | {form} | {may_be_null} | {default} | {words} |"),
        }
        .expect("it is text");
    }
    page
}

/// All that the two schemas have, on a database of the test's own.
async fn items() -> Vec<Item> {
    let url = empty_database("reference_tables").await;
    let config = DatabaseConfig::parse(&url).expect("it is a URL");
    let mut connection = connect(&config, "test").await.expect("the server is up");
    migrate::up(connection.client_mut(), &MigrationRequest::default()).await.expect("it migrates");
    migrate::inbox::up(connection.client()).await.expect("it migrates");
    let rows = connection.client().query(TABLES, &[]).await.expect("it can be read");
    let item = |row: &tokio_postgres::Row| Item {
        relation: row.get(0),
        kind: row.get(1),
        about: row.get(2),
        name: row.get(3),
        form: row.get(4),
        may_be_null: row.get(5),
        default: row.get(6),
        words: row.get(7),
    };
    rows.iter().map(item).collect()
}

/// Whoever adds a column says on the page what it means.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_tables_is_what_the_server_has() {
    let items = items().await;
    assert!(items.iter().any(|item| item.relation == "postrider.cursor"), "the tables are there");
    let page = std::fs::read_to_string(page_path()).unwrap_or_default();
    let meanings = written(&page);
    let expected = made(&items, &meanings);
    if std::env::var_os(WRITES).is_some() {
        std::fs::write(page_path(), &expected).expect("the page can be written");
    } else {
        let differs = |(is, ought): (&str, &str)| {
            (is != ought).then(|| format!("\n  is    {is}\n  ought {ought}"))
        };
        let both = page.lines().chain(std::iter::repeat("")).zip(expected.lines());
        let first = both.into_iter().find_map(differs);
        assert!(
            page == expected,
            "docs/reference/tables.md is not what the server has; write it anew: just reference{first:?}"
        );
    }
    let meanings = written(&expected);
    let silent = meanings.iter().filter(|(_, words)| words.is_empty());
    let silent: Vec<String> =
        silent.map(|((relation, item), _)| format!("{relation} {item}")).collect();
    assert!(
        silent.is_empty(),
        "docs/reference/tables.md says nothing of {silent:?}: write it there"
    );
    let untold =
        items.iter().filter(|item| !meanings.contains_key(&(item.relation.clone(), String::new())));
    let untold: Vec<&str> = untold.map(|item| item.relation.as_str()).collect();
    assert!(untold.is_empty(), "docs/reference/tables.md does not say what {untold:?} is for");
}
