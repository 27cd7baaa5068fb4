//! The outbox guards its own law: what a row says of itself is refused by PostgreSQL, or harmless.

use tokio_postgres::Client;

use crate::parking::{ask, insert, wait_for_the_rest, wait_until_parked};
use crate::support::consumer::create_topic;
use crate::support::{Fixture, RelayProcess, read_topic};

const ROLES: &str = include_str!("../../sql/roles.sql");

async fn begin(name: &str) -> (Fixture, Client) {
    let fixture = Fixture::new(name).await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let client = fixture.client().await;
    (fixture, client)
}

/// Runs a statement that PostgreSQL must refuse; the SQLSTATE and the message.
async fn refused(client: &Client, statement: &str) -> (String, String) {
    let error = client.batch_execute(statement).await.expect_err(statement);
    let error = error.as_db_error().expect("the server refuses it");
    (error.code().code().to_owned(), error.message().to_owned())
}

/// How often each type arrived.
fn arrived(fixture: &Fixture) -> Vec<(String, usize)> {
    let mut kinds: Vec<String> = read_topic(&fixture.brokers, &fixture.topic("thing"))
        .iter()
        .map(|record| {
            let kind = record.header("type").expect("it has one").to_vec();
            String::from_utf8(kind).expect("it is text")
        })
        .collect();
    kinds.sort();
    let mut counted: Vec<(String, usize)> = Vec::new();
    for kind in kinds {
        match counted.last_mut() {
            Some((last, count)) if *last == kind => *count += 1,
            _ => counted.push((kind, 1)),
        }
    }
    counted
}

fn once(kinds: &[&str]) -> Vec<(String, usize)> {
    kinds.iter().map(|kind| ((*kind).to_owned(), 1)).collect()
}

/// Whoever writes it: the owner, a superuser, by insert, copy or update; in any transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_id_of_another_is_refused() {
    let (fixture, client) = begin("law_txid").await;
    let columns = "aggregatetype, aggregateid, type, payload";
    for txid in ["3", "9223372036854775807", "18446744073709551615", "100000000000"] {
        let forged = format!(
            "insert into outbox (txid, {columns}) values ('{txid}', 'thing', 'a', 'T', '{{}}')"
        );
        let (code, message) = refused(&client, &forged).await;
        assert_eq!(code, "23514");
        assert!(message.contains("txid_is_that_of_the_transaction"), "{message}");
    }
    let leaf = format!(
        "insert into outbox_b00_g0 (txid, generation, {columns})
         values ('5', 0, 'thing', 'a', 'T', '{{}}')"
    );
    assert_eq!(refused(&client, &leaf).await.0, "23514");
    insert(&client, ("thing", "a"), 1, 10).await;
    assert_eq!(refused(&client, "update outbox set txid = '5'").await.0, "23514");
    // Its own is no lie, a savepoint changes nothing, and nor does a cast.
    let own = format!(
        "begin; savepoint s;
         insert into outbox (txid, {columns}) values (pg_current_xact_id(), 'thing', 'a', '2', '{{}}');
         release s; commit"
    );
    client.batch_execute(&own).await.expect("it is true");
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    assert_eq!(arrived(&fixture), once(&["1", "2"]));
}

/// The role that writes has the six columns, by which nothing can be forged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_may_give_six_columns_and_no_other() {
    let (fixture, client) = begin("law_writer").await;
    client.batch_execute("grant insert on outbox to public").await.expect("the owner may");
    client.batch_execute("revoke insert on outbox from public").await.expect("the owner may");
    // As an earlier version granted it.
    let earlier = "do $$ begin create role postrider_writer nologin;
        exception when duplicate_object or unique_violation then null; end $$;
        grant insert on outbox to postrider_writer";
    client.batch_execute(earlier).await.expect("the owner may");
    client.batch_execute(ROLES).await.expect("the owner may");
    client.batch_execute("set role postrider_writer").await.expect("a superuser may");
    for (column, value) in [
        ("txid", "pg_current_xact_id()"),
        ("seq", "7"),
        ("created_at", "'infinity'"),
        ("generation", "0"),
    ] {
        let forged = format!(
            "insert into outbox ({column}, aggregatetype, aggregateid, type, payload)
             overriding system value values ({value}, 'thing', 'a', 'T', '{{}}')"
        );
        assert_eq!(refused(&client, &forged).await.0, "42501", "{column}");
    }
    let six = "insert into outbox (id, aggregatetype, aggregateid, type, payload, headers)
        values (gen_random_uuid(), 'thing', 'a', '1', '{}', '{\"h\": 1}');
        insert into outbox (aggregatetype, aggregateid, type, payload) values ('thing', 'a', '2', '{}');
        select postrider.emit('thing', 'a', '3', '{}')";
    client.batch_execute(six).await.expect("these are the writer's");
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    assert_eq!(arrived(&fixture), once(&["1", "2", "3"]));
}

/// As a dump restores them, or a subscription brings them: rows with the ids of another cluster.
const FOREIGN: &str = "set session_replication_role = replica;
    insert into outbox (txid, seq, aggregatetype, aggregateid, type, payload)
    overriding system value
    select (9000000000 + n)::text::xid8, 400000 + n, 'thing', (n % 3)::text, n::text, '{}'
    from generate_series(1, 9) n;
    set session_replication_role = origin";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_another_cluster_are_refused_until_they_are_made_new() {
    let (fixture, client) = begin("law_foreign").await;
    client.batch_execute(FOREIGN).await.expect("a superuser may");
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("transaction ids of another cluster").await;
    relay.wait_until_it_says("postrider migrate reanchor").await;
    assert_eq!(relay.wait(std::time::Duration::from_secs(30)).await.code(), Some(4));
    ask(&fixture, &["migrate", "reanchor"]);
    insert(&client, ("thing", "0"), 10, 10).await;
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let mut kinds: Vec<String> = (1..=10).map(|n: u32| n.to_string()).collect();
    kinds.sort();
    let expected: Vec<(String, usize)> = kinds.into_iter().map(|kind| (kind, 1)).collect();
    assert_eq!(arrived(&fixture), expected);
    let behind = "select pg_sequence_last_value('outbox_seq_seq') > 400009";
    let row = client.query_one(behind, &[]).await.expect("it answers");
    assert!(row.get::<_, bool>(0), "the sequence was led behind the rows");
}

/// A number that no sequence gives out would use the sequence up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reanchor_does_not_use_up_the_sequence() {
    let (fixture, client) = begin("law_reanchor_forged").await;
    let forged = "insert into outbox (seq, aggregatetype, aggregateid, type, payload)
        overriding system value values (9223372036854775807, 'thing', 'a', '1', '{}')";
    client.batch_execute(forged).await.expect("the owner may");
    let output = fixture.command().args(["migrate", "reanchor"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("9223372036854775807") && said.contains("delete the row"), "{said}");
}

/// A place in the log of another cluster says nothing here: what follows a parked event waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_holds_its_aggregate_after_a_reanchor() {
    let (fixture, client) = begin("law_reanchor_parked").await;
    create_topic(&fixture.brokers, &fixture.topic("t"), 1).await;
    let bad = "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
        values ('t', 'a', '1', '{}', '[]')";
    client.batch_execute(bad).await.expect("an insert never fails");
    let relay = RelayProcess::start(&fixture, &[]);
    wait_until_parked(&client, &[("1", "bad-headers")]).await;
    assert!(relay.stop().await.success());
    // As if the log of a cluster that was far ahead had brought it, and its row were truncated since: one that
    // is there comes again, and is parked again.
    let far = "update postrider.parked set commit_lsn = '7A/0', commit_index = 0; truncate outbox";
    client.batch_execute(far).await.expect("the owner may");
    ask(&fixture, &["migrate", "reanchor"]);
    let relay = RelayProcess::start(&fixture, &[]);
    ask(&fixture, &["capture", "switch", "wal"]);
    relay.wait_until_it_says("streaming from the replication slot").await;
    insert(&client, ("t", "a"), 2, 10).await;
    insert(&client, ("t", "b"), 3, 10).await;
    wait_for_the_rest(&fixture).await;
    wait_until_parked(&client, &[("1", "bad-headers"), ("2", "follows")]).await;
    assert!(relay.stop().await.success());
}
