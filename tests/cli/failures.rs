//! What people read when a server is not there, and the exit codes.

use super::{CLOSED, Place};

fn closed_url() -> String {
    format!("postgres://u@{CLOSED}/d")
}

#[test]
fn an_unreachable_database_exits_with_4() {
    let (place, url) = (Place::new(), closed_url());
    for command in [&["status"][..], &["migrate", "up"], &["migrate", "status"]] {
        let arguments = [command, &["--database-url", &url]].concat();
        let answer = place.run(&arguments);
        answer.failed(4, &["error: ", CLOSED, "refused"]);
        let lines: Vec<&str> = answer.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "cause and remedy: {}", answer.stderr);
        assert!(lines[1].starts_with("  "), "the remedy is indented: {}", answer.stderr);
    }
}

#[test]
fn an_unreachable_broker_exits_with_5() {
    let (place, url) = (Place::new(), closed_url());
    let arguments = ["run", "--database-url", &url, "--brokers", CLOSED];
    place.run(&arguments).failed(5, &["no Kafka broker can be reached", "check --brokers"]);
}

#[test]
fn check_lists_each_trouble_and_exits_with_the_first() {
    let (place, url) = (Place::new(), closed_url());
    let arguments = ["check", "--database-url", &url, "--brokers", CLOSED];
    let answer = place.run(&arguments);
    assert_eq!(answer.code, Some(4), "{answer:?}");
    assert_eq!(answer.stderr, "", "the list says it all");
    let signs: Vec<&str> = answer.stdout.lines().filter_map(|line| line.get(..3)).collect();
    assert_eq!(signs.iter().filter(|sign| **sign == "\u{2718}").count(), 2, "{}", answer.stdout);
    for word in ["\u{2714} config", "\u{2718} postgres", "\u{2718} kafka", "fix: ", "2 problems"] {
        assert!(answer.stdout.contains(word), "{word} is missing in {}", answer.stdout);
    }
}

#[test]
fn check_answers_in_json() {
    let place = Place::new();
    let answer = place.run(&["check", "--topic", "a.{b}", "--json"]);
    assert_eq!(answer.code, Some(3), "{answer:?}");
    let found: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(found["checks"][0]["name"], "config");
    assert_eq!(found["checks"][0]["outcome"], "failed");
    assert!(found["checks"][0]["remedy"].as_str().unwrap().contains("{aggregatetype}"));
}

#[test]
fn migrate_print_needs_no_database() {
    let place = Place::new();
    let answer = place.run(&["migrate", "print", "--outbox", "app.events", "--buckets", "4"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.stdout.contains("create table postrider.cursor"), "{}", answer.stdout);
    assert!(answer.stdout.contains("events"), "{}", answer.stdout);
}
