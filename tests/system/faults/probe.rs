//! A topic that seems usable, and takes nothing: one aggregate is tried now and then, and not all that wait.

use std::time::{Duration, Instant};

use crate::parking::{insert, insert_with};
use crate::support::consumer::create_topic;
use crate::support::refuser::{Fault, Refuser, SILENCE, marked};
use crate::support::{Fixture, RelayProcess, mostly_waits, read_topic};

const WAITING: i64 = 60;
/// Too few copies are in step.
const NOT_ENOUGH_REPLICAS: i16 = 19;
/// It took the leader too long.
const REQUEST_TIMED_OUT: i16 = 7;
/// Events that fill more than a batch.
const MANY: i64 = 700;

/// When it begins to refuse what it took before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// While others go there and elsewhere.
    Later,
    /// Before anything was taken: whatever is sent behind its first record waits for that.
    AtOnce,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_topic_that_takes_nothing_one_aggregate_is_tried() {
    mostly_waits();
    try_one_aggregate("probe", Begin::Later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_nothing_from_the_first_on_stops_nobody() {
    mostly_waits();
    try_one_aggregate("probe_first", Begin::AtOnce).await;
}

async fn try_one_aggregate(name: &str, begin: Begin) {
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new(name).await;
    fixture.brokers = kafka.brokers().to_owned();
    let (strict, good) = (fixture.topic("strict"), fixture.topic("good"));
    create_topic(&fixture.brokers, &strict, 2).await;
    create_topic(&fixture.brokers, &good, 1).await;
    let client = fixture.client().await;
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    let before: u32 = if begin == Begin::Later { 20 } else { 0 };
    for number in 1..=before {
        insert(&client, ("strict", &format!("before-{number}")), number, 10).await;
        insert(&client, ("good", "k"), 0, 10).await;
    }
    fixture.wait_published().await;
    refuser.set(Fault::AnswerAsMarked);
    let many = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'strict', n::text, '1', '\"{}\"' from generate_series(1, {WAITING}) n",
        marked(NOT_ENOUGH_REPLICAS)
    );
    client.batch_execute(&many).await.expect("an insert never fails");
    // Others go on all the while: it is not Kafka. Then several tries later most have not been tried again.
    let sql = "select count(*), coalesce(sum(attempts), 0)::bigint from postrider.parked
               where reason = 'topic-unavailable'";
    let (deadline, mut written, mut at_first) =
        (Instant::now() + Duration::from_secs(180), 0, None);
    let more = loop {
        written += 1;
        insert(&client, ("good", "k"), written, 10).await;
        let row = client.query_one(sql, &[]).await.expect("it counts");
        let (parked, attempts): (i64, i64) = (row.get(0), row.get(1));
        if parked == WAITING && attempts >= *at_first.get_or_insert(attempts) + 2 {
            break attempts - at_first.unwrap_or_default();
        }
        assert!(Instant::now() < deadline, "{parked} parked, {attempts} attempts");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(more < 10, "{more} attempts");

    refuser.set(Fault::None);
    fixture.wait_published().await;
    let distinct = |topic: &str| {
        let records = read_topic(&fixture.brokers, topic);
        let ids: std::collections::HashSet<_> =
            records.iter().map(|record| record.id().0).collect();
        (records.len(), ids.len())
    };
    let all = WAITING as usize + before as usize;
    assert_eq!(distinct(&strict), (all, all), "each once");
    assert_eq!(distinct(&good).1, (written + before) as usize, "the rest went on");
    relay.stop_well().await;
}

/// Two topics take nothing, each in its own way, and one event for each is there: once that is known, tries of them
/// hold up nobody for long, and nothing of the others comes again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_for_a_topic_that_takes_nothing_holds_the_others_up_once() {
    mostly_waits();
    /// Longer than a try of a topic that never answers, on a busy machine.
    const WAIT_MAX: Duration = Duration::from_secs(8);
    /// Several tries of each.
    const TRIES_FOR: Duration = Duration::from_secs(20);
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("probe_once").await;
    fixture.brokers = kafka.brokers().to_owned();
    for topic in ["silent", "strict", "good"] {
        create_topic(&fixture.brokers, &fixture.topic(topic), 1).await;
    }
    let client = fixture.client().await;
    refuser.set(Fault::AnswerAsMarked);
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    insert(&client, ("good", "k"), 1, 10).await;
    fixture.wait_published().await;
    for (topic, code) in [("silent", SILENCE), ("strict", NOT_ENOUGH_REPLICAS)] {
        insert_with(&client, (topic, "k"), 1, &format!("\"{}\"", marked(code)), None).await;
    }
    // How long the oldest waits: where one is written every tenth of a second, some may always be on their way.
    let sql = "select coalesce(extract(epoch from clock_timestamp() - min(created_at)
                                   filter (where aggregatetype = 'good' and not published)), 0)::float8,
                      count(*) filter (where parked) from postrider.events";
    let (begin, mut written) = (Instant::now(), 1);
    let (mut known, mut longest) = (None::<Instant>, Duration::ZERO);
    while known.is_none_or(|known: Instant| known.elapsed() < TRIES_FOR) {
        let row = client.query_one(sql, &[]).await.expect("it counts");
        let (waited, parked): (f64, i64) = (row.get(0), row.get(1));
        let waited = Duration::from_secs_f64(waited.max(0.0));
        longest = longest.max(waited);
        if parked == 2 && known.is_none() && waited < WAIT_MAX {
            println!("known after {:?}, others waited for {longest:?}", begin.elapsed());
            (known, longest) = (Some(Instant::now()), Duration::ZERO);
        }
        assert!(known.is_some() || begin.elapsed() < Duration::from_secs(120), "{}", relay.said());
        assert!(known.is_none() || waited < WAIT_MAX, "{waited:?}; it said:\n{}", relay.said());
        written += 1;
        insert(&client, ("good", &format!("k{}", written % 5)), written, 10).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("since then others waited for {longest:?} at most");
    let others =
        "select count(*) from postrider.events where aggregatetype = 'good' and not published";
    wait_until(&client, others, 0, Duration::from_secs(20)).await;
    let mut times = std::collections::BTreeMap::<_, usize>::new();
    for record in read_topic(&fixture.brokers, &fixture.topic("good")) {
        *times.entry(record.id().0).or_default() += 1;
    }
    assert_eq!(times.len(), written as usize);
    assert!(times.values().all(|times| *times <= 2), "at most once again");
    relay.stop_well().await;
}

/// Nothing was taken from anybody yet, and the first events all go where nothing is: others behind them tell
/// that it is not Kafka.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_take_nothing_from_the_first_on_stop_nobody_whatever_they_say() {
    mostly_waits();
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("probe_all").await;
    fixture.brokers = kafka.brokers().to_owned();
    for topic in ["silent", "late", "good"] {
        create_topic(&fixture.brokers, &fixture.topic(topic), 2).await;
    }
    let client = fixture.client().await;
    for (topic, code) in [("silent", SILENCE), ("late", REQUEST_TIMED_OUT)] {
        let many = format!(
            "insert into outbox (aggregatetype, aggregateid, type, payload)
             select '{topic}', n::text, '1', '\"{}\"' from generate_series(1, {MANY}) n",
            marked(code)
        );
        client.batch_execute(&many).await.expect("an insert never fails");
    }
    insert(&client, ("good", "k"), 1, 10).await;
    refuser.set(Fault::AnswerAsMarked);
    let begin = Instant::now();
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    let waits = "select count(*) from postrider.parked where reason = 'topic-unavailable'";
    wait_until(&client, waits, 2 * MANY, Duration::from_secs(240)).await;
    println!("all others went on after {:?}", begin.elapsed());
    let others =
        "select count(*) from postrider.events where aggregatetype = 'good' and not published";
    wait_until(&client, others, 0, Duration::from_secs(20)).await;

    refuser.set(Fault::None);
    wait_until(&client, "select count(*) from postrider.parked", 0, Duration::from_secs(240)).await;
    fixture.wait_published().await;
    for topic in ["silent", "late"] {
        let keys: std::collections::HashSet<_> =
            read_topic(&fixture.brokers, &fixture.topic(topic))
                .iter()
                .map(|record| record.key_text().to_owned())
                .collect();
        assert_eq!(keys.len(), MANY as usize, "{topic}");
    }
    relay.stop_well().await;
}

/// Whatever is written is refused for longer than it takes to suspect a topic: that is Kafka, and nothing is
/// parked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_takes_nothing_from_anybody_parks_nothing() {
    mostly_waits();
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("probe_none").await;
    fixture.brokers = kafka.brokers().to_owned();
    let client = fixture.client().await;
    let topics = ["a", "b", "c"];
    for topic in topics {
        create_topic(&fixture.brokers, &fixture.topic(topic), 2).await;
    }
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    relay.wait_until_it_says("relaying").await;
    refuser.set(Fault::AnswerAll(REQUEST_TIMED_OUT));
    let (begin, mut written) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(130) {
        written += 1;
        for topic in topics {
            insert(&client, (topic, &(written % 7).to_string()), written, 10).await;
        }
        let parked = "select count(*) from postrider.parked";
        let parked: i64 = client.query_one(parked, &[]).await.expect("it counts").get(0);
        assert_eq!(parked, 0, "after {:?}; it said:\n{}", begin.elapsed(), relay.said());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(relay.said().contains("the producer is replaced"), "{}", relay.said());
    refuser.set(Fault::None);
    fixture.wait_published().await;
    for topic in topics {
        let ids: std::collections::HashSet<_> = read_topic(&fixture.brokers, &fixture.topic(topic))
            .iter()
            .map(|record| record.id().0)
            .collect();
        assert_eq!(ids.len(), written as usize, "{topic}");
    }
    relay.stop_well().await;
}

async fn wait_until(client: &tokio_postgres::Client, sql: &str, count: i64, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let found: i64 = client.query_one(sql, &[]).await.expect("it counts").get(0);
        if found == count {
            return;
        }
        assert!(Instant::now() < deadline, "{found}, not {count}: {sql}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
