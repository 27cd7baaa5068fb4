//! The numbers by which consumers drop repeats: where they are, that they grow, and that a repeat has the same.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use crate::parking::{ask, insert, wait_for_the_rest, wait_until_parked};
use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::{Capture, Consumed, Fixture, RelayProcess, read_topic};

const NUMBERS: [&str; 2] = ["--add-headers", "seq,position"];

fn number(record: &Consumed, name: &str) -> Option<u128> {
    let text = std::str::from_utf8(record.header(name)?).expect("it is text");
    Some(text.parse().expect("it is a whole number"))
}

/// The records of an aggregate that have this number, which grows from one to the next.
fn growing<'r>(records: &'r [Consumed], key: &str, name: &str) -> Vec<(&'r str, u128)> {
    let of_key = records.iter().filter(|record| record.key_text() == key);
    let kind = |record: &'r Consumed| {
        std::str::from_utf8(record.header("type").expect("it has one")).expect("it is text")
    };
    let found: Vec<(&str, u128)> =
        of_key.filter_map(|record| Some((kind(record), number(record, name)?))).collect();
    assert!(found.is_sorted_by(|one, next| one.1 < next.1), "{name} of {key}: {found:?}");
    found
}

/// Whether a number grows per aggregate for a consumer that drops repeats by id, over all records that have it.
pub(crate) fn assert_growing(records: &[Consumed], name: &str) {
    let (mut known, mut last) = (BTreeSet::new(), BTreeMap::new());
    for record in records {
        let Some(found) = number(record, name) else { continue };
        if known.insert(record.id().0) {
            let before = last.insert(record.key_text(), found);
            let key = record.key_text();
            assert!(
                before.is_none_or(|before| before < found),
                "{name} of {key}: {before:?}, {found}"
            );
        }
    }
    assert!(!known.is_empty(), "no record has a {name}");
}

fn kinds(found: &[(&str, u128)]) -> Vec<u32> {
    found.iter().map(|(kind, _)| kind.parse().expect("it is a number")).collect()
}

/// One more event than the topic takes, with what follows it; then the topic takes it.
async fn park_and_retry(fixture: &Fixture, client: &Client, first: u32) {
    let topic = fixture.topic("t");
    insert(client, ("t", "a"), first, 8_000).await;
    insert(client, ("t", "a"), first + 1, 10).await;
    let waits = [first, first + 1].map(|kind| kind.to_string());
    let waits = [(waits[0].as_str(), "too-large"), (waits[1].as_str(), "follows")];
    wait_until_parked(client, &waits).await;
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "100000")]).await;
    ask(fixture, &["parked", "retry", "--all"]);
    wait_until_parked(client, &[]).await;
    wait_for_the_rest(fixture).await;
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "5000")]).await;
}

/// GIVEN a relay that adds both numbers WHEN it goes from `poll` to `wal` and back, and parks in each, THEN `seq` is
/// the row's in every record and grows, and `position` is there and grows where the log brought the event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seq_grows_over_switches_and_retries() {
    let fixture = Fixture::new("places_switched").await;
    let (topic, client) = (fixture.topic("t"), fixture.client().await);
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "5000")]).await;
    let relay = RelayProcess::start(&fixture, &NUMBERS);
    insert(&client, ("t", "a"), 1, 10).await;
    park_and_retry(&fixture, &client, 2).await;
    ask(&fixture, &["capture", "switch", "wal"]);
    relay.wait_until_it_says("streaming from the replication slot").await;
    insert(&client, ("t", "a"), 4, 10).await;
    park_and_retry(&fixture, &client, 5).await;
    ask(&fixture, &["capture", "switch", "poll"]);
    insert(&client, ("t", "a"), 7, 10).await;
    wait_for_the_rest(&fixture).await;
    relay.stop_well().await;

    let records = read_topic(&fixture.brokers, &topic);
    let seqs = growing(&records, "a", "seq");
    assert_eq!(kinds(&seqs), (1..=7).collect::<Vec<_>>());
    let drawn = client.query("select type, seq from outbox order by seq", &[]).await;
    let drawn = drawn.expect("the rows are retained");
    for (row, (kind, seq)) in drawn.iter().zip(&seqs) {
        let (of_row, drawn): (&str, i64) = (row.get(0), row.get(1));
        assert_eq!((of_row, u128::try_from(drawn).expect("it was drawn")), (*kind, *seq));
    }
    assert_eq!(kinds(&growing(&records, "a", "position")), [4, 5, 6], "what the log brought");
}

/// GIVEN messages, several of an aggregate in a transaction, and one that was parked THEN each has a position, which
/// grows, and no `seq`, as there is no table that would have given one. One number tells all of them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_have_positions_alone() {
    let fixture = Fixture::new("places_messages").await.captured_by(Capture::Message);
    let (topic, client) = (fixture.topic("t"), fixture.client().await);
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "5000")]).await;
    ask(&fixture, &["capture", "switch", "message", "--no-wait"]);
    let relay =
        RelayProcess::start(&fixture, &[&NUMBERS[..], &["--capture", "message"][..]].concat());
    relay.wait_until_it_says("reading the log").await;
    let emit = |kind: u32, length: usize| {
        format!("select postrider.emit('t', 'a', '{kind}', to_json(repeat('x', {length})));")
    };
    let together: String = (1..=40).map(|kind| emit(kind, 10)).collect();
    client.batch_execute(&format!("begin; {together} commit")).await.expect("it is written");
    client.batch_execute(&emit(41, 8_000)).await.expect("it is written");
    client.batch_execute(&emit(42, 10)).await.expect("it is written");
    wait_until_parked(&client, &[("41", "too-large"), ("42", "follows")]).await;
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "100000")]).await;
    ask(&fixture, &["parked", "retry", "--all"]);
    wait_until_parked(&client, &[]).await;
    client.batch_execute(&emit(43, 10)).await.expect("it is written");
    fixture.wait_published().await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &topic);
    assert_eq!(kinds(&growing(&records, "a", "position")), (1..=43).collect::<Vec<_>>());
    assert_eq!(growing(&records, "a", "seq"), [], "no table has given one");
}

/// GIVEN rows whose writers are in no order WHEN the log brings them THEN positions grow in the order of commits,
/// where `seq` does not; and a row of an adopted table has a position and no `seq`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_grow_for_any_writer() {
    let fixture = Fixture::new("places_writers").await;
    let (client, other) = (fixture.client().await, fixture.client().await);
    let relay = RelayProcess::start(&fixture, &[&NUMBERS[..], &["--capture", "wal"][..]].concat());
    relay.wait_until_it_says("streaming from the replication slot").await;
    client.batch_execute("begin").await.expect("a transaction opens");
    insert(&client, ("t", "a"), 2, 10).await;
    insert(&other, ("t", "a"), 1, 10).await;
    client.batch_execute("commit").await.expect("it commits");
    fixture.wait_published().await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    assert_eq!(kinds(&growing(&records, "a", "position")), [1, 2], "the order of commits");
    let seqs: Vec<_> = records.iter().filter_map(|record| number(record, "seq")).collect();
    assert!(seqs[0] > seqs[1], "the first to commit had drawn later: {seqs:?}");
}

/// GIVEN published events WHEN the cursors are set again, with the sequence led on, THEN each comes again with the
/// number that it had, and later ones have numbers above what was asked for: nobody takes them for repeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_has_the_number_that_it_had() {
    let fixture = Fixture::new("places_repeated").await;
    let client = fixture.client().await;
    for kind in 1..=20 {
        insert(&client, ("t", if kind % 2 == 0 { "a" } else { "b" }), kind, 10).await;
    }
    let relay = RelayProcess::start(&fixture, &NUMBERS);
    fixture.wait_published().await;
    relay.stop_well().await;
    let said = ask(&fixture, &["migrate", "reanchor", "--seq-above", "5000000000", "--dry-run"]);
    assert!(said.contains("nothing was changed"), "{said}");
    ask(&fixture, &["migrate", "reanchor", "--seq-above", "5000000000"]);
    insert(&client, ("t", "a"), 21, 10).await;
    // It only goes up.
    ask(&fixture, &["migrate", "reanchor", "--seq-above", "7"]);
    insert(&client, ("t", "a"), 22, 10).await;
    let relay = RelayProcess::start(&fixture, &NUMBERS);
    fixture.wait_published().await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    let mut known: BTreeMap<_, Vec<u128>> = BTreeMap::new();
    for record in &records {
        let seq = number(record, "seq").expect("a row has one");
        known.entry(record.id().0).or_default().push(seq);
    }
    assert_eq!(known.len(), 22);
    let mut later: Vec<u128> = Vec::new();
    for seqs in known.into_values() {
        assert!(seqs.iter().all(|seq| *seq == seqs[0]), "{seqs:?}");
        if seqs.len() == 1 {
            later.push(seqs[0]);
        }
    }
    later.sort_unstable();
    assert_eq!(later, [5_000_000_001, 5_000_000_002]);
}
