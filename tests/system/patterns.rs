//! The writer patterns of the design: which keep an aggregate's order when an outbox is polled.
//!
//! Each pattern is written by several sessions at once while no relay runs, so that one page holds
//! all of it: the hardest case, because inside a page only `seq` decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_testkit::audit::Fate;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::support::writer::{AGGREGATE_TYPE, Inserted};
use crate::support::{Fixture, History, RelayProcess, Writer};

const SESSIONS: u32 = 4;
const TRANSACTIONS_PER_SESSION: u32 = 60;
const AGGREGATES: u32 = 3;

/// How a session writes one change of an aggregate and its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    LockThenInsert,
    RepeatableRead,
    Serializable,
    VersionChecked,
    AfterTrigger,
    Emit,
    InsertThenBlindUpdate,
    UpdateInWithInsertValues,
}

impl Pattern {
    fn keeps_order(self) -> bool {
        !matches!(self, Self::InsertThenBlindUpdate | Self::UpdateInWithInsertValues)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_then_insert_keeps_order() {
    verdict_is_as_documented(Pattern::LockThenInsert, "pattern_lock").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeatable_read_keeps_order() {
    verdict_is_as_documented(Pattern::RepeatableRead, "pattern_repeatable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_keeps_order() {
    verdict_is_as_documented(Pattern::Serializable, "pattern_serializable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_check_keeps_order() {
    verdict_is_as_documented(Pattern::VersionChecked, "pattern_version").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_after_trigger_keeps_order() {
    verdict_is_as_documented(Pattern::AfterTrigger, "pattern_trigger").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emit_keeps_order() {
    verdict_is_as_documented(Pattern::Emit, "pattern_emit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insert_then_blind_update_does_not() {
    verdict_is_as_documented(Pattern::InsertThenBlindUpdate, "pattern_blind").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_in_with_and_insert_values_does_not() {
    verdict_is_as_documented(Pattern::UpdateInWithInsertValues, "pattern_with").await;
}

async fn verdict_is_as_documented(pattern: Pattern, name: &str) {
    let fixture = Fixture::new(name).await;
    Writer::create_aggregates(&fixture, AGGREGATES).await;
    fixture.client().await.batch_execute(SCHEMA).await.expect("the objects are new");
    if pattern == Pattern::UpdateInWithInsertValues {
        fixture.client().await.batch_execute(PAUSE).await.expect("the objects are new");
    }
    let history = History::default();
    let clock = Arc::new(AtomicU64::new(0));
    let mut sessions = tokio::task::JoinSet::new();
    for session in 0..SESSIONS {
        let client = fixture.client().await;
        let (history, clock) = (history.clone(), Arc::clone(&clock));
        sessions.spawn(write(pattern, client, session, history, clock));
    }
    while let Some(ended) = sessions.join_next().await {
        ended.expect("no session panics");
    }
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.committed >= u64::from(SESSIONS), "{verdict}");
    assert_eq!(verdict.out_of_order == 0, pattern.keeps_order(), "{pattern:?}: {verdict}");
    let others = postrider_testkit::audit::Verdict { out_of_order: 0, ..verdict };
    assert!(others.holds_without_repeats(), "{verdict}");
}

/// The trigger writes the event of whoever sets a new `event_id`.
const SCHEMA: &str = "
    alter table aggregate add column event_id uuid;
    create function write_event() returns trigger language plpgsql as $$
    begin
        insert into outbox (id, aggregatetype, aggregateid, type, payload)
            values (new.event_id, 'order', new.name, 'Changed', '{}');
        return null;
    end $$;
    create trigger write_event after update on aggregate for each row
        when (new.event_id is distinct from old.event_id) execute function write_event();
";

/// A pause inside the statement, after `seq` was drawn and before the update: it makes likely what is
/// possible without it.
const PAUSE: &str = "
    create function pause() returns trigger language plpgsql as $$
    begin
        perform pg_sleep(random() * 0.01);
        return new;
    end $$;
    create trigger pause before insert on outbox for each row execute function pause();
";

async fn write(
    pattern: Pattern,
    client: Client,
    session: u32,
    history: History,
    clock: Arc<AtomicU64>,
) {
    for round in 0..TRANSACTIONS_PER_SESSION {
        let aggregate = format!("aggregate-{}", 1 + (session + round) % AGGREGATES);
        let id = Uuid::new_v4();
        match one(pattern, &client, &aggregate, id, &clock).await {
            Ok(Some(number)) => {
                history.ended(vec![Inserted { id, aggregate, number }], Fate::Committed);
            }
            Ok(None) => client.batch_execute("rollback").await.expect("the session lives"),
            Err(error) => {
                let code = error.code().cloned();
                assert!(
                    code == Some(SqlState::T_R_SERIALIZATION_FAILURE)
                        || code == Some(SqlState::T_R_DEADLOCK_DETECTED),
                    "{pattern:?}: {error}"
                );
                client.batch_execute("rollback").await.expect("the session lives");
            }
        }
    }
}

/// One transaction; its number is the aggregate's version, which rises in the order of commit. None
/// when a version check failed.
async fn one(
    pattern: Pattern,
    client: &Client,
    aggregate: &str,
    id: Uuid,
    clock: &AtomicU64,
) -> Result<Option<u64>, Error> {
    let begin = match pattern {
        Pattern::RepeatableRead => "begin isolation level repeatable read",
        Pattern::Serializable => "begin isolation level serializable",
        _ => "begin",
    };
    client.batch_execute(begin).await?;
    let number = match pattern {
        Pattern::LockThenInsert => {
            let number = raise(client, aggregate).await?;
            insert(client, aggregate, id).await?;
            number
        }
        Pattern::RepeatableRead | Pattern::Serializable | Pattern::InsertThenBlindUpdate => {
            insert(client, aggregate, id).await?;
            pause(client).await?;
            raise(client, aggregate).await?
        }
        Pattern::VersionChecked => {
            let sql = "select version from aggregate where name = $1";
            let read: i64 = client.query_one(sql, &[&aggregate]).await?.get(0);
            insert(client, aggregate, id).await?;
            pause(client).await?;
            let sql = "update aggregate set version = version + 1 where name = $1 and version = $2";
            if client.execute(sql, &[&aggregate, &read]).await? == 0 {
                return Ok(None);
            }
            read.cast_unsigned() + 1
        }
        Pattern::AfterTrigger => {
            let sql = "update aggregate set version = version + 1, event_id = $2 where name = $1 \
                       returning version";
            let version: i64 = client.query_one(sql, &[&aggregate, &id]).await?.get(0);
            version.cast_unsigned()
        }
        Pattern::Emit => {
            let sql = "select postrider.emit($1, $2, 'Changed', '{}', id => $3)";
            client.query_one(sql, &[&AGGREGATE_TYPE, &aggregate, &id]).await?;
            // emit's lock is held until the commit: what is counted under it is the order of commit.
            let number = clock.fetch_add(1, Ordering::SeqCst);
            pause(client).await?;
            number
        }
        Pattern::UpdateInWithInsertValues => {
            // The insert draws its seq first; the update, which nothing reads from, runs at the end.
            let sql = "with raised as \
                           (update aggregate set version = version + 1 where name = $1) \
                       insert into outbox (id, aggregatetype, aggregateid, type, payload) \
                       values ($2, $3, $1, 'Changed', '{}')";
            client.execute(sql, &[&aggregate, &id, &AGGREGATE_TYPE]).await?;
            pause(client).await?;
            let sql = "select version from aggregate where name = $1";
            let version: i64 = client.query_one(sql, &[&aggregate]).await?.get(0);
            version.cast_unsigned()
        }
    };
    client.batch_execute("commit").await?;
    Ok(Some(number))
}

async fn raise(client: &Client, aggregate: &str) -> Result<u64, Error> {
    let sql = "update aggregate set version = version + 1 where name = $1 returning version";
    let version: i64 = client.query_one(sql, &[&aggregate]).await?.get(0);
    Ok(version.cast_unsigned())
}

async fn insert(client: &Client, aggregate: &str, id: Uuid) -> Result<(), Error> {
    let sql = "insert into outbox (id, aggregatetype, aggregateid, type, payload) \
               values ($1, $2, $3, 'Changed', '{}')";
    client.execute(sql, &[&id, &AGGREGATE_TYPE, &aggregate]).await.map(|_| ())
}

async fn pause(client: &Client) -> Result<(), Error> {
    client.batch_execute("select pg_sleep(0.003)").await
}
