//! Topics that postrider makes, and those that it leaves as they are.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::holds::{UNPUBLISHED, wait_for_count};
use crate::parking::{ask, first_seen, insert};
use crate::support::consumer::{create_topic_with, leaders, list_topics};
use crate::support::{Fixture, RelayProcess};

/// A file of rules that is gone with the test.
struct RuleFile(PathBuf);

impl RuleFile {
    fn new(fixture: &Fixture, rules: &str) -> Self {
        let name =
            format!("postrider-{}-{}-{}.toml", fixture.name, rules.len(), std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, rules.replace("NAME", &fixture.name)).expect("a file can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for RuleFile {
    fn drop(&mut self) {
        if let Err(cause) = std::fs::remove_file(&self.0) {
            eprintln!("{}: {cause}", self.0.display());
        }
    }
}

/// Each broker would make these topics with one partition, and asks for no copies in step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_topics_are_made_as_the_file_says_before_their_events_are_sent() {
    let fixture = Fixture::new("topics_made").await;
    let rules = RuleFile::new(
        &fixture,
        "create-topics = true\ntopic-partitions = 3\n\
         [topics.\"NAME.few\"]\npartitions = 2\n\
         [topics.\"NAME.never\"]\nreplication-factor = 7\n\
         [topics.\"NAME.*\"]\npartitions = 5\nconfig = { \"max.message.bytes\" = 2000000 }\n",
    );
    let client = fixture.client().await;
    for kind in ["first", "second", "few"] {
        insert(&client, (kind, "k"), 1, 10).await;
    }
    let checked = ask(&fixture, &["check", "--config", rules.path()]);
    assert!(checked.contains("run makes them"), "{checked}");
    assert!(!list_topics(&fixture.brokers).contains(&fixture.topic("few")), "a check makes none");
    let relay = RelayProcess::start(&fixture, &["--config", rules.path(), "--shards", "1"]);
    fixture.wait_published().await;
    // One alone, while all others are known; its events are larger than brokers take by default.
    insert(&client, ("alone", "k"), 1, 1_500_000).await;
    fixture.wait_published().await;
    for (kind, partitions) in [("first", 5), ("second", 5), ("few", 2), ("alone", 5)] {
        assert_eq!(leaders(&fixture.brokers, &fixture.topic(kind)).len(), partitions, "{kind}");
    }
    assert!(!relay.said().contains("is parked"), "{}", relay.said());
    // What the brokers refuse is parked with their reason, and stops nobody.
    insert(&client, ("never", "k"), 1, 10).await;
    insert(&client, ("first", "k"), 2, 10).await;
    wait_for_count(&client, "select count(*) from postrider.parked", 1).await;
    wait_for_count(&client, UNPUBLISHED, 0).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("first"), "k"), ["1", "2"]);
    let detail = client.query_one("select detail from postrider.parked", &[]).await;
    let detail: String = detail.expect("it is parked").get(0);
    assert!(detail.contains("cannot be made"), "{detail}");
    assert!(relay.said().contains("set replication-factor"), "{}", relay.said());
    assert!(!list_topics(&fixture.brokers).contains(&fixture.topic("never")));
    relay.stop_well().await;
}

fn topics(fixture: &Fixture, rules: &RuleFile, arguments: &[&str]) -> Output {
    let command = [&["topics"], arguments, &["--config", rules.path()]].concat();
    fixture.command().args(command).output().expect("the binary runs")
}

/// What the plan says of a topic.
#[track_caller]
fn planned(fixture: &Fixture, rules: &RuleFile, topic: &str) -> Value {
    let output = topics(fixture, rules, &["plan", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let found = answer["topics"].as_array().expect("a list").iter();
    let mut found = found.filter(|one| one["topic"] == topic);
    found.next().unwrap_or_else(|| panic!("{topic} is missing in {answer:#}")).clone()
}

/// A plan changes nothing; what is applied is what was planned, and keys move only where that is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_is_applied_and_nothing_else() {
    let fixture = Fixture::new("topics_planned").await;
    let there = fixture.topic("there");
    let own = [("retention.ms", "86400000"), ("max.message.bytes", "700000")];
    create_topic_with(&fixture.brokers, &there, &own).await;
    let client = fixture.client().await;
    insert(&client, ("waiting", "k"), 1, 10).await;
    let rules = RuleFile::new(
        &fixture,
        "[topics.\"NAME.*\"]\npartitions = 4\n\
         config = { \"max.message.bytes\" = 2000000, \"cleanup.policy\" = \"compact\" }\n",
    );
    let waiting = fixture.topic("waiting");
    let plan = planned(&fixture, &rules, &waiting);
    assert_eq!(
        (&plan["verdict"], &plan["steps"][0]["step"]),
        (&"missing".into(), &"create".into())
    );
    let plan = planned(&fixture, &rules, &there);
    let steps: Vec<&str> = plan["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|step| step["step"].as_str())
        .collect();
    assert_eq!(steps, ["raise-partitions", "set", "set"], "{plan:#}");
    assert_eq!(plan["partitions"], 2, "{plan:#}");
    assert!(!list_topics(&fixture.brokers).contains(&waiting), "a plan makes nothing");
    let there_alone = ["check", "--config", rules.path(), "--topic", there.as_str()];
    let checked = ask(&fixture, &there_alone);
    assert!(checked.contains("has 2 partitions, and the settings say 4"), "{checked}");

    let output = topics(&fixture, &rules, &["apply"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--move-keys") && said.contains("raise partitions from 2 to 4"),
        "{said}"
    );
    assert_eq!(leaders(&fixture.brokers, &waiting).len(), 4);
    assert_eq!(leaders(&fixture.brokers, &there).len(), 2, "keys stay");
    let plan = planned(&fixture, &rules, &there);
    assert_eq!(plan["config"]["max.message.bytes"], "2000000", "{plan:#}");
    assert_eq!(plan["config"]["retention.ms"], "86400000", "what nobody named stays: {plan:#}");

    let output = topics(&fixture, &rules, &["apply", "--move-keys"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(leaders(&fixture.brokers, &there).len(), 4);
    assert_eq!(planned(&fixture, &rules, &there)["verdict"], "ok");
    let output = topics(&fixture, &rules, &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches("ok  ").count(), 2, "without a word it is a plan: {said}");

    let wrong =
        RuleFile::new(&fixture, "[topics.\"NAME.wrong\"]\nconfig = { \"retention.mss\" = 1 }\n");
    let output = topics(&fixture, &wrong, &["apply"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("cannot be made") && said.contains("retention.mss"), "{said}");
}
