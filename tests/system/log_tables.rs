//! What owners do to the partitions of the outbox while their log is read, and while nobody reads it.

use std::time::Duration;

use postrider_testkit::audit::Fate;
use tokio_postgres::Client;

use crate::adopt::{ADOPT, adopt, legacy_outbox, wait_published};
use crate::support::writer::insert_event;
use crate::support::{Fixture, History, Patience, RelayProcess};
use crate::told::as_relay;

const WAL: &[&str] = &["--capture", "wal", "--shards", "1"];
/// More than buckets.
const AGGREGATES: u64 = 24;

/// Writes one more event of each aggregate.
async fn write(client: &Client, history: &History, round: u64) {
    let mut events = Vec::new();
    for number in 0..AGGREGATES {
        events.push(insert_event(client, &format!("a-{number}"), round).await);
    }
    history.ended(events, Fate::Committed);
}

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn run(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A statement for each partition that holds rows.
fn each(change: &str) -> String {
    format!(
        "do $$ declare leaf regclass; begin
            for leaf in select relid from pg_partition_tree('public.outbox') where isleaf loop
                execute format('{change}', leaf);
            end loop;
        end $$"
    )
}

/// One partition that rows of the present come to, with an aggregate of it.
struct Leaf {
    bucket: String,
    name: String,
    generation: i32,
    aggregate: String,
}

async fn leaf(client: &Client) -> Leaf {
    let find = "select 'outbox_b0' || bucket, generation, aggregate
        from generate_series(0, 7) as bucket,
            (select 'a-' || n as aggregate from generate_series(0, 23) as n) as aggregates,
            (select ((date_part('epoch', now())::bigint / 600) % 3)::integer as generation) as present
        where satisfies_hash_partition('public.outbox'::regclass, 8, bucket, aggregate)
        limit 1";
    let row = client.query_one(find, &[]).await.expect("there is one");
    let (bucket, generation): (String, i32) = (row.get(0), row.get(1));
    let name = format!("{bucket}_g{generation}");
    Leaf { bucket, name, generation, aggregate: row.get(2) }
}

impl Leaf {
    /// Takes it out, puts an event into it and takes it in again, as one transaction.
    async fn fill_aside(&self, client: &Client, history: &History, round: u64) {
        let Self { bucket, name, generation, aggregate } = self;
        // Nothing is lost of the others, either.
        say(client, &format!("begin; alter table {bucket} detach partition {name}")).await;
        let (id, version) = (uuid::Uuid::new_v4(), round);
        let insert = format!(
            "insert into {name} (txid, seq, id, aggregatetype, aggregateid, type, payload, created_at, generation)
             values (pg_current_xact_id(), nextval('outbox_seq_seq'), '{id}', '{kind}', '{aggregate}', 'T',
                '{{\"aggregate\":\"{aggregate}\",\"version\":{version}}}', now(), {generation})",
            kind = crate::support::writer::AGGREGATE_TYPE
        );
        say(client, &insert).await;
        let attach =
            format!("alter table {bucket} attach partition {name} for values in ({generation})");
        say(client, &format!("{attach}; commit")).await;
        let event =
            crate::support::writer::Inserted { id, aggregate: aggregate.clone(), number: round };
        history.ended(vec![event], Fate::Committed);
    }
}

/// PostgreSQL writes nothing of them into its log, and lets it be done: only the root is in the publication.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unlogged_partitions_are_polled_and_told() {
    let fixture = Fixture::new("log_unlogged").await;
    let (client, history) = (fixture.client().await, History::default());
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    write(&client, &history, 1).await;
    fixture.wait_published().await;
    say(&client, &each("alter table %s set unlogged")).await;
    write(&client, &history, 2).await;
    relay.wait_until_it_says("the table is polled until it can").await;
    assert!(relay.said().contains("are not in the log: it is unlogged"), "{}", relay.said());
    fixture.wait_published().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
    let wanted = "alter table \"public\".\"outbox_b00_g0\" set logged";
    for arguments in [&["capture", "switch", "wal"][..], &["check"], &["capture", "show"]] {
        let (_, said) = run(&fixture, arguments);
        assert!(said.contains("it is unlogged") && said.contains(wanted), "{arguments:?}: {said}");
    }
    assert_ne!(run(&fixture, &["check"]).0, Some(0));
    say(&client, &each("alter table %s set logged")).await;
    relay.wait_until_it_says("backlog published").await;
    write(&client, &history, 3).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_to_the_log_is_refused_while_a_partition_is_not_in_it() {
    let fixture = Fixture::new("log_unlogged_switch").await;
    let client = fixture.client().await;
    say(&client, "alter table outbox_b03_g1 set unlogged").await;
    let (code, said) = run(&fixture, &["capture", "switch", "wal"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("public.outbox_b03_g1") && said.contains("it is unlogged"), "{said}");
    let relay = RelayProcess::start(&fixture, WAL);
    assert_eq!(relay.wait(std::time::Duration::from_secs(30)).await.code(), Some(4));
    let (_, said) = run(&fixture, &["check"]);
    assert!(said.contains("a crash of PostgreSQL may take them"), "{said}");
}

/// What was otherwise in between and is as before leaves nothing in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_to_partitions_meanwhile_is_made_good() {
    let fixture = Fixture::new("log_meanwhile").await;
    let history = History::default();
    let start = async || {
        let relay = RelayProcess::start(&fixture, WAL);
        relay.wait_until_it_says("reading the log").await;
        relay
    };
    let first = fixture.client().await;
    let Leaf { name, .. } = leaf(&first).await;
    let filter = format!("alter publication postrider add table {name} where (aggregateid = 'z')");
    let changes = [
        (each("alter table %s set unlogged"), each("alter table %s set logged")),
        (format!("alter table {name} rename to foo"), format!("alter table foo rename to {name}")),
        (filter, format!("alter publication postrider drop table {name}")),
    ];
    let mut round = 0;
    let mut relay = start().await;
    for (change, undo) in changes {
        round += 1;
        write(&first, &history, round).await;
        fixture.wait_published().await;
        relay.stop_well().await;
        // The session ends: what it did is counted.
        let client = fixture.client().await;
        say(&client, &change).await;
        round += 1;
        write(&client, &history, round).await;
        say(&client, &undo).await;
        drop(client);
        relay = start().await;
        fixture.wait_published().await;
        let verdict = history.audit(&fixture);
        assert!(verdict.holds(), "{change}: {verdict} {}", relay.said());
    }
    relay.stop_well().await;
    let leaf = leaf(&first).await;
    leaf.fill_aside(&first, &history, round + 1).await;
    let relay = start().await;
    write(&first, &history, round + 2).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    // And when all is as it was, the log is read at once.
    let relay = start().await;
    assert!(!relay.said().contains("polling"), "{}", relay.said());
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_renamed_filtered_and_filled_aside_under_the_stream() {
    let fixture = Fixture::new("log_altered").await;
    let (client, history) = (fixture.client().await, History::default());
    let relays = as_relay(&fixture, &client).await;
    let (code, said) = run(&fixture, &["capture", "switch", "wal", "--no-wait"]);
    assert_eq!(code, Some(0), "{said}");
    let relay = RelayProcess::start(&relays, &[]);
    relay.wait_until_it_says("reading the log").await;
    let leaf = leaf(&client).await;
    let name = &leaf.name;
    write(&client, &history, 1).await;
    leaf.fill_aside(&client, &history, 2).await;
    // What the log brings in the moment until it is noticed would come before it.
    fixture.wait_published().await;
    write(&client, &history, 3).await;
    fixture.wait_published().await;
    let filter = format!("alter publication postrider add table {name} where (aggregateid = 'z')");
    say(&client, &filter).await;
    write(&client, &history, 4).await;
    fixture.wait_published().await;
    // The relay does not own the outbox.
    let patience = Patience::until("whoever does mends the publication");
    while run(&fixture, &["capture", "switch", "wal"]).0 != Some(0) {
        patience.pause().await;
    }
    for (round, change) in (5..).zip([
        format!("alter table {name} rename to foo"),
        "create schema aside; alter table foo set schema aside".to_owned(),
    ]) {
        say(&client, &change).await;
        write(&client, &history, round).await;
        fixture.wait_published().await;
        let verdict = history.audit(&fixture);
        assert!(verdict.holds(), "{change}: {verdict} {}", relay.said());
    }
    relay.stop_well().await;
    let relay = RelayProcess::start(&relays, &[]);
    relay.wait_until_it_says("reading the log").await;
    write(&client, &history, 7).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

/// Cursors in Kafka pass no row that a filter has kept out of the stream, however soon they are committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_filtered_are_passed_by_no_committed_cursor() {
    let fixture = Fixture::new("log_exactly_altered").await;
    fixture.deliver_exactly_once();
    let (client, history) = (fixture.client().await, History::default());
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    write(&client, &history, 1).await;
    fixture.wait_published().await;
    // WHEN some rows of each round are kept out, and the cursors of others are committed meanwhile.
    let name = leaf(&client).await.name;
    let filter = format!("alter publication postrider add table {name} where (aggregateid = 'z')");
    say(&client, &filter).await;
    for round in 2..8 {
        write(&client, &history, round).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fixture.wait_published().await;
    relay.stop_well().await;
    // THEN nothing is missing. What came before it was noticed is in Kafka: these rows come behind it.
    let verdict = history.audit_of_repeats(&fixture);
    assert_eq!((verdict.missing, verdict.repeats), (0, 0), "{verdict}");
}

/// What the log does not bring is told in the same words by whoever is asked, and by the relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_table_that_is_in_no_log_is_told_alike() {
    let fixture = Fixture::new("told_unlogged").await;
    let client = legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let changes = [
        (
            "alter table legacy.outbox rename to former",
            "the adopted table legacy.outbox is called legacy.former",
        ),
        (
            "alter table legacy.former rename to outbox; alter table legacy.outbox set schema public_too",
            "the adopted table legacy.outbox is called public_too.outbox",
        ),
    ];
    say(&client, "create schema public_too").await;
    for (change, words) in changes {
        say(&client, change).await;
        relay.wait_until_it_says(words).await;
        let (code, said) = run(&fixture, &["check"]);
        assert!(code != Some(0) && said.contains(words), "{said}");
        let (_, said) = run(&fixture, &["status"]);
        assert!(said.contains(words), "{said}");
    }
    say(&client, "alter table public_too.outbox set schema legacy").await;
    let insert = "insert into legacy.outbox (id, aggregatetype, aggregateid, type)
        values (gen_random_uuid(), 'order', 'a', 'Placed')";
    say(&client, insert).await;
    wait_published(&client).await;
    relay.stop_well().await;
}
