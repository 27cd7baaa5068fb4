//! What `postrider.emit` promises besides its order: any number of aggregates, any form of JSON, and that
//! nobody without rights makes it wait.

use std::time::Duration;

use tokio_postgres::Client;

use crate::support::Fixture;
use crate::support::fixture::Options;

/// More than a default server's table of locks has room for, with any number of sessions.
const MANY: i64 = 200_000;
const FORGET: &str = include_str!("../../sql/queries/emitting_forget.sql");

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// The SQLSTATE with which a statement is refused.
async fn refused(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_emits_for_any_number_of_aggregates() {
    let fixture = Fixture::new("emit_many").await;
    let (many, other) = (fixture.client().await, fixture.client().await);
    execute(&other, "set lock_timeout = '20s'").await;
    execute(&many, "begin").await;
    let sql = format!(
        "select count(postrider.emit('order', n::text, 'T', '{{}}')) from generate_series(1, {MANY}) n"
    );
    let emitting = async {
        assert_eq!(count(&many, &sql).await, MANY);
        let locks = "select count(*) from pg_locks where pid = pg_backend_pid()";
        assert!(count(&many, locks).await < 100, "locks go with buckets, not with aggregates");
        execute(&many, "commit").await;
    };
    // Others write meanwhile, also for many aggregates in one transaction.
    let mut emitting = std::pin::pin!(emitting);
    let mut round = 0;
    loop {
        tokio::select! {
            () = &mut emitting => break,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        round += 1;
        let sql = format!(
            "begin; insert into outbox (aggregatetype, aggregateid, type) values ('order', '1', 'T');
            select postrider.emit('place', '{round}-' || n, 'T', '{{}}') from generate_series(1, 20) n; commit"
        );
        execute(&other, &sql).await;
    }
    assert!(round > 3, "somebody has written meanwhile: {round}");
    assert_eq!(count(&other, "select count(*) from outbox").await, MANY + 21 * round);
}

/// Whoever emits second for an aggregate waits for the first, whatever right lets it; others do not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_insert_locks_and_who_may_not_does_not() {
    let fixture = Fixture::new("emit_rights").await;
    let (owner, stranger) = (fixture.client().await, fixture.client().await);
    let roles = "create role emit_writer; grant insert (id, aggregatetype, aggregateid, type, payload, headers)
        on outbox to emit_writer; create role emit_stranger";
    execute(&owner, roles).await;
    // Whoever takes the advisory locks of former versions takes nothing.
    let advisory = "set role emit_stranger; select
        pg_advisory_lock(hashtextextended('order', hashtextextended(n::text, 0))) from generate_series(1, 50) n";
    execute(&stranger, advisory).await;
    let writer = fixture.client().await;
    execute(&writer, "set role emit_writer; set lock_timeout = '300ms'").await;
    let one = "select postrider.emit('order', '1', 'T', '{}')";
    for whose_lock in ["is made", "is found"] {
        execute(&owner, &format!("begin; {one}")).await;
        execute(&writer, "select postrider.emit('order', '2', 'T', '{}')").await;
        assert_eq!(
            refused(&writer, one).await,
            "55P03",
            "not committed, and the lock {whose_lock}"
        );
        execute(&owner, "commit").await;
        execute(&writer, one).await;
    }
    for sql in [
        one,
        "insert into postrider.emitting (aggregate) values (1)",
        "delete from postrider.emitting",
        "begin; lock table postrider.emitting in row share mode",
        "rollback; begin; lock table postrider.emitting_found in row share mode",
        "rollback; insert into postrider.emitting_new (aggregate) values (1) on conflict (aggregate)
            do update set aggregate = 2 where false",
        "rollback; begin; lock table postrider.log_reader in share mode",
    ] {
        assert_eq!(refused(&stranger, sql).await, "42501", "{sql}");
    }
    execute(&stranger, "rollback; begin").await;
    let locked =
        "select count(*) from (select from postrider.emitting_found for no key update) locked";
    assert_eq!(count(&stranger, locked).await, 0);
    let add = "insert into postrider.emitting_new (aggregate) select hashtextextended('order',
        hashtextextended('1', 0)) on conflict do nothing";
    execute(&stranger, add).await;
    execute(&writer, one).await;
    execute(&owner, "update postrider.capture set mode = 'message'").await;
    execute(&writer, one).await;
    assert_eq!(refused(&stranger, one).await, "42501", "a message is an event, too");
    execute(&stranger, "rollback").await;
}

/// An untyped payload is what it always was; json and jsonb are taken for every type of the column.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_payload_takes_json_and_jsonb_and_literals() {
    for (payload, untyped) in [
        ("json", "{\"a\":1}"),
        ("jsonb", "{\"a\": 1}"),
        ("text", "{\"a\":1}"),
        ("bytea", "{\"a\":1}"),
    ] {
        let options = Options { payload, ..Options::default() };
        let client = Fixture::with(&format!("emit_forms_{payload}"), options).await.client().await;
        let as_jsonb = "{\"a\": 1}";
        let as_json = if payload == "jsonb" { as_jsonb } else { "{\"a\":1}" };
        for (call, expected) in [
            ("'o', '1', 'T', '{\"a\":1}'", untyped),
            ("'o'::varchar, '1'::varchar, 'T'::varchar, '{\"a\":1}'", untyped),
            ("'o'::text, '1'::text, 'T', '{\"a\":1}', '{}'", untyped),
            ("'o'::name, '1', 'T', '{\"a\":1}', id => gen_random_uuid()", untyped),
            ("'o', '1', 'T', '{\"a\":1}'::json", as_json),
            ("'o'::text, '1'::text, 'T'::text, '{\"a\":1}'::jsonb", as_jsonb),
            ("'o', '1', 'T', payload => jsonb_build_object('a', 1), headers => '{}'", as_jsonb),
        ] {
            execute(&client, &format!("select postrider.emit({call})")).await;
            let text =
                if payload == "bytea" { "convert_from(payload, 'UTF8')" } else { "payload::text" };
            let newest = format!("select {text} from outbox order by seq desc limit 1");
            let found: String = client.query_one(&newest, &[]).await.unwrap().get(0);
            assert_eq!(found, expected, "{payload}: {call}");
        }
        execute(&client, "select postrider.emit('o', '1', 'T', null)").await;
        let prepared = client.prepare("select postrider.emit($1, $2, $3, $4)").await.unwrap();
        assert_eq!(prepared.params()[3].name(), payload, "a driver is told the column's type");
    }
}

/// What emit has noted is removed by the relay's role, but for what somebody holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_locks_is_forgotten() {
    let fixture = Fixture::new("emit_forgotten").await;
    let (owner, writer, relay) =
        (fixture.client().await, fixture.client().await, fixture.client().await);
    execute(&owner, include_str!("../../sql/roles.sql")).await;
    execute(&relay, "set role postrider_relay; set row_security = off").await;
    let noted = "select count(*) from postrider.emitting";
    let emit = "select postrider.emit('order', n::text, 'T', '{}') from generate_series(1, 1500) n";
    execute(&owner, emit).await;
    execute(&relay, FORGET).await;
    assert_eq!(count(&owner, noted).await, 1500, "that is not much");
    let forget = FORGET.replace("67108864", "0");
    execute(&writer, "begin; select postrider.emit('order', '1', 'T', '{}')").await;
    execute(&relay, &forget).await;
    assert_eq!(count(&owner, noted).await, 1);
    let second = "set lock_timeout = '300ms'; select postrider.emit('order', '1', 'T', '{}')";
    assert_eq!(refused(&owner, second).await, "55P03", "the lock outlasts the clean-up");
    execute(&writer, "commit").await;
    execute(&relay, &forget).await;
    assert_eq!(count(&owner, noted).await, 0);
    assert_eq!(count(&owner, "select pg_relation_size('postrider.emitting')").await, 0);
}

/// A publication of all tables brings deletes and updates; PostgreSQL refuses those of a table without identity.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_deleted_and_made_new_under_a_publication_of_all_tables() {
    let fixture = Fixture::new("emit_all_tables").await;
    let client = fixture.client().await;
    execute(&client, "create publication everything for all tables").await;
    let remove = "begin; insert into outbox (id, aggregatetype, aggregateid, type)
            values ('018f4e6a-5b1c-7def-8a00-0123456789ab', 'order', '1', 'T');
        select postrider.emit('order', '1', 'T', '{}');
        delete from outbox where id = '018f4e6a-5b1c-7def-8a00-0123456789ab'; commit";
    execute(&client, remove).await;
    let reanchored = fixture.command().args(["migrate", "reanchor"]).output().expect("it runs");
    assert!(reanchored.status.success(), "{}", String::from_utf8_lossy(&reanchored.stderr));
    execute(&client, "update outbox set type = 'U'; delete from outbox").await;
}
