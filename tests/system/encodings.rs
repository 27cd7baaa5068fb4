//! Databases whose encoding cannot hold every character.

use crate::handover::{ask, assert_exact, write};
use crate::support::consumer::create_topic;
use crate::support::fixture::Options;
use crate::support::{Fixture, Patience, RelayProcess, read_topic};

/// Of one byte per character, of several, and of none that is known.
const ENCODINGS: [&str; 4] = ["LATIN1", "KOI8R", "EUC_JP", "SQL_ASCII"];

async fn wait_for(fixture: &Fixture, events: usize) {
    let patience = Patience::until("all are published");
    while read_topic(&fixture.brokers, &fixture.topic("order")).len() < events {
        patience.pause().await;
    }
}

/// What postrider says to a server can be said in each encoding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_from_databases_of_any_encoding() {
    for encoding in ENCODINGS {
        let name = format!("of_{}", encoding.to_lowercase());
        let fixture = Fixture::encoded(&name, encoding, Options::default()).await;
        create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
        let client = fixture.client().await;
        write(&client, 1..=20).await;
        let bad = "insert into outbox (aggregatetype, aggregateid, type, headers)
            values ('order', 'bad', '0', '[]')";
        client.batch_execute(bad).await.expect("it is written");
        let relay = RelayProcess::start(&fixture, &[]);
        wait_for(&fixture, 20).await;
        for (arguments, words) in [
            (&["check"] as &[&str], "no row lies where no cursor looks"),
            (&["parked", "list"], "bad-headers"),
            (&["replay", "--seq", "1..", "--dry-run"], "20 events would be sent"),
            (&["capture", "switch", "wal"], "the log is read"),
        ] {
            ask(&fixture, arguments, 0, words);
        }
        // What a person writes is refused where it cannot be kept, and nothing is changed.
        let (code, words) = match encoding {
            "LATIN1" | "KOI8R" => (4, "no equivalent in encoding"),
            _ => (0, "publishing is paused"),
        };
        ask(&fixture, &["pause", "--reason", "\u{4e2d}"], code, words);
        ask(&fixture, &["resume"], 0, if code == 0 { "goes on" } else { "was not paused" });
        write(&client, 21..=40).await;
        wait_for(&fixture, 40).await;
        ask(&fixture, &["parked", "discard", "--all"], 0, "1");
        assert_exact(&fixture, &(1..=40).collect::<Vec<_>>());
        relay.stop_well().await;
    }
}
