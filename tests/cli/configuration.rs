//! The layers of the configuration, and what is refused in them.
//!
//! `run` says where it works before it looks at librdkafka's properties, so a refused property
//! shows the configuration without any server.

use super::{Answer, CLOSED, Place};

const REFUSED: &[&str] = &["run", "-X", "acks=1"];

fn first_line(answer: &Answer) -> serde_json::Value {
    answer.failed(3, &["property acks", "a record would be lost"]);
    serde_json::from_str(answer.stderr.lines().next().unwrap()).unwrap()
}

fn run_with(place: &Place, variables: &[(&str, &str)], flags: &[&str]) -> Answer {
    let mut command = place.postrider(REFUSED);
    command.args(flags).envs(variables.iter().copied());
    Answer::from(command.output().unwrap())
}

const FILE: &str = "brokers = 'file:1'\nshards = 3\ndatabase-url = 'postgres://file/one'\n";

#[test]
fn run_begins_with_where_it_works() {
    let place = Place::new();
    let flags = ["--database-url", "postgres://app:hush@db:5433/shop", "--shards", "2"];
    let answer = run_with(&place, &[], &flags);
    let line = first_line(&answer);
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line["database"], "db:5433/shop");
    assert_eq!(line["brokers"], "localhost:9092");
    assert_eq!(line["shards"], "2");
    assert!(!answer.stderr.contains("hush"), "{}", answer.stderr);
}

#[test]
fn the_file_is_below_the_environment_and_that_below_flags() {
    let place = Place::new().with_file("postrider.toml", FILE);
    let line = first_line(&run_with(&place, &[], &[]));
    assert_eq!((&line["brokers"], &line["shards"]), (&"file:1".into(), &"3".into()));
    assert_eq!(line["file"], "postrider.toml");
    let variables = [("POSTRIDER_BROKERS", "env:1")];
    let line = first_line(&run_with(&place, &variables, &[]));
    assert_eq!((&line["brokers"], &line["shards"]), (&"env:1".into(), &"3".into()));
    let line = first_line(&run_with(&place, &variables, &["--brokers", "flag:1"]));
    assert_eq!(line["brokers"], "flag:1");
}

#[test]
fn postriders_own_database_url_comes_before_the_common_ones() {
    let place = Place::new();
    let database = |place: &Place, variables: &[(&str, &str)]| {
        let line = first_line(&run_with(place, variables, &[]));
        line["database"].as_str().unwrap().to_owned()
    };
    let libpq = [("PGHOST", "pg"), ("PGDATABASE", "three"), ("PGUSER", "u")];
    assert_eq!(database(&place, &libpq), "pg:5432/three");
    let common = [libpq[0], libpq[1], ("DATABASE_URL", "postgres://u@common/two")];
    assert_eq!(database(&place, &common), "common:5432/two");
    let place = place.with_file("postrider.toml", "database-url = 'postgres://u@file/one'");
    assert_eq!(database(&place, &common), "file:5432/one");
    let own = [common[2], ("POSTRIDER_DATABASE_URL", "postgres://u@own/zero")];
    assert_eq!(database(&place, &own), "own:5432/zero");
}

#[test]
fn a_named_file_is_read_and_must_be_there() {
    let place = Place::new().with_file("other.toml", "brokers = 'other:1'");
    let line = first_line(&run_with(&place, &[("PGUSER", "u")], &["--config", "other.toml"]));
    assert_eq!(line["brokers"], "other:1");
    place.run(&["run", "--config", "none.toml"]).failed(3, &["none.toml", "check --config"]);
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let refused = |text: &str, words: &[&str]| {
        let place = Place::new().with_file("postrider.toml", text);
        place.run(&["run"]).failed(3, words);
        place.run(&["status"]).failed(3, words);
    };
    refused("brokers = \n", &["postrider.toml:1"]);
    refused("# a\nbroker = 'b:1'\n", &["postrider.toml:2", "no setting \"broker\"", "\"brokers\""]);
    refused("[librdkafka]\nlinger.ms = []\n", &["linger.ms", "must be text"]);
    refused("shards = 0\n", &["postrider.toml:1", "nonzero"]);
    refused("max-in-flight-bytes = 'lots'\n", &["postrider.toml:1", "32MiB"]);
}

#[test]
fn properties_of_the_file_are_checked_too() {
    let place = Place::new().with_file("postrider.toml", "[librdkafka]\nacks = 1\n");
    let answer = Answer::from(place.postrider(&["run"]).env("PGUSER", "u").output().unwrap());
    answer.failed(3, &["property acks", "leave acks out"]);
}

#[test]
fn what_has_no_meaning_is_refused() {
    let place = Place::new();
    let url = ["--database-url", "postgres://u@h/d"];
    let refused = |flags: &[&str], words: &[&str]| {
        place.run(&[&["run"], &url[..], flags].concat()).failed(3, words);
    };
    refused(&["--topic", "a.{b}"], &["--topic", "{aggregatetype}"]);
    refused(&["--dead-letter-topic", "a.{type}"], &["--dead-letter-topic", "depends"]);
    refused(&["--dead-letter-topic", "a b"], &["--dead-letter-topic", "outbox.dead-letter"]);
    refused(&["--brokers", ""], &["--brokers is empty"]);
    refused(&["--tick-min", "1s", "--tick-max", "5ms"], &["--tick-min 1s", "--tick-max 5ms"]);
    refused(&["--log-level", "inof"], &["--log-level", "info"]);
    refused(&["--outbox", "a.b.c"], &["a.b.c"]);
    place.run(&["run", "--database-url", ""]).failed(3, &["--database-url is empty"]);
    place.run(&["run", "--database-url", "mysql://h/d"]).failed(3, &["postgres://"]);
}

#[test]
fn a_password_is_never_shown() {
    let place = Place::new();
    let url = format!("postgres://app:hush@{CLOSED}/shop");
    for arguments in [&["status"][..], &["check"], &["migrate", "up"], &["run", "--help"]] {
        let mut command = place.postrider(arguments);
        command.env("POSTRIDER_DATABASE_URL", &url).env("POSTRIDER_LOG_LEVEL", "trace");
        command.env("POSTRIDER_BROKERS", CLOSED);
        let answer = Answer::from(command.output().unwrap());
        assert!(!answer.stdout.contains("hush"), "{arguments:?}: {}", answer.stdout);
        assert!(!answer.stderr.contains("hush"), "{arguments:?}: {}", answer.stderr);
    }
}

/// In the wrong place, misspelt, of a wrong form: a secret is not shown.
#[test]
fn no_secret_is_shown_of_what_was_typed_wrongly() {
    let place = Place::new();
    let url = ["--database-url", "postgres://u@127.0.0.1:1/d"];
    for arguments in [
        &["run", "-X", "sasl.passwrod=hush"][..],
        &["check", "-X", "sasl.passwrod=hush"],
        &[
            "check",
            "-X",
            "sasl.jaas.config=PlainLoginModule required username=\"u\" password=\"hush\";",
        ],
        &["run", "-X", "sasl.password:hush"],
        &["run", "-X", "hush"],
        &["run", "postgres://u:hush@h/d"],
        &["run", "--database-ulr=postgres://u:hush@h/d"],
        &["run", "--shards", "postgres://u:hush@h/d"],
        &["check", "--log-format", "postgres://u:hush@h/d"],
    ] {
        let answer = place.run(&[arguments, &url].concat());
        assert!(answer.code.is_some_and(|code| code != 0), "{answer:?}");
        assert!(!format!("{answer:?}").contains("hush"), "{arguments:?}: {answer:?}");
    }
    let urls = [
        "postgresql://127.0.0.1:1/shop?user=relay@srv&password=hush&sslmode=require",
        "postgres://127.0.0.1?user=relay@srv&password=hush",
        "postgres://u:1/hush@127.0.0.1:1/d",
        "host=127.0.0.1 port=1 password=hush more=x",
    ];
    for url in urls {
        let answer = place.run(&["check", "--brokers", CLOSED, "--database-url", url]);
        assert!(!format!("{answer:?}").contains("hush"), "{url}: {answer:?}");
    }
    let answer = place.run(&["status", "--database-url", urls[0]]);
    answer.failed(4, &["127.0.0.1:1/shop"]);
}

#[test]
fn properties_come_from_the_environment_and_from_files() {
    let place = Place::new().with_file("word", "hush\n").with_file(
        "postrider.toml",
        "[librdkafka]\n'linger.ms' = 5\n[librdkafka-files]\n'sasl.password' = 'word'\n",
    );
    let refused = |name: &str, value: &str, words: &[&str]| {
        let mut command = place.postrider(&["run", "--database-url", "postgres://u@127.0.0.1:1/d"]);
        let answer = Answer::from(command.env(name, value).output().unwrap());
        answer.failed(3, words);
        assert!(!answer.stderr.contains("hush"), "{answer:?}");
    };
    refused("POSTRIDER_X_SASL_PASSWROD", "hush", &["sasl.passwrod", "no such property"]);
    refused("POSTRIDER_X_SECURITY_PROTOCOL_FILE", "word", &["security.protocol"]);
    refused("POSTRIDER_X_ACKS", "hush", &["property acks cannot be set"]);
    refused("POSTRIDER_X_SASL_PASSWORD_FILE", "none", &["the file none", "sasl.password"]);
}

#[test]
fn a_variable_that_means_nothing_is_told() {
    let place = Place::new();
    let answer = run_with(&place, &[("POSTRIDER_SHARD", "3")], &[]);
    assert!(answer.stderr.contains("POSTRIDER_SHARD means nothing"), "{answer:?}");
    assert!(answer.stderr.contains("did you mean POSTRIDER_SHARDS?"), "{answer:?}");
    let mut check = place.postrider(&["check", "--brokers", CLOSED, "--json"]);
    let check = check.env("POSTRIDER_PAGE_ROW", "7").env("PGHOST", "127.0.0.1").env("PGPORT", "1");
    let found: serde_json::Value = serde_json::from_slice(&check.output().unwrap().stdout).unwrap();
    assert_eq!(found["checks"][1]["name"], "environment");
    assert!(found["checks"][1]["detail"].as_str().unwrap().contains("POSTRIDER_PAGE_ROWS"));
}

/// Bytes that are no text are told with the variable's name, and neither shown nor a panic.
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let place = Place::new();
    let url = std::ffi::OsString::from_vec(b"postgres://u:hush\xff@127.0.0.1:1/d".to_vec());
    for name in ["DATABASE_URL", "PGPASSWORD", "POSTRIDER_DATABASE_URL", "POSTRIDER_TOPIC"] {
        for arguments in [&["run"][..], &["status"], &["migrate", "status"]] {
            let is_of_another = name == "POSTRIDER_TOPIC" && arguments != ["run"];
            if is_of_another {
                continue;
            }
            let mut command = place.postrider(arguments);
            let answer = Answer::from(command.env(name, &url).output().unwrap());
            answer.failed(3, &[&format!("{name} is not UTF-8"), "correct or unset"]);
            assert!(!answer.stderr.contains("hush"), "{answer:?}");
            assert!(!answer.stderr.contains("panicked"), "{answer:?}");
        }
    }
    let mut given = place.postrider(&["status", "--database-url", "postgres://u@127.0.0.1:1/d"]);
    let answer = Answer::from(given.env("DATABASE_URL", &url).output().unwrap());
    answer.failed(4, &["127.0.0.1:1/d"]);
}

/// Whoever reads the log as JSON reads its last line, too.
#[test]
fn the_last_error_has_the_form_of_the_log() {
    let place = Place::new();
    let url = ["--database-url", "postgres://u@127.0.0.1:1/d", "--brokers", CLOSED];
    let last = |arguments: &[&str]| -> serde_json::Value {
        let answer = place.run(&[arguments, &url].concat());
        serde_json::from_str(answer.stderr.lines().last().unwrap()).unwrap()
    };
    let error = last(REFUSED);
    assert_eq!((&error["level"], &error["exit_code"]), (&"ERROR".into(), &3.into()));
    assert!(error["remedy"].as_str().unwrap().contains("leave acks out"), "{error}");
    assert_eq!(last(&["run", "--log-format", "json", "--topic", "{x}"])["exit_code"], 3);
    assert_eq!(last(&["run", "--log-format", "json", "--config", "none"])["exit_code"], 3);
    let mut status = place.postrider(&["status", "--log-format", "json"]);
    let answer = Answer::from(status.args(&url[..2]).output().unwrap());
    answer.failed(4, &["\"exit_code\":4"]);
    let text = place.run(&[REFUSED, &["--log-format", "text"], &url[..]].concat());
    assert!(text.stderr.contains("\nerror: "), "{text:?}");
}

/// A file that somebody else may have put there says where the password goes.
#[test]
fn a_file_that_others_can_write_is_not_believed_unnamed() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new().with_file("postrider.toml", "brokers = 'file:1'");
    let file = place.0.join("postrider.toml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    place.run(&["run"]).failed(3, &["postrider.toml", "written by others", "--config"]);
    let line = first_line(&run_with(&place, &[("PGUSER", "u")], &["--config", "postrider.toml"]));
    assert_eq!(line["brokers"], "file:1");
}

#[test]
fn what_holds_is_shown_with_its_origin_and_without_secrets() {
    let file = "shards = 3\ndatabase-password-command = 'vault read hush'\n\
                [librdkafka]\nlinger.ms = 20\n'sasl.password' = 'hush'\n";
    let place = Place::new().with_file("postrider.toml", file);
    let mut command = place.postrider(&["config", "show", "--json", "-X", "ssl.key.pem=hush"]);
    command.args(["--tick-max", "20ms"]).envs([
        ("DATABASE_URL", "postgres://app:hush@db:5433/shop"),
        ("POSTRIDER_BROKERS", "kafka:1"),
        ("POSTRIDER_X_SASL_USERNAME", "shop"),
    ]);
    let answer = Answer::from(command.output().unwrap());
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(!answer.stdout.contains("hush"), "{}", answer.stdout);
    let shown: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    for (name, value, origin, from) in [
        ("tick-max", Some("20ms"), "flag", None),
        ("brokers", Some("kafka:1"), "environment", Some("POSTRIDER_BROKERS")),
        ("database-url", Some("db:5433/shop"), "environment", Some("DATABASE_URL")),
        ("database-password-command", Some("vault …"), "file", Some("postrider.toml")),
        ("shards", Some("3"), "file", Some("postrider.toml")),
        ("page-rows", Some("5000"), "default", None),
        ("librdkafka.linger.ms", Some("20"), "file", Some("postrider.toml")),
        ("librdkafka.sasl.password", Some("***"), "file", Some("postrider.toml")),
        ("librdkafka.sasl.username", Some("shop"), "environment", None),
        ("librdkafka.ssl.key.pem", Some("***"), "flag", None),
    ] {
        let expected =
            serde_json::json!({"name": name, "value": value, "origin": origin, "from": from});
        let found = shown.as_array().unwrap().iter().filter(|one| one["name"] == name);
        assert_eq!(found.collect::<Vec<_>>(), [&expected], "{name}");
    }
    let answer = place.run(&["config", "show", "--origin"]);
    assert!(answer.stdout.contains("file (postrider.toml)"), "{}", answer.stdout);
}

#[test]
fn settings_without_a_meaning_are_shown_and_refused() {
    let place = Place::new();
    let answer = place.run(&["config", "show", "--tick-min", "2s", "--tick-max", "1s"]);
    assert_eq!(answer.code, Some(3), "{}", answer.stderr);
    assert!(answer.stderr.contains("is longer than --tick-max"), "{}", answer.stderr);
    assert!(answer.stdout.contains("tick-min = 2s"), "{}", answer.stdout);
}

#[test]
fn a_file_to_begin_with_sets_nothing_and_is_taken() {
    let place = Place::new();
    let template = place.run(&["config", "init"]).stdout;
    let place = place.with_file("postrider.toml", &template);
    let answer = place.run(&["config", "show", "--origin"]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(!answer.stdout.contains("file ("), "{}", answer.stdout);
    let schema = place.run(&["config", "schema"]).stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["shards"]["type"], "integer");
}

#[test]
fn every_command_has_its_page() {
    let place = Place::new();
    let answer = place.run(&["man", "parked", "retry"]);
    assert!(answer.stdout.contains("postrider-parked-retry"), "{}", answer.stdout);
    assert!(answer.stdout.contains("dry\\-run"), "{}", answer.stdout);
    place.run(&["man", "parker"]).failed(3, &["no command \"parker\""]);
}
