//! The store of parked events by itself: who may write, what is kept, and what older versions left.

use postrider::control::migrate;
use postrider::control::parked::{Parked, ParkedEvent};
use postrider::error::ErrorKind;
use postrider::event::{Bucket, Event, EventId, LendEvent, LogPosition, OrderingKey, OwnedEvent};
use postrider::order::holds::{AggregateKey, HeldFrom, Holds, Reason, Refusal, SetAside};
use postrider::outbox::OutboxName;
use postrider::postgres::{DatabaseConfig, connect};

use crate::parking::parked;
use crate::support::Fixture;

/// An event as the table or the log brings it.
struct Read {
    event: OwnedEvent,
    log_position: Option<LogPosition>,
}

impl LendEvent for Read {
    fn event(&self) -> Event<'_> {
        self.event.event()
    }

    fn ordering_key(&self) -> OrderingKey {
        self.log_position.map_or(OrderingKey::Written, OrderingKey::Committed)
    }
}

/// The store in the hands of the relay's role, and how many buckets there are.
async fn open(fixture: &Fixture) -> (Parked, u16) {
    let client = fixture.client().await;
    client.batch_execute(include_str!("../../sql/roles.sql")).await.expect("the roles are made");
    let login =
        format!("create role {} login password 'secret' in role postrider_relay", fixture.name);
    client.batch_execute(&login).await.expect("the role is new");
    let (_, server) = fixture.database_url.split_once('@').expect("the URL names a user");
    let url = format!("postgresql://{}:secret@{server}", fixture.name);
    let database = DatabaseConfig::parse(&url).expect("it is a URL");
    let connection = connect(&database, "test").await.expect("PostgreSQL answers");
    let name = OutboxName::default();
    let outbox = migrate::load(connection.client(), &name).await.expect("it was migrated");
    let store = Parked::open(connection, &outbox, 8 << 20).await.expect("the tables are there");
    (store, outbox.buckets)
}

/// An event that the log brought, and one of the table.
fn both() -> [SetAside<Read>; 2] {
    let refusal = Refusal { reason: Reason::BadHeaders, detail: "bad".into(), topic: None };
    let event = |seq, aggregate_id: &str, log_position| {
        let event = OwnedEvent {
            seq,
            id: EventId([7; 16]),
            aggregate_type: "t".into(),
            aggregate_id: aggregate_id.into(),
            kind: seq.to_string(),
            payload: Some(b"\xff\x00".to_vec()),
            headers: Some("[1]".into()),
            created_at_micros: i64::MAX,
        };
        SetAside { row: Read { event, log_position }, refusal: refusal.clone() }
    };
    let last_of_all = LogPosition { commit_lsn: u64::MAX - 7, index: u32::MAX };
    [event(2, "b", Some(last_of_all)), event(1, "a", None)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_owner_neither_parks_nor_takes_away() {
    let fixture = Fixture::new("park_fence").await;
    let client = fixture.client().await;
    let (store, buckets) = open(&fixture).await;
    let both = both();
    let all: Vec<Bucket> = (0..buckets).map(Bucket).collect();
    let at = |epoch: i64| all.iter().map(|bucket| (*bucket, epoch)).collect::<Vec<_>>();
    let fenced = store.park(&at(1), &both).await;
    assert_eq!(fenced.expect_err("nobody has taken it").kind(), ErrorKind::Fenced);
    assert_eq!(parked(&client).await, []);
    store.park(&at(0), &both).await.expect("it is ours");
    let turns: Vec<i64> = client
        .query("select turn from postrider.parked order by turn", &[])
        .await
        .expect("the table answers")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let fenced = store.answer(&at(1), &turns, &[]).await;
    assert_eq!(fenced.expect_err("nobody has taken it").kind(), ErrorKind::Fenced);
    assert_eq!(parked(&client).await.len(), 2);

    let wrong = "select from postrider.parked
        where not satisfies_hash_partition('outbox'::regclass, 8, bucket, aggregateid)
            or created_at <> 'infinity' or payload <> '\\xff00'";
    assert!(client.query(wrong, &[]).await.expect("the table answers").is_empty());
    client
        .batch_execute(
            "insert into postrider.parked_request (bucket, aggregatetype, aggregateid)
        select bucket, aggregatetype, aggregateid from postrider.parked",
        )
        .await
        .expect("it is there");
    let piece = store.piece(&all, usize::MAX).await.expect("it is there");
    let as_parked = |SetAside { row, .. }: &SetAside<Read>, turn| ParkedEvent {
        turn,
        flaw: None,
        event: row.event.clone(),
        log_position: row.log_position,
        seq_source: row.seq_source(),
    };
    let expected = [as_parked(&both[0], turns[0]), as_parked(&both[1], turns[1])];
    assert_eq!(piece.events, expected, "whole, as they were parked");
    let waiting = store.waiting(&all).await.expect("it is there");
    let from = |parked: &SetAside<Read>| {
        let (event, ordering_key) = (parked.row.event(), parked.row.ordering_key());
        (AggregateKey::of(&event), HeldFrom::new(event.seq, ordering_key))
    };
    let holds: Holds = waiting.holds.expect("they are few").into_iter().collect();
    assert_eq!(holds, both.iter().map(from).collect());
    assert_eq!((piece.requests.len(), piece.rest), (2, vec![]));
    store.answer(&at(0), &turns[1..], &[piece.requests[0].0]).await.expect("it is ours");
    assert_eq!(parked(&client).await.len(), 1);
    // What was discarded meanwhile is no reason to stop.
    store.answer(&at(0), &turns, &[]).await.expect("it is ours");
}

/// A row that a trigger swallows is not acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_on_disk_is_not_acknowledged() {
    let fixture = Fixture::new("park_swallow").await;
    let client = fixture.client().await;
    let (store, buckets) = open(&fixture).await;
    client
        .batch_execute(
            "create function swallow() returns trigger language plpgsql as 'begin return null; end';
            create trigger swallow before insert on postrider.parked
                for each row execute function swallow()",
        )
        .await
        .expect("the table is ours");
    let owned: Vec<_> = (0..buckets).map(|bucket| (Bucket(bucket), 0)).collect();
    let swallowed = store.park(&owned, &both()).await.expect_err("it is not on disk");
    assert_eq!(swallowed.kind(), ErrorKind::Internal);
    assert!(swallowed.to_string().contains("2 were given, 0 were written"), "{swallowed}");
}

const ARRIVAL: &str = include_str!("../../sql/migrations/0008_arrival.sql");
const PARKED_KEY: &str = include_str!("../../sql/migrations/0010_parked_key.sql");

/// A database of the version before: what is parked there has neither turn nor log position, and seq is its key.
#[tokio::test]
async fn what_was_parked_before_there_were_turns_stays_in_order() {
    let fixture = Fixture::new("park_migrate").await;
    let client = fixture.client().await;
    let before = "drop view postrider.health, postrider.events;
        drop function postrider.legible, postrider.legible_payload, postrider.event_bytes,
            postrider.refuse_large_row, postrider.shortened, postrider.read_row, postrider.park_row;
        alter table postrider.parked drop constraint parked_event, drop constraint parked_reason,
            drop turn, drop commit_lsn, drop commit_index,
            drop fault, add primary key (seq), add constraint parked_reason_check check (reason <> '');
        create index parked_aggregate
            on postrider.parked (bucket, hashtextextended(aggregateid, 0), seq);
        insert into postrider.parked
            (seq, bucket, id, aggregatetype, aggregateid, type, created_at, reason, detail, attempts)
        select seq, 0, gen_random_uuid(), 't', 'a', seq::text, now(), 'follows', '', 0
        from unnest(array[7, 5, 9]) as seq";
    client.batch_execute(before).await.expect("it can be taken back");
    client.batch_execute(ARRIVAL).await.expect("it is what was there before");
    client.batch_execute(PARKED_KEY).await.expect("it is the next");
    let numbers = |parked: Vec<(String, String)>| {
        parked.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(parked(&client).await), ["5", "7", "9"]);
    let later = "insert into postrider.parked
            (seq, bucket, id, aggregatetype, aggregateid, type, created_at, reason, detail, attempts)
        values (1, 0, gen_random_uuid(), 't', 'a', '1', now(), 'follows', '', 0)";
    client.batch_execute(later).await.expect("it has a turn");
    assert_eq!(numbers(parked(&client).await), ["5", "7", "9", "1"]);
    let again = later.replace("'1'", "'2'");
    client.batch_execute(&again).await.expect("it is another event");
    assert_eq!(numbers(parked(&client).await), ["5", "7", "9", "1", "2"]);
}
