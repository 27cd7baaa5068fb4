//! The inbox of consumers on a real PostgreSQL: against a naive model, under two at once, and behind the relay.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use postrider::error::ErrorKind;
use postrider::inbox::{Admission, Inbox, InboxRecord, Replay, Replays, Turn, turn};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::parking::ask;
use crate::support::fixture::{connect, empty_database};
use crate::support::{Consumed, Fixture, Random, RelayProcess, read_topic};

fn migrate(url: &str, command: &str) -> String {
    let mut postrider = Command::new(env!("CARGO_BIN_EXE_postrider"));
    postrider.env("POSTRIDER_DATABASE_URL", url).args(["migrate", "inbox", command]);
    let output = postrider.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the answer is text")
}

/// A consumer's own database, without an outbox.
async fn consumer(name: &str) -> (String, Client) {
    let url = empty_database(name).await;
    migrate(&url, "up");
    let client = connect(&url).await;
    (url, client)
}

fn record(aggregate_id: &str, seq: i64) -> InboxRecord<'_> {
    let (position, id) = (None, None);
    InboxRecord {
        aggregate_type: "t",
        aggregate_id,
        seq: Some(seq),
        position,
        id,
        replay: Replay::No,
    }
}

fn with_id(id: u64) -> InboxRecord<'static> {
    InboxRecord { seq: None, id: Some(Uuid::from_u128(id.into())), ..record("a", 0) }
}

/// Which of a poll are new, in a transaction of its own that commits.
async fn admit(client: &mut Client, inbox: &Inbox, poll: &[InboxRecord<'_>]) -> Vec<bool> {
    let transaction = client.transaction().await.expect("it begins");
    let admissions = inbox.admit(&transaction, poll).await.expect("it answers");
    transaction.commit().await.expect("it commits");
    admissions.into_iter().map(|admission| admission == Admission::New).collect()
}

/// What the inbox promises, as simply as it can be said: per aggregate and kind of number the highest, and all ids.
#[derive(Clone, Debug, Default)]
struct Model {
    seqs: BTreeMap<String, i64>,
    positions: BTreeMap<String, u128>,
    ids: BTreeSet<Uuid>,
}

impl Model {
    fn admit(&mut self, poll: &[InboxRecord<'_>]) -> Vec<bool> {
        let (before, mut here) = (self.clone(), BTreeSet::new());
        let mut is_new = Vec::new();
        for record in poll {
            let name = record.aggregate_id.to_owned();
            let position = record.position.map(|text| text.parse::<u128>().expect("digits"));
            is_new.push(match (record.seq, position) {
                (Some(seq), _) => {
                    let is_first = here.insert((name.clone(), format!("seq {seq}")));
                    is_first && before.seqs.get(&name).is_none_or(|highest| seq > *highest)
                }
                (None, Some(position)) => {
                    let is_first = here.insert((name.clone(), format!("position {position}")));
                    is_first && before.positions.get(&name).is_none_or(|most| position > *most)
                }
                (None, None) => self.ids.insert(record.id.expect("one of the three")),
            });
            if let Some(seq) = record.seq {
                let highest = self.seqs.entry(name.clone()).or_insert(seq);
                *highest = seq.max(*highest);
            }
            if let Some(position) = position {
                let highest = self.positions.entry(name).or_insert(position);
                *highest = position.max(*highest);
            }
        }
        is_new
    }
}

/// GIVEN polls of all kinds, with aggregates and numbers twice, out of order and of mixed kinds, some rolled back
/// THEN each record is judged as the naive model says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_poll_is_judged_as_the_naive_model_does() {
    let (_, mut client) = consumer("inbox_model").await;
    let inbox = Inbox::open(&client, "one").await.expect("it was made");
    let long = "\u{e9}".repeat(3_000);
    let names = ["a", "b", "", long.as_str()];
    let positions: Vec<String> =
        (0..8).map(|number: u128| (number << 90 | 7).to_string()).collect();
    let (mut random, mut model) = (Random::new(31), Model::default());
    for round in 0..400 {
        let mut poll = Vec::new();
        for _ in 0..random.below(12) {
            let base = i64::try_from(random.below(9)).expect("small") + round / 40;
            let seq = if base == 3 { i64::MIN } else { base };
            let (seq, position) = (Some(seq), Some(positions[random.index(8)].as_str()));
            let id = Some(Uuid::from_u128(random.below(300).into()));
            let all = InboxRecord { seq, position, id, ..record(names[random.index(4)], 0) };
            poll.push(match random.below(4) {
                0 => InboxRecord { position: None, ..all },
                1 => InboxRecord { seq: None, ..all },
                2 => all,
                _ => all.by_id().expect("it has one"),
            });
        }
        let transaction = client.transaction().await.expect("it begins");
        let admissions = inbox.admit(&transaction, &poll).await.expect("it answers");
        let is_new: Vec<bool> =
            admissions.into_iter().map(|admission| admission == Admission::New).collect();
        let mut after = model.clone();
        assert_eq!(is_new, after.admit(&poll), "round {round}: {poll:?} after {model:?}");
        match random.below(4) {
            0 => transaction.rollback().await.expect("it rolls back"),
            _ => {
                transaction.commit().await.expect("it commits");
                model = after;
            }
        }
    }
    assert!(model.ids.len() > 100 && model.seqs.len() == names.len(), "{model:?}");
}

/// GIVEN four consumers of one name that read one log, each from its beginning, in polls of their own, forwards and
/// backwards, some of which they roll back THEN each event has one effect, and nobody is ended for a deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn consumers_at_once_share_the_events_without_a_deadlock() {
    const EVENTS: i64 = 3_000;
    let (url, client) = consumer("inbox_at_once").await;
    let table = "create table effect (aggregate text, seq bigint)";
    client.batch_execute(table).await.expect("the database is ours");
    let readers: Vec<_> = (1..=4).map(|number| tokio::spawn(read(url.clone(), number))).collect();
    for reader in readers {
        reader.await.expect("it reads to the end");
    }
    let counted = "select count(*), count(distinct (aggregate, seq)) from effect";
    let counted = client.query_one(counted, &[]).await.expect("it answers");
    assert_eq!((counted.get(0), counted.get(1)), (EVENTS, EVENTS));
    let rows = "select count(*) from postrider_inbox.aggregate";
    let rows: i64 = client.query_one(rows, &[]).await.expect("it answers").get(0);
    assert_eq!(rows, 40, "one per aggregate");

    async fn read(url: String, number: u64) {
        let mut client = connect(&url).await;
        let inbox = Inbox::open(&client, "shared").await.expect("it was made");
        let mut random = Random::new(number);
        let names: Vec<String> = (0..40).map(|name| format!("aggregate-{name}")).collect();
        let mut next = 0;
        while next < EVENTS {
            let end = EVENTS.min(next + 50 + i64::try_from(random.below(200)).expect("small"));
            let event = |seq: i64| record(&names[usize::try_from(seq % 40).expect("small")], seq);
            let mut poll: Vec<InboxRecord<'_>> = (next..end).map(event).collect();
            if number.is_multiple_of(2) {
                poll.reverse();
            }
            let transaction = client.transaction().await.expect("it begins");
            let admissions = inbox.admit(&transaction, &poll).await.expect("no deadlock");
            let new = poll.iter().zip(admissions);
            let new = new.filter(|(_, admission)| *admission == Admission::New);
            let (aggregates, seqs): (Vec<&str>, Vec<i64>) =
                new.map(|(record, _)| (record.aggregate_id, record.seq.expect("it has"))).unzip();
            let effect = "insert into effect select * from unnest($1::text[], $2::bigint[])";
            transaction.execute(effect, &[&aggregates, &seqs]).await.expect("it is written");
            if random.below(4) == 0 {
                transaction.rollback().await.expect("it rolls back");
            } else {
                transaction.commit().await.expect("it commits");
                next = end;
            }
        }
    }
}

/// GIVEN a relay that adds numbers, and a consumer to whom all that it sent comes twice THEN each event has its effect
/// once, whatever its way of reading; and once more where the consumer forgets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_relay_each_event_has_one_effect() {
    let fixture = Fixture::new("inbox_relay").await;
    let mut client = fixture.client().await;
    migrate(&fixture.database_url, "up");
    let relay = RelayProcess::start(&fixture, &["--add-headers", "seq,position"]);
    let emit =
        "select postrider.emit('t', (n % 3)::text, 'Placed', '{}') from generate_series(1, 20) n";
    client.execute(emit, &[]).await.expect("it is written");
    fixture.wait_published().await;
    ask(&fixture, &["capture", "switch", "wal"]);
    relay.wait_until_it_says("streaming from the replication slot").await;
    client.execute(emit, &[]).await.expect("it is written");
    fixture.wait_published().await;
    relay.stop_well().await;

    let topic = fixture.topic("t");
    let consumed = read_topic(&fixture.brokers, &topic);
    assert_eq!(consumed.len(), 40);
    let twice: Vec<&Consumed> =
        consumed.chunks(7).flat_map(|poll| poll.iter().chain(poll)).chain(&consumed).collect();
    let inbox = Inbox::open(&client, "billing").await.expect("it was made");
    let mut effects = 0;
    for poll in twice.chunks(9) {
        let of = |record: &&'_ Consumed| -> bool { record.header("seq").is_some() };
        assert!(poll.iter().all(of), "rows have a seq, whoever brought them");
        let records: Vec<InboxRecord<'_>> =
            poll.iter().map(|record| as_record(&topic, record)).collect();
        effects += admit(&mut client, &inbox, &records).await.iter().filter(|new| **new).count();
    }
    assert_eq!(effects, 40);
    let other = Inbox::open(&client, "shipping").await.expect("it was made");
    let first = [as_record(&topic, &consumed[0])];
    assert_eq!(admit(&mut client, &other, &first).await, [true], "consumers are apart");
}

fn as_record<'a>(topic: &'a str, record: &'a Consumed) -> InboxRecord<'a> {
    let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    InboxRecord::of(topic, record.key.as_deref(), headers).expect("postrider wrote it")
}

/// A record that somebody asked for is judged or admitted, as the consumer chose; what is remembered stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_the_consumers_choice() {
    let (_, mut client) = consumer("inbox_replay").await;
    let judges = Inbox::open(&client, "one").await.expect("it was made");
    let first = [record("a", 1), record("a", 2)];
    assert_eq!(admit(&mut client, &judges, &first).await, [true, true]);
    let again = [
        record("a", 3),
        InboxRecord { replay: Replay::Asked, ..record("a", 1) },
        InboxRecord { replay: Replay::Asked, ..record("a", 9) },
        record("a", 2),
        record("a", 4),
    ];
    assert_eq!(admit(&mut client, &judges, &again[..2]).await, [true, false]);
    let admits = Inbox::open(&client, "one").await.expect("it was made");
    let admits = admits.with_replays(Replays::Admit);
    assert_eq!(admit(&mut client, &admits, &again).await, [false, true, true, false, true]);
    assert_eq!(admit(&mut client, &judges, &[record("a", 5)]).await, [true], "9 is not remembered");
    let asked = InboxRecord { replay: Replay::Asked, ..record("a", 1) };
    assert_eq!(admit(&mut client, &admits, &[asked]).await, [true], "all of them are replays");
}

/// GIVEN events without a number WHEN the ring of ids turns THEN they are known for two turns more, nobody who is
/// at it is passed over, and what is forgotten leaves no rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_forgotten_by_the_ring() {
    const PERIOD: Duration = Duration::from_secs(3_600);
    let (url, mut client) = consumer("inbox_ids").await;
    let mut other = connect(&url).await;
    let inbox = Inbox::open(&client, "one").await.expect("it was made");
    let elsewhere = Inbox::open(&other, "one").await.expect("it was made");
    let age = "update postrider_inbox.ring set turned_at = turned_at - interval '1 hour'";
    assert_eq!(
        admit(&mut client, &inbox, &[with_id(1), with_id(2), with_id(1)]).await,
        [true, true, false]
    );
    assert_eq!(turn(&client, PERIOD).await.expect("it answers"), Turn::NotNow, "it is too early");
    client.batch_execute(age).await.expect("it is ours");
    // Who is at it holds the ring: an id that is not committed would not be seen in another generation.
    let open = other.transaction().await.expect("it begins");
    elsewhere.admit(&open, &[with_id(3)]).await.expect("it answers");
    assert_eq!(turn(&client, PERIOD).await.expect("it answers"), Turn::NotNow, "somebody is at it");
    open.commit().await.expect("it commits");
    for expected in [[false; 3], [false; 3], [true; 3]] {
        client.batch_execute(age).await.expect("it is ours");
        assert_eq!(turn(&client, PERIOD).await.expect("it answers"), Turn::Turned);
        let all = [with_id(1), with_id(2), with_id(3)];
        assert_eq!(admit(&mut client, &inbox, &all).await, expected);
    }
    let rows = "select count(*) from postrider_inbox.event";
    let rows: i64 = client.query_one(rows, &[]).await.expect("it answers").get(0);
    assert_eq!(rows, 3, "what was forgotten left nothing");
    for (period, words) in [("null", "a minute"), ("'1 second'", "a minute")] {
        let call = format!("select postrider_inbox.turn({period})");
        let error = client.batch_execute(&call).await.expect_err("it forgets too much");
        assert!(error.as_db_error().expect("the server's").message().contains(words), "{error}");
    }
}

/// Aggregates that are at rest can be forgotten; others stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_at_rest_can_be_forgotten() {
    let (_, mut client) = consumer("inbox_forget").await;
    let inbox = Inbox::open(&client, "one").await.expect("it was made");
    admit(&mut client, &inbox, &[record("a", 1), record("b", 1)]).await;
    let age = "update postrider_inbox.aggregate set admitted_on = admitted_on - 40";
    client.batch_execute(age).await.expect("it is ours");
    admit(&mut client, &inbox, &[record("b", 2)]).await;
    let forget = "select postrider_inbox.forget('30 days')";
    let forgotten: i64 = client.query_one(forget, &[]).await.expect("it answers").get(0);
    assert_eq!(forgotten, 1);
    assert_eq!(admit(&mut client, &inbox, &[record("a", 1), record("b", 2)]).await, [true, false]);
    let hasty = client.batch_execute("select postrider_inbox.forget('1 hour')").await;
    hasty.expect_err("that would forget what is at work");
}

/// `up`, `print` by psql's rules, and `up` again lead to one state, beside an outbox and without one; who uses the
/// inbox needs no right on its tables, and nobody has one by chance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inbox_is_made_once_and_used_without_rights_on_its_tables() {
    let url = empty_database("inbox_made").await;
    let mut client = connect(&url).await;
    let error = Inbox::open(&client, "one").await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(
        error.remedy().expect("there is one").contains("postrider migrate inbox up"),
        "{error}"
    );
    let made = migrate(&url, "up");
    assert_eq!(made, "applied 0000 registry\napplied 0001 inbox\n");
    assert_eq!(migrate(&url, "up"), "nothing to do\n");
    let printed = migrate(&url, "print");
    client.batch_execute(&printed).await.expect("it does nothing");
    let other = empty_database("inbox_printed").await;
    connect(&other).await.batch_execute(&printed).await.expect("it makes the same");
    assert_eq!(migrate(&other, "up"), "nothing to do\n");
    let role = "create role inbox_user login password 'secret'";
    client.batch_execute(role).await.expect("the role is new");
    let (_, server) = url.split_once('@').expect("the URL names a user");
    let as_user = connect(&format!("postgresql://inbox_user:secret@{server}")).await;
    let error = Inbox::open(&as_user, "one").await.expect_err("nothing was granted");
    assert!(error.remedy().expect("there is one").contains("grant"), "{error}");
    let grant = "grant usage on schema postrider_inbox to inbox_user;
        grant execute on all functions in schema postrider_inbox to inbox_user";
    client.batch_execute(grant).await.expect("the owner may");
    let mut as_user = as_user;
    let inbox = Inbox::open(&as_user, "one").await.expect("it may");
    assert_eq!(admit(&mut as_user, &inbox, &[record("a", 1), with_id(4)]).await, [true, true]);
    as_user.batch_execute("delete from postrider_inbox.aggregate").await.expect_err("no right");
    let inbox = Inbox::open(&client, "one").await.expect("it may");
    assert_eq!(admit(&mut client, &inbox, &[record("a", 1), with_id(4)]).await, [false, false]);
    let later = "insert into postrider_inbox.migration values (2, 'later', 'x')";
    client.batch_execute(later).await.expect("the owner may");
    let mut again = Command::new(env!("CARGO_BIN_EXE_postrider"));
    again.env("POSTRIDER_DATABASE_URL", &url).args(["migrate", "inbox", "up"]);
    let output = again.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What is called wrongly is refused, and admits nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_call_is_refused() {
    let (_, client) = consumer("inbox_wrong").await;
    for (arguments, words) in [
        ("null, '{t}', '{a}', '{1}', '{null}', '{null}'", "must not be null"),
        ("'c', '{null}', '{a}', '{1}', '{null}', '{null}'", "must not be null"),
        ("'c', '{t}', '{null}', '{1}', '{null}', '{null}'", "must not be null"),
        ("'c', '{t}', '{a}', '{null}', '{null}', '{null}'", "neither seq nor position nor id"),
        ("'c', '{t,t}', '{a}', '{1}', '{null}', '{null}'", "one element per record"),
        ("'c', '{t}', '{a}', '{1}', '{1,2}', '{null}'", "one element per record"),
        ("'c', '{t}', '{a}', null, null, '{null,null}'", "one element per record"),
        ("'c', null, '{a}', '{1}', null, null", "one element per record"),
        ("'c', '{t}', null, '{1}', null, null", "one element per record"),
        ("'c', '{t}', '{a}', null, null, null", "neither seq nor position nor id"),
        ("'c', '{t}', '{a}', '{1,2}', '{null}', '{null}'", "one element per record"),
    ] {
        let call = format!("select postrider_inbox.admit({arguments})");
        let error = client.batch_execute(&call).await.expect_err(arguments);
        let said = error.as_db_error().expect("the server's").message();
        assert!(said.contains(words), "{arguments}: {said}");
    }
    let empty = "select postrider_inbox.admit('c', '{}', '{}', '{}', '{}', '{}') = '{}'";
    let is_empty: bool = client.query_one(empty, &[]).await.expect("a poll may be empty").get(0);
    assert!(is_empty);
    let short = "select postrider_inbox.admit('c', '{t}', '{a}', '{1}', null, null) = '{t}'";
    let is_new: bool = client.query_one(short, &[]).await.expect("there are no others").get(0);
    assert!(is_new, "nothing was admitted by the wrong calls");
}
