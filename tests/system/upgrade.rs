//! From the schema of an earlier version to this one's, while its relay still runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use crate::support::consumer::create_topic;
use crate::support::fixture::create_database;
use crate::support::servers::both;
use crate::support::{Capture, Fixture, Patience, RelayProcess, read_topic};

/// What a database has whose version knew twelve migrations after the first.
const FORMER_STEPS: usize = 13;
const STEP_END: &str = "$postrider_step$;";

/// How the earlier version saves its cursors; what it knows of the sequence is of migration 9.
const FORMER_SAVE: &str = "
    update postrider.cursor
    set from_snapshot = pg_current_snapshot(), upto_snapshot = pg_current_snapshot(),
        upto_next = pg_current_xact_id(), upto_floor = drawn.value, upto_ceiling = drawn.value, carry = '{}',
        upto_sequence = pg_relation_filenode('outbox_seq_seq')::bigint, upto_began = pg_current_xact_id(),
        \"position\" = drawn.value, lsn = pg_current_wal_insert_lsn(), saved_at = clock_timestamp()
    from (select pg_sequence_last_value('outbox_seq_seq') as value) as drawn
    where owner = 'former'";

/// How it comes, and takes all buckets.
const FORMER_LEASE: &str = "
    insert into postrider.instance (name, shards, renewed_at, lease_until)
        values ('former', 1, clock_timestamp(), clock_timestamp() + interval '1 hour');
    update postrider.cursor set owner = 'former', epoch = epoch + 1,
        system_identifier = (select system_identifier from pg_control_system()),
        timeline = ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer,
        lsn = pg_current_wal_insert_lsn()";

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect("the statement is sound");
}

/// Events whose types are these numbers.
async fn write(client: &Client, numbers: std::ops::RangeInclusive<u32>) {
    let sql = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'thing', (n % 3)::text, n::text, '{{}}' from generate_series({}, {}) as n",
        numbers.start(),
        numbers.end()
    );
    execute(client, &sql).await;
}

async fn at_the_former_schema(name: &str) -> (Fixture, Client) {
    let (postgres, kafka) = both();
    create_database(&postgres.url("postgres"), name).await;
    let fixture = Fixture {
        database_url: postgres.url(name),
        brokers: kafka.brokers().to_owned(),
        name: name.to_owned(),
        capture: Capture::default(),
    };
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let print = ["migrate", "print", "--buckets", "4"];
    let printed = fixture.command().args(print).output().expect("the binary runs");
    let printed = String::from_utf8(printed.stdout).expect("it is text");
    let steps: Vec<&str> = printed.split_inclusive(STEP_END).take(FORMER_STEPS).collect();
    let client = fixture.client().await;
    execute(&client, &steps.concat()).await;
    let last = "select max(version) from postrider.migration";
    let last: i32 = client.query_one(last, &[]).await.expect("it answers").get(0);
    assert_eq!(last, 12);
    (fixture, client)
}

/// Rows wait, rows are parked, and a relay of the former version claims all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_under_the_former_relay_loses_nothing() {
    // GIVEN the former schema with a former relay at work, and parked events.
    let (fixture, client) = at_the_former_schema("upgrade").await;
    write(&client, 1..=5).await;
    let former = fixture.client().await;
    execute(&former, FORMER_LEASE).await;
    execute(&former, FORMER_SAVE).await;
    write(&client, 6..=9).await;
    let park = "insert into postrider.parked (seq, bucket, id, aggregatetype, aggregateid, type, payload, created_at,
            reason, detail, attempts)
        select n, 0, gen_random_uuid(), 'thing', 'parked', n::text, '{}', now(), 'topic-unavailable', '', 1
        from generate_series(101, 102) as n";
    execute(&client, park).await;
    // WHEN the schema is migrated while it claims, and it saves once more.
    let (claims, is_over) = (fixture.client().await, Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&is_over);
    let claiming = tokio::spawn(async move {
        while !over.load(Ordering::Relaxed) {
            execute(&claims, "select count(*) from outbox_b00; select epoch from postrider.cursor")
                .await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let up = fixture.command().args(["migrate", "up"]).output().expect("the binary runs");
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    is_over.store(true, Ordering::Relaxed);
    claiming.await.expect("no claim fails");
    write(&client, 10..=12).await;
    execute(&former, FORMER_SAVE).await;
    write(&client, 13..=20).await;
    // WHEN the new one takes over.
    let relay = RelayProcess::start(&fixture, &[]);
    // The new one takes its share when the former one is gone.
    execute(
        &former,
        "update postrider.cursor set owner = null; delete from postrider.instance where name = 'former'",
    )
    .await;
    let low = "insert into outbox (seq, aggregatetype, aggregateid, type, payload) overriding system value
        values (1, 'thing', 'low', '21', '{}')";
    execute(&client, low).await;
    let retry = ["parked", "retry", "--all"];
    assert!(fixture.command().args(retry).status().expect("the binary runs").success());
    // THEN all that the former one had not passed is published: what it had passed it had published.
    let expected: BTreeSet<u32> = (13..=21).chain(101..=102).collect();
    let patience = Patience::until("all is published");
    loop {
        let records = read_topic(&fixture.brokers, &fixture.topic("thing"));
        let kind =
            |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|kind| kind.parse().ok());
        let kinds = records.iter().filter_map(|record| record.header("type").and_then(kind));
        if kinds.collect::<BTreeSet<u32>>() == expected {
            break;
        }
        patience.pause().await;
    }
    fixture.wait_published().await;
    relay.stop_well().await;
}

/// What the next version would do: a step that this one does not know, which adds and takes nothing away.
const LATER_STEP: &str = "
    begin;
    alter table postrider.cursor add column later integer;
    alter table postrider.instance add column later integer;
    insert into postrider.migration (version, name, checksum)
        select max(version) + 1, 'later', 'of a later version' from postrider.migration;
    do $$ begin
        execute format('comment on table postrider.migration is %L', (select
            'relays that know migration 0012 work with the schema as of ' || max(version) from postrider.migration));
    end $$;
    commit";

/// What a version does that leaves no room for this one's relays.
const NO_ROOM: &str = "
    comment on table postrider.migration is 'relays that know migration 9999 work with the schema as of 9999'";

/// Ends all sessions of relays.
const CUT: &str = "
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name like 'postrider%' and pid <> pg_backend_pid()";

/// GIVEN two instances of this version under load WHEN a later version raises the schema, and they lose their sessions
/// THEN both go on and say so; so does a new start, unless that version has left no room for this one; and nothing is lost
/// while they are replaced one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_is_raised_under_two_instances() {
    let fixture = Fixture::new("upgrade_later").await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let client = fixture.client().await;
    let relays = [RelayProcess::start(&fixture, &[]), RelayProcess::start(&fixture, &[])];
    for relay in &relays {
        relay.wait_until_it_says("relaying").await;
    }
    let (writes, is_over) = (fixture.client().await, Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&is_over);
    let writing = tokio::spawn(async move {
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
            number += 1;
            write(&writes, number..=number).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        number
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    execute(&client, LATER_STEP).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    execute(&client, CUT).await;
    for relay in &relays {
        relay.wait_until_it_says("the schema was raised by a later version").await;
    }
    let started = RelayProcess::start(&fixture, &[]);
    started.wait_until_it_says("the schema was raised by a later version").await;
    execute(&client, NO_ROOM).await;
    let refused = fixture.command().arg("run").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(6), "{said}");
    assert!(
        said.contains("which this version knows not") && said.contains("or a later one"),
        "{said}"
    );
    let [first, second] = relays;
    first.stop_well().await;
    started.stop_well().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    is_over.store(true, Ordering::Relaxed);
    let written = writing.await.expect("no write fails");
    fixture.wait_published().await;
    second.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("thing"));
    let kind = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|kind| kind.parse().ok());
    let kinds: BTreeSet<u32> =
        records.iter().filter_map(|record| record.header("type").and_then(kind)).collect();
    assert_eq!(kinds, (1..=written).collect::<BTreeSet<u32>>());
}

/// GIVEN the schema of an earlier version WHEN this one is started on it THEN it refuses, and says what comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_comes_first() {
    let (fixture, _) = at_the_former_schema("upgrade_first").await;
    let refused = fixture.command().arg("run").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(6), "{said}");
    assert!(said.contains("migration 0013") && said.contains("postrider migrate up"), "{said}");
}
