//! Every way to come in to Kafka, and what is said when one is shut.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::logins::{PASSWORD, TokenProgram, USER, certificate};
use crate::support::servers::kafka;
use crate::support::{Fixture, RelayProcess, read_topic};

const INSERT: &str = "insert into outbox (aggregatetype, aggregateid, type, payload)
    select 'order', (g % 5)::text, 'T', '{}' from generate_series(1, 10) as g";
/// Tokens of fewer seconds could end before they are shown.
const TOKEN_SECONDS: u32 = 4;

/// A way in: the broker's listener, and what the relay is told of it.
struct Way {
    listener: &'static str,
    arguments: Vec<String>,
}

impl Way {
    fn new(listener: &'static str, properties: &[(&str, &str)], more: &[&str]) -> Self {
        let typed = |(name, value): &(&str, &str)| ["-X".to_owned(), format!("{name}={value}")];
        let mut arguments: Vec<String> = properties.iter().flat_map(typed).collect();
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        Self { listener, arguments }
    }

    fn fixture(&self, fixture: &Fixture) -> Fixture {
        fixture.with_brokers(kafka().brokers_at(self.listener).unwrap())
    }

    /// What `check` says of Kafka.
    fn check(&self, fixture: &Fixture) -> (bool, String) {
        let mut command = self.fixture(fixture).command();
        let output = command.arg("check").args(&self.arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said + &String::from_utf8_lossy(&output.stderr))
    }
}

fn authority() -> String {
    certificate().display().to_string()
}

/// A file with a word of ours in it.
fn secret(name: &str, word: &str) -> String {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("logins-{name}"));
    std::fs::write(&file, format!("{word}\n")).unwrap();
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_out_by_each_way_in() {
    let (fixture, ca) = (Fixture::new("events_go_out_by_each_way_in").await, authority());
    let tokens = TokenProgram::new("each_way_in", TOKEN_SECONDS);
    let scram = [("sasl.mechanisms", "SCRAM-SHA-256"), ("sasl.username", USER)];
    let scram = [&scram[..], &[("sasl.password", PASSWORD)]].concat();
    let over_tls = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", &ca)];
    let program = ["--kafka-token-command", &tokens.command];
    let strong = [("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", USER)];
    let strong = [&over_tls[..], &strong, &[("sasl.password", PASSWORD)]].concat();
    let ways = [
        Way::new("TLS", &[("security.protocol", "ssl"), ("ssl.ca.location", &ca)], &[]),
        Way::new("SASL", &[&scram[..], &[("security.protocol", "sasl_plaintext")]].concat(), &[]),
        Way::new("SASLTLS", &strong, &[]),
        Way::new("SASL", &[("security.protocol", "sasl_plaintext")], &program),
        Way::new("SASLTLS", &over_tls, &program),
    ];
    let client = fixture.client().await;
    for (number, way) in ways.iter().enumerate() {
        client.batch_execute(INSERT).await.unwrap();
        let (is_well, said) = way.check(&fixture);
        assert!(is_well && said.contains("answers"), "{:?}: {said}", way.arguments);
        let arguments: Vec<&str> = way.arguments.iter().map(String::as_str).collect();
        let relay = RelayProcess::start(&way.fixture(&fixture), &arguments);
        fixture.wait_published().await;
        let said = relay.said();
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{:?}: {said}", way.arguments);
        relay.stop_well().await;
        let events = read_topic(&fixture.brokers, &fixture.topic("order"));
        assert_eq!(events.len(), 10 * (number + 1), "{:?}", way.arguments);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shut_way_is_told_with_what_opens_it() {
    let fixture = Fixture::new("a_shut_way_is_told").await;
    let (right, wrong) = (secret("right", PASSWORD), secret("wrong", "hush-wrong"));
    let stranger = certificate().with_file_name("other.pem").display().to_string();
    let scram = ["sasl_plaintext", "SCRAM-SHA-256", USER];
    let scram = ["security.protocol", "sasl.mechanisms", "sasl.username"].iter().zip(scram);
    let scram: Vec<(&str, &str)> = scram.map(|(name, value)| (*name, value)).collect();
    let with = |password: &'static str| [&scram[..], &[("sasl.password", password)]].concat();
    let of_strangers = [("security.protocol", "ssl"), ("ssl.ca.location", stranger.as_str())];
    let (sasl, ssl) = ([("security.protocol", "sasl_plaintext")], [("security.protocol", "ssl")]);
    let rubbish = ["--kafka-token-command", "echo hush-rubbish"];
    let refused = "echo '{\"token\":\"hush.rubbish.\",\"expires_at_ms\":4102444800000}'";
    let refused = ["--kafka-token-command", refused];
    // Each waits until no broker has answered for long: all at once.
    let mut trials = JoinSet::new();
    for (way, word) in [
        (Way::new("SASL", &with("hush-wrong"), &[]), "sasl.password"),
        (Way::new("TLS", &of_strangers, &[]), "ssl.ca.location"),
        (Way::new("TLS", &ssl, &[]), "ssl.ca.location"),
        (Way::new("SASL", &[], &[]), "security.protocol"),
        (Way::new("SASL", &sasl, &[]), "sasl.mechanisms"),
        (Way::new("SASL", &sasl, &rubbish), "did not write JSON"),
        (Way::new("SASL", &sasl, &refused), "--kafka-token-command"),
    ] {
        let fixture = fixture.clone();
        trials.spawn_blocking(move || {
            let (is_well, said) = way.check(&fixture);
            assert!(!is_well && said.contains(word), "{:?}: {said}", way.arguments);
            assert!(!said.contains("hush"), "{said}");
        });
    }
    // A file that is named by a variable, and what is in it now.
    for (file, code) in [(wrong, Some(5)), (right, Some(0))] {
        let way = Way::new("SASL", &scram, &[]);
        let mut command = way.fixture(&fixture).command();
        command.env("POSTRIDER_X_SASL_PASSWORD_FILE", file).arg("check").args(&way.arguments);
        trials.spawn_blocking(move || {
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), code, "{}", String::from_utf8_lossy(&output.stdout));
        });
    }
    let way = Way::new("SASL", &with("hush-wrong"), &[]);
    let arguments: Vec<&str> = way.arguments.iter().map(String::as_str).collect();
    let relay = RelayProcess::start(&way.fixture(&fixture), &arguments);
    assert_eq!(relay.wait(Duration::from_secs(60)).await.code(), Some(5));
    while let Some(trial) = trials.join_next().await {
        trial.unwrap();
    }
}
