//! One event that the broker refuses, whatever it says: it is parked with the broker's words, and the others arrive.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postrider_testkit::servers::KafkaOptions;
use rdkafka::types::RDKafkaRespErr;
use tokio_postgres::Client;

use crate::parking::{ask, first_seen, insert, insert_with, numbers, wait_for_the_rest};
use crate::support::acl::{Access, authorizer, restrict};
use crate::support::consumer::{
    create_topic, create_topic_with, create_topics, make_offsets_topic,
};
use crate::support::refuser::{Fault, MARKER, Refuser, SILENCE, marked};
use crate::support::{
    Capture, Delivery, Fixture, Random, RelayProcess, mostly_waits, read_topic, start_kafka,
};

/// A neighbour of a culprit may come again when the shard goes back to its cursor, and no more.
const TIMES_MAX: usize = 3;
/// Time for a batch without an answer to be found out, and for each of its events to be tried.
const PATIENCE: Duration = Duration::from_secs(240);

/// So often one may come at most, of which at-least-once delivery may send so many.
fn times_max(at_least_once: usize) -> usize {
    match Delivery::asked() {
        Delivery::AtLeastOnce => at_least_once,
        Delivery::ExactlyOnce => 1,
    }
}

/// An event of a time that brokers refuse by default.
async fn insert_ahead(client: &Client, aggregate: (&str, &str), number: u32) {
    client
        .execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload, created_at)
             values ($1, $2, $3, '{}', now() + interval '2 hours')",
            &[&aggregate.0, &aggregate.1, &number.to_string()],
        )
        .await
        .expect("an insert never fails");
}

/// Type, reason and detail of what is parked, by type.
async fn parked(client: &Client) -> BTreeMap<String, (String, String)> {
    let sql = "select type, reason, detail from postrider.parked";
    let rows = client.query(sql, &[]).await.expect("the table answers");
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// How often each key of a topic came.
fn times(fixture: &Fixture, topic: &str) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for record in read_topic(&fixture.brokers, topic) {
        *times.entry(record.key_text().to_owned()).or_default() += 1;
    }
    times
}

async fn wait_until_parked_are(
    client: &Client,
    count: usize,
) -> BTreeMap<String, (String, String)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = parked(client).await;
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < deadline, "{} parked, not {count}: {found:?}", found.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_for_all_others(client: &Client) {
    let deadline = Instant::now() + PATIENCE;
    let sql = "select seq from postrider.events where not published and not parked limit 1";
    while let Some(row) = client.query_opt(sql, &[]).await.expect("the view answers") {
        assert!(Instant::now() < deadline, "{} is neither", row.get::<_, i64>(0));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_the_broker_refuses_is_one_parked_event() {
    for capture in [Capture::Poll, Capture::Wal] {
        let fixture = Fixture::new(&format!("culprit_time_{capture:?}").to_lowercase()).await;
        let topic = fixture.topic("t");
        create_topic(&fixture.brokers, &topic, 1).await;
        let client = fixture.client().await;
        insert_ahead(&client, ("t", "1"), 1).await;
        insert(&client, ("t", "1"), 2, 10).await;
        for key in 2..=11 {
            insert(&client, ("t", &key.to_string()), 10 + key, 10).await;
        }
        let capture = match capture {
            Capture::Wal => "wal",
            Capture::Poll | Capture::Message => "poll",
        };
        let arguments = ["--record-timestamp", "created", "--shards", "1", "--capture", capture];
        let relay = RelayProcess::start(&fixture, &arguments);
        wait_for_the_rest(&fixture).await;
        let parked = wait_until_parked_are(&client, 2).await;
        let (reason, detail) = &parked["1"];
        assert_eq!((reason.as_str(), parked["2"].0.as_str()), ("refused", "follows"), "{parked:?}");
        assert!(detail.contains("InvalidTimestamp") && detail.contains(&topic), "{detail}");
        let times = times(&fixture, &topic);
        assert_eq!(times.len(), 10, "{times:?}");
        assert!(times.values().all(|times| *times <= times_max(TIMES_MAX)), "{times:?}");

        // It is tried afresh, and refused again: nothing that follows it passes.
        ask(&fixture, &["parked", "retry", "--reason", "refused"]);
        insert(&client, ("t", "2"), 3, 10).await;
        wait_for_the_rest(&fixture).await;
        let parked = wait_until_parked_are(&client, 2).await;
        assert_eq!(parked["1"].0, "refused", "{parked:?}");
        assert_eq!(first_seen(&fixture, &topic, "1"), Vec::<String>::new());
        ask(&fixture, &["parked", "discard", "--reason", "refused"]);
        fixture.wait_published().await;
        assert_eq!(first_seen(&fixture, &topic, "1"), ["2"]);
        relay.stop_well().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_culprits_among_many_events_are_found_in_time() {
    let fixture = Fixture::new("culprits").await;
    let topics = ["t", "u"].map(|name| fixture.topic(name));
    for topic in &topics {
        create_topic(&fixture.brokers, topic, 3).await;
    }
    let client = fixture.client().await;
    client
        .batch_execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload, created_at)
             select case when n % 2 = 0 then 't' else 'u' end, n::text, n::text, '{}',
                    now() + case when n % 97 = 0 then interval '2 hours' else interval '0' end
             from generate_series(1, 10000) n",
        )
        .await
        .expect("an insert never fails");
    let relay = RelayProcess::start(&fixture, &["--record-timestamp", "created"]);
    wait_for_the_rest(&fixture).await;
    let parked = wait_until_parked_are(&client, 10_000 / 97).await;
    assert!(parked.values().all(|(reason, _)| reason == "refused"), "{parked:?}");
    let mut all = times(&fixture, &topics[0]);
    all.extend(times(&fixture, &topics[1]));
    assert_eq!(all.len(), 10_000 - 10_000 / 97);
    let most = all.values().max().copied().unwrap_or_default();
    assert!(most <= times_max(2 * TIMES_MAX), "one came {most} times");
    relay.stop_well().await;
}

/// What one refusal of many teaches costs all that is in flight another try: they are learnt together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_topics_that_refuse_in_one_page_cost_their_neighbours_little() {
    const TOPICS: u32 = 24;
    // Two failures that are close teach enough; a busy machine may lead to a third.
    const TIMES_MAX: usize = 4;
    let fixture = Fixture::new("culprit_page").await;
    let names: Vec<String> = (1..=TOPICS).map(|n| fixture.topic(&n.to_string())).collect();
    create_topics(&fixture.brokers, &names).await;
    let client = fixture.client().await;
    let sql = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload, created_at)
         select ((n % {TOPICS}) + 1)::text, n::text, n::text, '{{}}',
                now() + case when n / {TOPICS} = 3 then interval '2 hours' else interval '0' end
         from generate_series(0, {TOPICS} * 10 - 1) n"
    );
    client.batch_execute(&sql).await.expect("an insert never fails");
    let relay = RelayProcess::start(&fixture, &["--record-timestamp", "created", "--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    let parked = wait_until_parked_are(&client, TOPICS as usize).await;
    assert!(parked.values().all(|(reason, _)| reason == "refused"), "{parked:?}");
    let mut all = BTreeMap::new();
    names.iter().for_each(|topic| all.extend(times(&fixture, topic)));
    assert_eq!(all.len(), TOPICS as usize * 9);
    let most = all.values().max().copied().unwrap_or_default();
    println!(
        "of {} neighbours {} came more than once, one {most} times",
        all.len(),
        all.values().filter(|times| **times > 1).count()
    );
    assert!(most <= times_max(TIMES_MAX), "one came {most} times");
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_made_of_what_the_broker_refuses() {
    let fixture = Fixture::new("culprit_letter").await;
    let (topic, letters) = (fixture.topic("t"), fixture.topic("letters"));
    create_topic(&fixture.brokers, &topic, 1).await;
    let any_time = [("message.timestamp.after.max.ms", "9223372036854775807")];
    create_topic_with(&fixture.brokers, &letters, &any_time).await;
    let client = fixture.client().await;
    insert_ahead(&client, ("t", "1"), 1).await;
    insert(&client, ("t", "1"), 2, 10).await;
    insert(&client, ("t", "2"), 3, 10).await;
    let poison = ["--on-poison", "dead-letter", "--dead-letter-topic", &letters];
    let arguments = [&["--record-timestamp", "created"], &poison[..]].concat();
    let relay = RelayProcess::start(&fixture, &arguments);
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &letters, "1"), ["1"]);
    assert_eq!(first_seen(&fixture, &topic, "1"), ["2"]);
    assert_eq!(first_seen(&fixture, &topic, "2"), ["3"]);
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_kafka_keeps_for_itself_stops_nobody_else() {
    let fixture = Fixture::new("culprit_internal").await;
    let good = "culprit_internal_good";
    create_topic(&fixture.brokers, good, 1).await;
    make_offsets_topic(&fixture.brokers, good);
    let client = fixture.client().await;
    insert(&client, ("__consumer_offsets", "1"), 1, 10).await;
    insert(&client, (good, "2"), 2, 10).await;
    let relay = RelayProcess::start(&fixture, &["--topic", "{aggregatetype}", "--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    let parked = wait_until_parked_are(&client, 1).await;
    // A coordinator calls it one to which this user may not write.
    let reason = match Delivery::asked() {
        Delivery::AtLeastOnce => "refused",
        Delivery::ExactlyOnce => "topic-unavailable",
    };
    assert_eq!(parked["1"].0, reason, "{parked:?}");
    assert!(parked["1"].1.contains("__consumer_offsets"), "{parked:?}");
    assert_eq!(first_seen(&fixture, good, "2"), ["2"]);
    relay.stop_well().await;
}

/// Events of which one is marked, through a broker that answers this for whatever travels with it.
async fn meet(refuser: &Refuser, fixture: &Fixture, aggregate_type: &str, fault: Fault) {
    refuser.set(fault);
    let topic = fixture.topic(aggregate_type);
    create_topic(&fixture.brokers, &topic, 1).await;
    let client = fixture.client().await;
    let begin = Instant::now();
    for key in 1..=9_u32 {
        let payload = if key == 5 { format!("\"{MARKER}\"") } else { "{}".to_owned() };
        insert_with(&client, (aggregate_type, &key.to_string()), key, &payload, None).await;
    }
    insert(&client, (aggregate_type, "5"), 10, 10).await;
    wait_for_all_others(&client).await;
    let parked = wait_until_parked_are(&client, 2).await;
    let reason = if fault == Fault::Answer(10) { "too-large" } else { "refused" };
    assert_eq!(parked["5"].0, reason, "{fault:?}: {parked:?}");
    assert_eq!(parked["10"].0, "follows", "{fault:?}: {parked:?}");
    let times = times(fixture, &topic);
    let keys: Vec<&str> = times.keys().map(String::as_str).collect();
    assert_eq!(keys, ["1", "2", "3", "4", "6", "7", "8", "9"], "{fault:?}");
    assert!(times.values().all(|times| *times <= times_max(TIMES_MAX)), "{fault:?}: {times:?}");
    println!("{fault:?} took {:?}: {}", begin.elapsed(), parked["5"].1);
    refuser.set(Fault::None);
    ask(fixture, &["parked", "retry", "--reason", reason]);
    fixture.wait_published().await;
    assert_eq!(first_seen(fixture, &topic, "5"), ["5", "10"], "{fault:?}");
    assert_eq!(first_seen(fixture, &topic, "4"), numbers(4..=4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_broker_answers_to_one_record_that_one_is_parked() {
    mostly_waits();
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("culprit_codes").await;
    fixture.brokers = kafka.brokers().to_owned();
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    // Each as a broker may answer it; those that librdkafka tries again without an end take longer. It takes 46 for
    // success, and 47 is answered as well where another producer has ended this one's transaction.
    for code in [47, 46, 999, 120, 87, 32, 17, -1, 10, 45] {
        meet(&refuser, &fixture, &format!("code{}", code + 1), Fault::Answer(code)).await;
    }
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_never_answered_is_found_like_one_that_is_refused() {
    mostly_waits();
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("culprit_silent").await;
    fixture.brokers = kafka.brokers().to_owned();
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    meet(&refuser, &fixture, "again", Fault::Answer(SILENCE)).await;
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_for_which_connections_are_cut_costs_nobody_an_event() {
    mostly_waits();
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("culprit_cut").await;
    fixture.brokers = kafka.brokers().to_owned();
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    // Nobody else is there to go through, and none has gone through before: the topic is given up first.
    alone_it_is_found(&refuser, &fixture).await;
    meet(&refuser, &fixture, "cut", Fault::Cut).await;
    relay.stop_well().await;
}

/// A topic's only record, that of all the first, ends connections: the others go on, and it is found.
async fn alone_it_is_found(refuser: &Refuser, fixture: &Fixture) {
    refuser.set(Fault::Cut);
    for topic in ["sole", "other"] {
        create_topic(&fixture.brokers, &fixture.topic(topic), 1).await;
    }
    let (client, begin) = (fixture.client().await, Instant::now());
    insert_with(&client, ("sole", "1"), 1, &format!("\"{MARKER}\""), None).await;
    // Not in one page with it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for key in 2..=5_u32 {
        insert(&client, ("other", &key.to_string()), key, 10).await;
    }
    wait_for_all_others(&client).await;
    assert_eq!(times(fixture, &fixture.topic("other")).len(), 4);
    let deadline = Instant::now() + PATIENCE;
    while parked(&client).await["1"].0 != "refused" {
        assert!(Instant::now() < deadline, "{:?}", parked(&client).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let detail = parked(&client).await["1"].1.clone();
    assert!(detail.contains("its connection ends"), "{detail}");
    println!("alone it took {:?}: {detail}", begin.elapsed());
    refuser.set(Fault::None);
    ask(fixture, &["parked", "retry", "--reason", "refused"]);
    fixture.wait_published().await;
    assert_eq!(first_seen(fixture, &fixture.topic("sole"), "1"), ["1"]);
}

/// What becomes of a record for which alone a broker answers with a code, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    TooLarge,
    /// It may be the topic's trouble, as far as can be told.
    RefusedOrTopic,
    /// librdkafka tries again by itself, without an end: no leader, no copies, no time. The record is found as one
    /// that is not taken again and again, while others are.
    RefusedInTheEnd,
}

impl Fate {
    fn of(code: i16) -> Self {
        match code {
            2 | 3 | 5..=9 | 13..=16 | 19 | 20 | 56 | 74 | 75 | 89 => Self::RefusedInTheEnd,
            4 | 10 | 18 => Self::TooLarge,
            29 => Self::RefusedOrTopic,
            _ => Self::Refused,
        }
    }

    fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Refused | Self::RefusedInTheEnd => &["refused"],
            Self::TooLarge => &["too-large"],
            Self::RefusedOrTopic => &["refused", "topic-unavailable"],
        }
    }
}

/// Every code that librdkafka has a name for.
fn known_codes() -> impl Iterator<Item = i16> {
    let is_known = |code: &i16| RDKafkaRespErr::try_from(i32::from(*code)).is_ok();
    (-1..=130).filter(move |code| *code != 0 && is_known(code))
}

/// Every code at once, each for one record among many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_that_a_broker_can_answer_ends_with_its_record() {
    const TOPICS: u64 = 6;
    mostly_waits();
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("culprit_any").await;
    fixture.brokers = kafka.brokers().to_owned();
    let topics: Vec<String> =
        (0..TOPICS).map(|number| fixture.topic(&number.to_string())).collect();
    for topic in &topics {
        create_topic(&fixture.brokers, topic, 2).await;
    }
    let codes = known_codes().filter(|code| Fate::of(*code) != Fate::RefusedInTheEnd);
    let codes: Vec<i16> = codes.chain([98, 120, 131, 999, i16::MAX]).collect();
    let mut random = Random::new(0x5eed);
    let client = fixture.client().await;
    let mut culprits = BTreeMap::new();
    for number in 0..1_000_u32 {
        let key = format!("k{number}");
        let aggregate_type = random.below(TOPICS).to_string();
        let code = codes.get(culprits.len()).filter(|_| random.below(4) == 0);
        let payload = code.map_or("{}".to_owned(), |code| format!("\"{}\"", marked(*code)));
        if let Some(code) = code {
            culprits.insert(number.to_string(), *code);
        }
        insert_with(&client, (&aggregate_type, &key), number, &payload, None).await;
    }
    assert_eq!(culprits.len(), codes.len(), "each code has its record");
    refuser.set(Fault::AnswerAsMarked);
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "2", "-X", "compression.type=none"]);
    wait_for_all_others(&client).await;
    let parked = wait_until_parked_are(&client, codes.len()).await;
    for (number, code) in &culprits {
        let (reason, detail) = &parked[number];
        assert!(Fate::of(*code).reasons().contains(&reason.as_str()), "{code}: {reason} {detail}");
        assert!(detail.contains("culprit_any."), "{code}: {detail}");
    }
    let mut all = BTreeMap::new();
    topics.iter().for_each(|topic| all.extend(times(&fixture, topic)));
    assert_eq!(all.len(), 1_000 - codes.len());
    let most = all.values().max().copied().unwrap_or_default();
    assert!(most <= times_max(2 * TIMES_MAX), "one came {most} times");
    relay.stop_well().await;
}

/// Those codes at once, each for one record of a topic of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_that_is_tried_again_without_an_end_ends_with_its_record() {
    const NEIGHBOURS: u32 = 8;
    mostly_waits();
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("culprit_endless").await;
    fixture.brokers = kafka.brokers().to_owned();
    let codes = known_codes().filter(|code| Fate::of(*code) == Fate::RefusedInTheEnd);
    let codes: Vec<i16> = codes.collect();
    assert_eq!(codes.len(), 17, "{codes:?}");
    let names: Vec<String> = codes.iter().map(|code| fixture.topic(&code.to_string())).collect();
    create_topics(&fixture.brokers, &names).await;
    let client = fixture.client().await;
    for number in 0..=NEIGHBOURS {
        for code in &codes {
            let is_marked = number == NEIGHBOURS / 2;
            let payload =
                if is_marked { format!("\"{}\"", marked(*code)) } else { "{}".to_owned() };
            let number = number * 1_000 + u32::from(code.cast_unsigned());
            let aggregate = (code.to_string(), format!("k{number}"));
            insert_with(&client, (&aggregate.0, &aggregate.1), number, &payload, None).await;
        }
    }
    refuser.set(Fault::AnswerAsMarked);
    let begin = Instant::now();
    let proxied = fixture.with_brokers(refuser.brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    wait_for_all_others(&client).await;
    let parked = loop {
        let parked = wait_until_parked_are(&client, codes.len()).await;
        if parked.values().all(|(reason, _)| reason == "refused") {
            break parked;
        }
        assert!(begin.elapsed() < PATIENCE, "{parked:?}; it said:\n{}", relay.said());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!("all were found in {:?}", begin.elapsed());
    for (code, topic) in codes.iter().zip(&names) {
        let number = NEIGHBOURS / 2 * 1_000 + u32::from(code.cast_unsigned());
        let (_, detail) = &parked[&number.to_string()];
        assert!(detail.contains(topic), "{code}: {detail}");
        let times = times(&fixture, topic);
        assert_eq!(times.len(), NEIGHBOURS as usize, "{code}: {times:?}");
        // What is called not copied was written all the same, with each producer anew; on a busy machine there are more.
        let most = times_max(2 * TIMES_MAX);
        assert!(times.values().all(|times| *times <= most), "{code}: {times:?}");
    }
    relay.stop_well().await;
}

/// Nobody may ask how much a topic takes: the broker decides, and nothing that fits is parked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_nobody_tells_is_the_brokers_to_decide() {
    let kafka = start_kafka(KafkaOptions { properties: authorizer(), ..KafkaOptions::default() });
    let mut fixture = Fixture::new("culprit_untold").await;
    fixture.brokers = kafka.brokers().to_owned();
    let (wide, narrow) = (fixture.topic("wide"), fixture.topic("narrow"));
    for (topic, limit) in [(&wide, "3000000"), (&narrow, "100000")] {
        create_topic_with(&fixture.brokers, topic, &[("max.message.bytes", limit)]).await;
        restrict(&fixture.brokers, topic, Access::Use);
    }
    let client = fixture.client().await;
    let small = "insert into outbox (aggregatetype, aggregateid, type, payload)
                 select 'narrow', n::text, 'small', to_json(repeat('x', 700 + n % 800))
                 from generate_series(1, 5000) n";
    client.batch_execute(small).await.expect("an insert never fails");
    for (number, size) in [(1, 10), (2, 2_000_000), (3, 10), (4, 4_000_000), (5, 10)] {
        insert(&client, ("wide", "k"), number, size).await;
    }
    let arguments = ["--shards", "1", "-X", "compression.type=none"];
    let relay = RelayProcess::start(&fixture, &arguments);
    wait_for_all_others(&client).await;
    let parked = wait_until_parked_are(&client, 2).await;
    let reasons = [parked["4"].0.as_str(), parked["5"].0.as_str()];
    assert_eq!(reasons, ["too-large", "follows"], "{parked:?}");
    assert_eq!(first_seen(&fixture, &wide, "k"), numbers(1..=3));
    let times = times(&fixture, &narrow);
    assert_eq!(times.len(), 5_000);
    let most = times.values().max().copied().unwrap_or_default();
    assert!(most <= times_max(TIMES_MAX), "one came {most} times");
    relay.wait_until_it_says("the broker does not tell how much a topic takes").await;
    relay.stop_well().await;
}
