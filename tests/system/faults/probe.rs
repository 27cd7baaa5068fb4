//! A topic that seems usable, and takes nothing: one aggregate is tried now and then, and not all that wait.

use std::time::{Duration, Instant};

use crate::parking::insert;
use crate::support::consumer::create_topic;
use crate::support::refuser::{Fault, Refuser, marked};
use crate::support::{Fixture, RelayProcess, read_topic};

const WAITING: i64 = 60;
/// Too few copies are in step.
const NOT_ENOUGH_REPLICAS: i16 = 19;

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
    try_one_aggregate("probe", Begin::Later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_nothing_from_the_first_on_stops_nobody() {
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
