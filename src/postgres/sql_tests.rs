//! What becomes of each text of `sql/` for another schema.

use std::path::Path;

use super::*;

/// Each text that names the control tables, by its path.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut texts = Vec::new();
    for folder in ["", "queries", "migrations"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("the folder is there") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_some_and(|ending| ending == "sql") {
                let text = std::fs::read_to_string(&path).expect("it can be read");
                texts.push((
                    path.strip_prefix(&root).expect("it is below").display().to_string(),
                    text,
                ));
            }
        }
    }
    assert!(texts.len() > 150, "{} texts", texts.len());
    texts
}

fn other(name: &str) -> Schema {
    name.parse().expect("it is a name")
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// What may be left of the usual name in SQL for another schema: no schema's name, or text for people.
const LEFT: [&str; 16] = [
    "'postrider.writer'",
    "'postrider.relay'",
    "'postrider.direct'",
    "'postrider.retention'",
    "'postrider.escaped:'",
    "'postrider_writer'",
    "'postrider_relay'",
    "'postrider_' || oid || '_0other_1_",
    "'postrider_messages_0other_1_",
    "postrider_adopted_0other_1_",
    "postrider_large",
    "$postrider_step$",
    "$postrider_file$",
    "'postrider/0other",
    "`postrider migrate status`",
    " postrider",
];
/// Where the last of these stands: sentences.
const SENTENCES: [&str; 6] = [
    "control tables of the postrider outbox relay",
    "Use the version of postrider that applied it.",
    "exists already, and postrider did not make it",
    "and that postrider did not make",
    "postrider check does not name these",
    "postrider check judges rows by it",
];

#[test]
fn the_usual_schema_changes_no_byte() {
    for (path, text) in texts() {
        assert!(
            matches!(render(&text, &Schema::default()), Cow::Borrowed(same) if same == text),
            "{path}"
        );
    }
}

#[test]
fn nothing_of_the_usual_schema_is_left_for_another() {
    for (path, text) in texts() {
        let rendered = without_comments(&render(&text, &other("Other-1")));
        for line in rendered.lines() {
            let is_sentence = SENTENCES.iter().any(|sentence| line.contains(sentence));
            let mut left = line.to_owned();
            for known in &LEFT[..LEFT.len() - usize::from(!is_sentence)] {
                left = left.replace(known, "");
            }
            assert!(!left.contains("postrider"), "{path}: {line}");
            assert!(!left.contains("4711") && !left.contains("706f7374"), "{path}: {line}");
        }
    }
}

/// All that is changed is the name: with its places marked, both texts are the same.
#[test]
fn only_the_name_is_another() {
    let schema = other("x1");
    for (path, text) in texts() {
        let back = render(&text, &schema)
            .replace("\"x1\"", USUAL)
            .replace("'x1'", "'postrider'")
            .replace("'x1.", "'postrider.")
            .replace("prefix x1.", "prefix postrider.")
            .replace("postrider/x1", USUAL)
            .replace("_messages_x1", "_messages")
            .replace("_adopted_x1", "_adopted")
            .replace(" || '_x1'", "")
            .replace(&schema.lock_seed().to_string(), "4711")
            .replace(
                "11, 10) = '\\x78312e6f7574626f7800'",
                "11, 17) = '\\x706f737472696465722e6f7574626f7800'",
            );
        assert_eq!(back, text, "{path}");
    }
}

#[test]
fn each_kind_of_place_has_its_form() {
    for (text, expected) in [
        ("from postrider.cursor", "from \"B-2\".cursor"),
        ("postrider.emit(postrider.aggregate_type)", "\"B-2\".emit(\"B-2\".aggregate_type)"),
        ("'postrider.cursor'::regclass", "'\"B-2\".cursor'::regclass"),
        ("to_regnamespace('postrider')", "to_regnamespace('\"B-2\"')"),
        ("nspname = 'postrider'", "nspname = 'B-2'"),
        ("'postrider.' || relname", "'\"B-2\".' || relname"),
        ("create schema postrider;", "create schema \"B-2\";"),
        ("usage on schema %I, postrider to %I", "usage on schema %I, \"B-2\" to %I"),
        (
            "pg_logical_emit_message(true, 'postrider.tick', '')",
            "pg_logical_emit_message(true, 'B-2.tick', '')",
        ),
        ("current_setting('postrider.direct')", "current_setting('postrider.direct')"),
        ("`postrider migrate up`, postrider. Its", "`postrider migrate up`, postrider. Its"),
        (
            "pg_temp.postrider_large my_postrider.cursor",
            "pg_temp.postrider_large my_postrider.cursor",
        ),
    ] {
        assert_eq!(render(text, &other("B-2")), expected);
    }
    let plain = other("a_b");
    assert_eq!(render("= 'postrider lease'", &plain), "= 'postrider/a_b lease'");
    assert_eq!(render("like 'postrider %'", &plain), "like 'postrider/a\\_b %'");
    assert_eq!(render("postrider_adopted", &plain), "postrider_adopted_a_b");
    assert_eq!(render("'postrider_' || oid", &plain), "'postrider_' || oid || '_a_b'");
}

#[test]
fn a_value_is_not_looked_into() {
    static LOOK: Sql = Sql::of("select * from postrider.cursor where {what}");
    let filled = fill(&render(LOOK.file, &other("x")), &[("{what}", "note = 'postrider.cursor'")]);
    assert_eq!(filled, "select * from \"x\".cursor where note = 'postrider.cursor'");
    assert_eq!(LOOK.text(), LOOK.file, "nobody has chosen another in a test of parts");
}
