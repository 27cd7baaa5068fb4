//! Help that can be read and is complete.

use super::Place;

const COMMANDS: &[&str] = &[
    "run",
    "migrate",
    "check",
    "status",
    "top",
    "parked",
    "capture",
    "adopt",
    "topics",
    "tap",
    "completions",
];

fn help_of(arguments: &[&str]) -> String {
    let answer = Place::new().run(arguments);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(answer.stderr, "");
    answer.stdout
}

#[test]
fn help_lists_commands_and_exit_codes() {
    let help = help_of(&["--help"]);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in {help}");
    }
    for word in ["3 configuration", "4 PostgreSQL", "5 Kafka", "6 schema", "POSTRIDER_PAGE_ROWS"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
}

#[test]
fn every_help_is_at_most_100_columns_wide_and_has_an_example() {
    let mut asked: Vec<Vec<&str>> = COMMANDS.iter().map(|command| vec![*command]).collect();
    asked.push(vec![]);
    for mut arguments in asked {
        arguments.push("--help");
        let help = help_of(&arguments);
        assert!(help.contains("Example"), "{arguments:?}: {help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{arguments:?}: {line}");
        }
    }
    for command in ["list", "show", "retry", "discard"] {
        let help = help_of(&["parked", command, "--help"]);
        assert!(help.contains("--database-url") && help.contains("Example"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    for command in ["plan", "apply"] {
        let help = help_of(&["topics", command, "--help"]);
        assert!(help.contains("--topic-partitions"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    for command in ["show", "switch"] {
        let help = help_of(&["capture", command, "--help"]);
        assert!(help.contains("--database-url"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    for command in ["up", "print", "status"] {
        let help = help_of(&["migrate", command, "--help"]);
        assert!(help.contains("--database-url"), "{help}");
    }
}

#[test]
fn run_knows_every_flag() {
    let help = help_of(&["run", "--help"]);
    for flag in [
        "database-url",
        "database-url-file",
        "database-password-file",
        "database-password-command",
        "outbox",
        "brokers",
        "shards",
        "lease-seconds",
        "on-promotion",
        "capture",
        "delivery",
        "topic",
        "config",
        "log-format",
        "log-level",
        "shutdown-timeout",
        "tick-min",
        "tick-max",
        "page-rows",
        "max-in-flight-bytes",
        "max-event-bytes",
        "save-interval",
        "replay-window",
        "record-timestamp",
        "on-poison",
        "dead-letter-topic",
        "add-headers",
        "admin-listen",
        "admin-hosts",
        "admin-token-file",
        "create-topics",
        "topic-partitions",
        "topic-replication-factor",
        "format",
        "cloudevents-source",
    ] {
        assert!(help.contains(&format!("--{flag}")), "--{flag} is missing in {help}");
    }
    assert!(help.contains("-X <NAME=VALUE>"), "{help}");
    assert!(help_of(&["migrate", "up", "--help"]).contains("--generation-seconds"));
}

#[test]
fn usage_errors_exit_with_2() {
    let place = Place::new();
    place.run(&[]).failed(2, &["Usage: postrider"]);
    place.run(&["run", "--broker", "x:1"]).failed(2, &["'--brokers'"]);
    place.run(&["runn"]).failed(2, &["'run'"]);
    place.run(&["run", "--tick-min", "5"]).failed(2, &["--tick-min", "100ms or 25s"]);
    place.run(&["run", "--max-in-flight-bytes", "lots"]).failed(2, &["32MiB"]);
    place.run(&["run", "--shards", "0"]).failed(2, &["--shards"]);
    place.run(&["run", "-X", "linger.ms"]).failed(2, &["name=value"]);
    place.run(&["run", "--record-timestamp", "now"]).failed(2, &["created"]);
    place.run(&["run", "--on-poison", "ignore"]).failed(2, &["park, dead-letter, stop"]);
    place.run(&["parked", "discard"]).failed(2, &["--aggregate", "--all"]);
    place.run(&["parked", "retry", "--all", "--reason", "follows"]).failed(2, &["--all"]);
    place.run(&["parked", "list", "--reason", "bad"]).failed(2, &["too-large, illegal-topic"]);
    place.run(&["parked", "list", "--aggregate", "order"]).failed(2, &["order/4711"]);
    place.run(&["replay", "--aggregate", "order"]).failed(2, &["order/4711", "--aggregate-id"]);
    place.run(&["replay", "--aggregate-id", "7"]).failed(2, &["--aggregate-type"]);
    for name in ["a b", "..", "a/b", "{aggregatetype}", ""] {
        place.run(&["topics", "plan", name]).failed(2, &["topic"]);
    }
    place.run(&["parked", "show", "7"]).failed(2, &["<ID>"]);
    place.run(&["top"]).failed(3, &["there is no terminal", "use `postrider status`"]);
    place.run(&["migrate", "up", "--buckets", "65"]).failed(2, &["1..=64"]);
    place.run(&["migrate", "up", "--payload", "xml"]).failed(2, &["--payload", "bytea"]);
}

#[test]
fn tells_its_version() {
    assert_eq!(help_of(&["--version"]), format!("postrider {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completes_in_the_usual_shells() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = help_of(&["completions", shell]);
        assert!(script.contains("_POSTRIDER_COMPLETE"), "{shell}: {script}");
    }
    // As the script for bash asks, in a place where no broker answers: for a property, and for a topic.
    let place = Place::new();
    for (words, expected) in [
        (&["run", "-X", "queue.buffering.max.k"][..], "queue.buffering.max.kbytes="),
        (&["topics", "plan", "--brokers", "127.0.0.1:1", "outbox"][..], ""),
        (&["run", "--max-in-fl"][..], "--max-in-flight-bytes"),
    ] {
        let asked = [&["--", "postrider"][..], words].concat();
        let mut command = place.postrider(&asked);
        command.env("_POSTRIDER_COMPLETE", "bash").env("IFS", "\n");
        command.env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        let output = command.output().expect("the binary runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{words:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    let mut command = place.postrider(&["completions", "bash"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// Whatever the help offers is taken.
#[test]
fn no_value_is_offered_that_is_refused() {
    let help = help_of(&["run", "--help"]);
    let mut flag = String::new();
    let mut offered = 0;
    for line in help.lines() {
        if let Some(found) = line.split_whitespace().find(|word| word.starts_with("--")) {
            flag = found.trim_end_matches(',').to_owned();
        }
        let value = line.trim_start().strip_prefix("- ").and_then(|rest| rest.split(':').next());
        let Some(value) = value else { continue };
        offered += 1;
        let place = Place::new();
        let url = ["--database-url", "postgres://u@127.0.0.1:1/d"];
        // What is refused last ends it before it looks for a server.
        let answer = place.run(&[&["run", "-X", "acks=1", &flag, value], &url[..]].concat());
        assert!(answer.stderr.contains("property acks"), "{flag} {value}: {answer:?}");
    }
    assert!(offered > 10, "{help}");
}
