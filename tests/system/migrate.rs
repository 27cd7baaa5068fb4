//! The schema: made once, by whoever comes first, and refused when it is not what was made.
//!
//! Every function takes the URL of an empty database, as a superuser.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use postrider::capture::slot::reader_lock::{try_lock, unlock};
use postrider::capture::table::claim::{PageReading, claim_sql};
use postrider::capture::table::ticker::{Audience, Cadence, ForeignRows, Ticker};
use postrider::control::cursors::{CursorStore, OnPromotion};
use postrider::control::lease::{Lease, Terms};
use postrider::control::migrate;
use postrider::control::migrate::{MigrationRequest, Outbox, OutboxName, PayloadType};
use postrider::error::{Error, ErrorKind};
use postrider::event::Bucket;
use postrider::order::snapshot::Snapshot;
use postrider::order::tick::Tick;
use postrider::postgres::{Connection, DatabaseConfig, PgSnapshot, Xid8, connect};
use tokio::sync::watch;
use tokio_postgres::types::ToSql;

use crate::migrations::TITLES;
use crate::support::fixture::empty_database;

const CURSOR_SAVE: &str = include_str!("../../sql/queries/cursor_save.sql");
const ROLES: &str = include_str!("../../sql/roles.sql");

async fn session(url: &str) -> Connection {
    connect(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap()
}

async fn up(
    url: &str,
    request: &MigrationRequest,
) -> postrider::error::Result<migrate::MigrationReport> {
    migrate::up(session(url).await.client_mut(), request).await
}

async fn text(connection: &Connection, query: &str) -> String {
    connection.client().query_one(query, &[]).await.unwrap().get(0)
}

/// The kind is Schema, the cause has the word, and there is a remedy.
fn assert_schema(error: &Error, word: &str) {
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    assert!(error.message().contains(word), "{word} in {error}");
    assert!(error.remedy().is_some(), "{error}");
}

fn named(outbox: &str) -> MigrationRequest {
    MigrationRequest { outbox: outbox.parse().unwrap(), ..MigrationRequest::default() }
}

/// The second run does nothing, and what was made works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_is_idempotent() {
    let url = &empty_database("up_is_idempotent").await;
    let first = up(url, &MigrationRequest::default()).await.unwrap();
    assert_eq!(first.applied, TITLES);
    let connection = session(url).await;
    let registry = "select string_agg(version || name || checksum || applied_at || applied_by, ' ')
                    from postrider.migration";
    let rows = text(&connection, registry).await;
    let same = MigrationRequest {
        buckets: Some(16),
        payload: Some(PayloadType::Json),
        generation_seconds: Some(600),
        ..MigrationRequest::default()
    };
    for request in [MigrationRequest::default(), same] {
        let again = up(url, &request).await.unwrap();
        assert_eq!(again.applied, Vec::<String>::new());
        assert_eq!(again.settings, first.settings);
    }
    assert_eq!(text(&connection, registry).await, rows);

    let outbox = migrate::load(connection.client(), &OutboxName::default()).await.unwrap();
    assert_eq!((outbox.buckets, outbox.generation_seconds), (16, 600));
    assert_eq!(outbox.sequence, "public.outbox_seq_seq");
    let events = "insert into public.outbox (aggregatetype, aggregateid, type, payload)
                  values ('a', '1', 'T', '{}');
                  select postrider.emit('a', '1', 'U', '{}')";
    connection.client().batch_execute(events).await.unwrap();
    let view =
        "select string_agg(seq || type || published, ' ' order by seq) from postrider.events";
    assert_eq!(text(&connection, view).await, "1Tfalse 2Ufalse");
}

/// Several shells at once: each migration is applied by one of them, and all end well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_end_well() {
    let url = &empty_database("many_at_once_end_well").await;
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let url = url.to_owned();
            tokio::spawn(async move { up(&url, &MigrationRequest::default()).await })
        })
        .collect();
    let mut applied = Vec::new();
    for task in tasks {
        applied.extend(task.await.unwrap().unwrap().applied);
    }
    applied.sort();
    assert_eq!(applied, TITLES);
}

/// Two shells at once that want different tables: one gets its own, the other is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_wishes_one_is_refused() {
    let url = &empty_database("of_two_wishes_one_is_refused").await;
    let wish = |buckets| MigrationRequest { buckets: Some(buckets), ..MigrationRequest::default() };
    let (eight, four) = (wish(8), wish(4));
    let (one, other) = tokio::join!(up(url, &eight), up(url, &four));
    let (report, error) = match (one, other) {
        (Ok(report), Err(error)) | (Err(error), Ok(report)) => (report, error),
        both => panic!("one of them must be refused: {both:?}"),
    };
    assert!([8, 4].contains(&report.settings.buckets));
    assert_schema(&error, "number of buckets");
    let tables = "select count(*)::text from pg_partition_tree('public.outbox') where level = 1";
    let connection = session(url).await;
    assert_eq!(text(&connection, tables).await, report.settings.buckets.to_string());
}

/// What is fixed when the outbox is made cannot be asked for otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_settings_are_refused() {
    let url = &empty_database("other_settings_are_refused").await;
    let made = MigrationRequest {
        buckets: Some(3),
        payload: Some(PayloadType::Bytea),
        generation_seconds: Some(60),
        ..MigrationRequest::default()
    };
    up(url, &made).await.unwrap();
    for (other, words) in [
        (MigrationRequest { buckets: Some(4), ..made.clone() }, "buckets is 3, not 4"),
        (MigrationRequest { payload: Some(PayloadType::Json), ..made.clone() }, "bytea, not json"),
        (MigrationRequest { generation_seconds: Some(61), ..made.clone() }, "60, not 61"),
        (named("public.events"), "public.outbox, not public.events"),
    ] {
        assert_schema(&up(url, &other).await.unwrap_err(), words);
    }
    let report = up(url, &MigrationRequest::default()).await.unwrap();
    assert_eq!((report.settings.buckets, report.applied.len()), (3, 0));
    let connection = session(url).await;
    let error = migrate::load(connection.client(), &"events".parse().unwrap()).await.unwrap_err();
    assert_schema(&error, "outbox is public.outbox, not public.events");
}

/// A table, or control tables, of somebody else are left alone, and nothing is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_made_is_left_alone() {
    let url = &empty_database("what_others_made_is_left_alone").await;
    let connection = session(url).await;
    let client = connection.client();
    client.batch_execute("create table public.outbox (id int)").await.unwrap();
    let error = up(url, &MigrationRequest::default()).await.unwrap_err();
    assert_schema(&error, "public.outbox exists already, and postrider did not make it");
    assert_schema(&up(url, &named("app.outbox")).await.unwrap_err(), "schema of app.outbox");
    client.batch_execute("create table public.events_b02 (id int)").await.unwrap();
    // The partitions' names are met only when they are made: the migration is undone as a whole.
    assert_schema(&up(url, &named("events")).await.unwrap_err(), "events_b02");
    let made = "select coalesce(to_regclass('public.events')::text, 'nothing')";
    assert_eq!(text(&connection, made).await, "nothing");
    client.batch_execute("drop table public.events_b02").await.unwrap();
    assert_eq!(up(url, &named("events")).await.unwrap().applied, TITLES[2..]);

    let other = "drop schema postrider cascade; drop table public.events;
                 create schema postrider; create table postrider.outbox (id int)";
    client.batch_execute(other).await.unwrap();
    assert_schema(&up(url, &named("events")).await.unwrap_err(), "no list of migrations");
}

/// An edited migration, or one of a later version, stops every command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_is_refused() {
    let url = &empty_database("another_history_is_refused").await;
    up(url, &MigrationRequest::default()).await.unwrap();
    let connection = session(url).await;
    for (change, undo, word) in [
        (
            "update postrider.migration set checksum = 'x' || checksum where version = 2",
            "update postrider.migration set checksum = substr(checksum, 2) where version = 2",
            "0002 outbox was applied with another text",
        ),
        (
            "insert into postrider.migration values (99, 'later', 'x')",
            "delete from postrider.migration where version = 99",
            "0099 later",
        ),
    ] {
        connection.client().batch_execute(change).await.unwrap();
        assert_schema(&up(url, &MigrationRequest::default()).await.unwrap_err(), word);
        let name = OutboxName::default();
        assert_schema(&migrate::load(connection.client(), &name).await.unwrap_err(), word);
        assert_schema(&migrate::status(connection.client()).await.unwrap_err(), word);
        connection.client().batch_execute(undo).await.unwrap();
    }
    migrate::load(connection.client(), &OutboxName::default()).await.unwrap();
}

/// Pending migrations are shown, keep the relay from starting, and are applied alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_migrations_are_told() {
    let url = &empty_database("pending_migrations_are_told").await;
    let connection = session(url).await;
    let client = connection.client();
    let status = migrate::status(client).await.unwrap();
    assert!(status.is_pending() && status.settings.is_none());
    assert_eq!(status.to_string().matches("pending").count(), TITLES.len(), "{status}");
    let error = migrate::load(client, &OutboxName::default()).await.unwrap_err();
    assert_schema(&error, "was not migrated");

    up(url, &MigrationRequest { buckets: Some(2), ..MigrationRequest::default() }).await.unwrap();
    assert!(!migrate::status(client).await.unwrap().is_pending());
    let back = "drop view postrider.health, postrider.events, postrider.log_reader; drop table postrider.emitting cascade;
                drop domain postrider.aggregate_type cascade;
                drop table postrider.instance, postrider.parked, postrider.parked_request,
                    postrider.capture, postrider.capture_slot, postrider.adopted, postrider.past_tick, postrider.whole_range,
                    postrider.handover, postrider.replay_bucket, postrider.replay, postrider.large_part;
                drop function postrider.emit, postrider.event_message, postrider.refuse_incomplete_event,
                    postrider.aggregate_digest, postrider.legible, postrider.legible_payload, postrider.event_bytes,
                    postrider.refuse_large_row, postrider.shortened, postrider.read_row, postrider.park_row, postrider.printed, postrider.in_utf8,
                    postrider.has_its_partitions, postrider.is_saved_here;
                alter table public.outbox alter column txid type xid8; drop domain postrider.own_transaction;
                alter table postrider.cursor drop upto_sequence, drop upto_began, drop window_since, drop window_bound,
                    drop window_of, drop fence, drop delivery_term, drop database_oid, drop cursor_oid; delete from postrider.migration where version >= 3";
    client.batch_execute(back).await.unwrap();
    let status = migrate::status(client).await.unwrap();
    assert!(status.is_pending());
    assert_eq!(status.settings.as_ref().unwrap().buckets, 2);
    let error = migrate::load(client, &OutboxName::default()).await.unwrap_err();
    assert_schema(&error, "0003 interface is pending");
    assert_eq!(up(url, &MigrationRequest::default()).await.unwrap().applied, TITLES[3..]);
    migrate::load(client, &OutboxName::default()).await.unwrap();
}

/// Everything in the two schemas, and all rows, as one text; times left out.
const FINGERPRINT: &str = include_str!("support/fingerprint.sql");

/// The printed SQL, run as another tool would, makes the same as `up`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn print_makes_the_same() {
    let url = &empty_database("print_makes_the_same").await;
    let connection = session(url).await;
    let client = connection.client();
    let request = MigrationRequest {
        outbox: "app.\"My $emit$ \"\"Out'box\\\"".parse().unwrap(),
        buckets: Some(3),
        payload: Some(PayloadType::Text),
        generation_seconds: Some(7),
    };
    client.batch_execute("create schema app").await.unwrap();
    up(url, &request).await.unwrap();
    let applied = text(&connection, FINGERPRINT).await;
    assert!(applied.len() > 5_000, "the fingerprint sees the tables: {applied}");
    client
        .batch_execute("drop schema postrider cascade; drop schema app cascade; create schema app")
        .await
        .unwrap();

    // A session with other defaults than ours.
    client
        .batch_execute("set search_path = public; set check_function_bodies = off")
        .await
        .unwrap();
    client.batch_execute(&migrate::print(&request).unwrap()).await.unwrap();
    client.batch_execute("set search_path = pg_catalog").await.unwrap();
    assert_eq!(text(&connection, FINGERPRINT).await, applied);
    assert_eq!(up(url, &request).await.unwrap().applied, Vec::<String>::new());
}

/// Names that need quotes work everywhere: partitions, emit, view, claim, roles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_are_quoted() {
    let url = &empty_database("odd_names_are_quoted").await;
    let name: OutboxName = "\"My Schema\".\"My $emit$ \"\"Out'box\\ %s\"".parse().unwrap();
    let connection = session(url).await;
    let client = connection.client();
    client.batch_execute("create schema \"My Schema\"").await.unwrap();
    let request =
        MigrationRequest { outbox: name.clone(), buckets: Some(2), ..MigrationRequest::default() };
    up(url, &request).await.unwrap();
    client.batch_execute(ROLES).await.unwrap();
    let emit = "select postrider.emit('a', n::text, 'T', '{}') from generate_series(1, 9) n";
    client.query(emit, &[]).await.unwrap();
    assert_eq!(text(&connection, "select count(*)::text from postrider.events").await, "9");
    let outbox = migrate::load(client, &name).await.unwrap();
    let cursor_group = [Bucket(0), Bucket(1)].into();
    client.prepare(&claim_sql(&outbox, &cursor_group, PageReading::Plain, 8 << 20)).await.unwrap();
    let last = format!("select last_value::text from {}", outbox.sequence);
    assert_eq!(text(&connection, &last).await, "9");
    let longest = format!("\"{}\"", "x".repeat(54));
    client.batch_execute("drop schema postrider cascade").await.unwrap();
    up(url, &MigrationRequest { buckets: Some(64), ..named(&longest) }).await.unwrap();
    migrate::load(client, &longest.parse().unwrap()).await.unwrap();
}

/// A table that was changed since is not relayed from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_table_is_refused() {
    let url = &empty_database("a_changed_table_is_refused").await;
    up(url, &MigrationRequest::default()).await.unwrap();
    let connection = session(url).await;
    let client = connection.client();
    for (change, undo, word) in [
        (
            "alter sequence public.outbox_seq_seq cache 20",
            "alter sequence public.outbox_seq_seq cache 1",
            "in blocks",
        ),
        (
            "alter table public.outbox rename type to kind",
            "alter table public.outbox rename kind to type",
            "kind text",
        ),
        (
            "alter table public.outbox detach partition public.outbox_b03",
            "alter table public.outbox attach partition public.outbox_b03
                for values with (modulus 16, remainder 3)",
            "15 buckets with 45 leaves",
        ),
        (
            "alter table public.outbox rename to gone",
            "alter table public.gone rename to outbox",
            "moved or renamed",
        ),
        (
            "drop view postrider.health, postrider.events; alter table public.outbox alter payload type jsonb",
            "drop table public.outbox",
            "payload jsonb",
        ),
    ] {
        client.batch_execute(change).await.unwrap();
        let error = migrate::load(client, &OutboxName::default()).await.unwrap_err();
        assert_schema(&error, word);
        client.batch_execute(undo).await.unwrap();
    }
}

/// The same database, as a role that a superuser may become.
fn as_role(url: &str, role: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20role%3D{role}")
}

async fn assert_forbidden(connection: &Connection, statements: &[&str]) {
    for statement in statements {
        let error = connection.client().batch_execute(statement).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{statement}: {error}");
    }
}

/// The writer's role can insert and emit, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_can_only_insert() {
    let url = &empty_database("a_writer_can_only_insert").await;
    up(url, &MigrationRequest::default()).await.unwrap();
    let owner = session(url).await;
    owner.client().batch_execute(ROLES).await.unwrap();
    owner.client().batch_execute(ROLES).await.unwrap();
    let writer = session(&as_role(url, "postrider_writer")).await;
    let allowed = "insert into public.outbox (aggregatetype, aggregateid, type, payload)
                   select 'a', n::text, 'T', '{}' from generate_series(1, 20) n;
                   select postrider.emit('a', '1', 'U', '{}');
                   insert into public.outbox (aggregatetype, aggregateid, type) values ('a', '1', 'T') returning id";
    writer.client().batch_execute(allowed).await.unwrap();
    let forbidden = [
        "select * from public.outbox",
        "select aggregateid from public.outbox",
        "insert into public.outbox (aggregatetype, aggregateid, type) values ('a', '1', 'T') returning seq",
        "delete from postrider.emitting",
        "update public.outbox set type = 'x'",
        "delete from public.outbox",
        "truncate public.outbox",
        "insert into public.outbox_b00 select",
        "select nextval('public.outbox_seq_seq')",
        "select * from postrider.cursor",
        "select * from postrider.events",
        "update postrider.cursor set epoch = 0",
        "update postrider.capture set mode = 'message'",
        "select * from postrider.capture_slot",
    ];
    assert_forbidden(&writer, &forbidden).await;
    let error =
        up(&as_role(url, "postrider_writer"), &MigrationRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
}

/// The relay's role can do all that the relay does, and cannot touch an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_role_suffices() {
    let url = &empty_database("the_relay_role_suffices").await;
    let name = OutboxName::default();
    up(url, &MigrationRequest { buckets: Some(2), ..MigrationRequest::default() }).await.unwrap();
    let owner = session(url).await;
    owner.client().batch_execute(ROLES).await.unwrap();
    let emit = "select postrider.emit('a', '1', 'U', '{}')";
    owner.client().query(emit, &[]).await.unwrap();

    let relay_url = as_role(url, "postrider_relay");
    let mut relay = session(&relay_url).await;
    let user = "select current_user::text";
    assert_eq!(text(&relay, user).await, "postrider_relay", "the role is taken");
    let outbox = migrate::load(relay.client(), &name).await.unwrap();
    assert!(!migrate::status(relay.client()).await.unwrap().is_pending());
    let tick = observed_tick(&relay_url, &outbox).await;

    let cursor_group = [Bucket(0), Bucket(1)].into();
    let (from, upto) = (PgSnapshot(Snapshot::empty()), PgSnapshot(tick.snapshot.clone()));
    let parameters: [&(dyn ToSql + Sync); 5] = [&0_i64, &tick.ceiling, &from, &upto, &10_i64];
    let claimed = relay
        .client()
        .query(&claim_sql(&outbox, &cursor_group, PageReading::Plain, 8 << 20), &parameters)
        .await
        .unwrap();
    assert_eq!(claimed.len(), 1);

    assert!(try_lock(&relay).await.unwrap());
    unlock(&relay).await.unwrap();
    save_nothing(&mut relay).await;
    take_and_release(&relay_url).await;

    let forbidden = [
        "insert into public.outbox (aggregatetype, aggregateid, type) values ('a', '1', 'T')",
        "update public.outbox set type = 'x'",
        "delete from public.outbox",
        "select nextval('public.outbox_seq_seq')",
        "insert into postrider.cursor (bucket) values (9)",
        "delete from postrider.cursor",
        "update postrider.outbox set buckets = 1",
        "delete from postrider.migration",
        "create table postrider.other (id int)",
    ];
    assert_forbidden(&relay, &forbidden).await;
}

/// Joins the tier, takes what is free, and leaves it as a relay does.
async fn take_and_release(url: &str) {
    let lease = Lease::join(session(url).await, "test", 1, Terms::new(10)).await.unwrap();
    let plan = lease.look().await.unwrap().plan("test");
    let taken = lease.take(&plan.take).await.unwrap();
    let store = CursorStore::open(session(url).await, OnPromotion::Refuse).await.unwrap();
    store.own(&taken);
    assert_eq!(store.load(&[Bucket(0), Bucket(1)]).await.unwrap().len(), 2);
    lease.release(&taken).await.unwrap();
    lease.leave().await.unwrap();
}

/// The first tick of a ticker that has no more rights than the URL's role.
async fn observed_tick(url: &str, outbox: &Outbox) -> Arc<Tick> {
    let cadence = Cadence { min: Duration::from_millis(5), max: Duration::from_millis(50) };
    let database = DatabaseConfig::parse(url).unwrap();
    let first = Arc::new(Tick::first());
    let (last, rows) = (Arc::clone(&first), ForeignRows::Refused);
    let ticker = Ticker::connect(&database, outbox, cadence, last, rows).await.unwrap();
    let (sender, mut ticks) = watch::channel(first);
    let running = tokio::spawn(ticker.run(Audience::Latest(sender), Arc::default()));
    tokio::time::timeout(Duration::from_secs(20), ticks.changed()).await.unwrap().unwrap();
    let tick = Arc::clone(&ticks.borrow_and_update());
    drop(ticks);
    running.await.unwrap().unwrap();
    tick
}

/// A save for no bucket: it needs the same rights as one for many.
async fn save_nothing(relay: &mut Connection) {
    let (numbers, texts) = (Vec::<i64>::new(), Vec::<String>::new());
    let (snapshots, xids) = (Vec::<PgSnapshot>::new(), Vec::<Xid8>::new());
    let parameters: [&(dyn ToSql + Sync); 15] = [
        &Vec::<i16>::new(),
        &numbers,
        &snapshots,
        &snapshots,
        &xids,
        &numbers,
        &numbers,
        &texts,
        &numbers,
        &1_i64,
        &1_i32,
        &numbers,
        &xids,
        &snapshots,
        &numbers,
    ];
    let saved =
        relay.client_mut().query(&CURSOR_SAVE.replace("{noted}", ""), &parameters).await.unwrap();
    assert!(saved.is_empty());
}
