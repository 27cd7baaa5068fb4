//! The primary dies with commits that its standby never got, and the standby is promoted.

use std::ops::Range;
use std::time::Duration;

use postrider_testkit::audit::Fate;
use postrider_testkit::servers::{Postgres, PostgresOptions};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::event_places::assert_growing;
use crate::support::fixture::connect;
use crate::support::servers::kafka;
use crate::support::writer::{AGGREGATE_TYPE, Inserted, write_event};
use crate::support::{
    Capture, Fixture, History, Patience, RelayProcess, read_topic, start_postgres,
};

const POSTGRES_EXIT_CODE: i32 = 4;
pub(crate) const ROUNDS: u64 = 60;
/// The numbers of the events that the standby never gets.
const TAIL: Range<u64> = 1_000..10_000;

/// A primary, its standby that gets nothing any more, and what was written.
pub(crate) struct Pair {
    primary: Postgres,
    standby: Postgres,
    pub(crate) fixture: Fixture,
    written: Vec<Inserted>,
}

impl Pair {
    /// Writes events that both have, cuts the standby off, and lets `after` set up the primary.
    pub(crate) async fn new(name: &str, settings: &[(&str, &str)]) -> Self {
        let primary = start_postgres(settings);
        let url = primary.url(name);
        let brokers = kafka().brokers();
        let fixture = Fixture::on(name, &primary.url("postgres"), url, brokers).await;
        let standby =
            Postgres::standby_of(&primary, PostgresOptions::default(), &|line| println!("{line}"))
                .unwrap_or_else(|error| panic!("{error}"));
        Self { primary, standby, fixture, written: Vec::new() }
    }

    /// One event for each of ten aggregates, round by round.
    async fn write(&mut self, client: &Client, first_number: u64) {
        for round in 0..ROUNDS {
            let (aggregate, number) = (format!("aggregate-{}", round % 10), first_number + round);
            let capture = self.fixture.capture;
            self.written.push(write_event(client, capture, &aggregate, number).await);
        }
    }

    async fn wait_until_the_standby_has_all(&self) {
        let lag = "select count(*) from pg_stat_replication
            where application_name = 'walreceiver' and replay_lsn >= $1::text::pg_lsn";
        let primary = connect(&self.primary.url("postgres")).await;
        let place = "select pg_current_wal_flush_lsn()::text";
        let place: String = primary.query_one(place, &[]).await.expect("an answer").get(0);
        let patience = Patience::until("the standby has all");
        while primary.query_one(lag, &[&place]).await.expect("an answer").get::<_, i64>(0) == 0 {
            patience.pause().await;
        }
    }

    /// The standby lets go of the primary: what is committed from now on is the lost tail.
    async fn cut_off(&self) {
        let standby = connect(&self.standby.url("postgres")).await;
        for change in ["alter system set primary_conninfo = ''", "select pg_reload_conf()"] {
            standby.batch_execute(change).await.expect("the superuser may");
        }
        let primary = connect(&self.primary.url("postgres")).await;
        let streams = "select from pg_stat_replication where application_name = 'walreceiver'";
        let patience = Patience::until("the standby lets go");
        while !primary.query(streams, &[]).await.expect("the view answers").is_empty() {
            patience.pause().await;
        }
    }

    pub(crate) fn promote(&mut self) {
        self.primary.kill().expect("it is ours to kill");
        self.standby.promote().expect("it can be promoted");
        self.fixture.database_url = self.standby.url(&self.fixture.name);
    }

    /// Kills the primary and promotes; a relay that may not follow must refuse the other timeline and
    /// end. An operator sets the cursors again, and a new relay starts.
    pub(crate) async fn fail_over_by_hand(&mut self, relay: RelayProcess) -> RelayProcess {
        self.promote();
        relay.wait_until_it_says("timeline 1 and not 2").await;
        let ended = relay.wait(Duration::from_secs(60)).await;
        assert_eq!(ended.code(), Some(POSTGRES_EXIT_CODE));
        let mut reanchor = self.fixture.command();
        let done = reanchor.args(["migrate", "reanchor"]).output().expect("the binary runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        RelayProcess::start(&self.both(), &["--shards", "2"])
    }

    /// The events that the promoted server has.
    async fn kept(&self) -> Vec<Uuid> {
        if self.fixture.capture == Capture::Message {
            let is_kept = |event: &&Inserted| !TAIL.contains(&event.number);
            return self.written.iter().filter(is_kept).map(|event| event.id).collect();
        }
        let client = self.fixture.client().await;
        let kept = client.query("select id from outbox", &[]).await.expect("the table is there");
        kept.iter().map(|row| row.get(0)).collect()
    }

    /// What the promoted server has was committed; the rest never happened.
    async fn history(&self) -> History {
        let kept = self.kept().await;
        let lost = self.written.len() - kept.len();
        println!("{}: {lost} of {} commits were lost", self.fixture.name, self.written.len());
        assert!(lost > 0, "the tail was to be lost");
        let history = History::default();
        for event in &self.written {
            let is_kept = kept.contains(&event.id);
            let fate = if is_kept { Fate::Committed } else { Fate::RolledBack };
            history.ended(vec![event.clone()], fate);
        }
        history
    }

    /// An URL that names both servers, as an operator would.
    pub(crate) fn both(&self) -> Fixture {
        let name = &self.fixture.name;
        let (head, _) = self.primary.url(name).rsplit_once('@').map_or_else(
            || unreachable!("the URL names a user"),
            |(head, tail)| (head.to_owned(), tail.to_owned()),
        );
        let (one, two) = (self.primary.port(), self.standby.port());
        let database_url = format!(
            "{head}@127.0.0.1:{one},127.0.0.1:{two}/{name}?target_session_attrs=read-write"
        );
        Fixture { database_url, ..self.fixture.clone() }
    }

    /// Both have the first events; the rest is published and never reaches the standby.
    pub(crate) async fn publish_a_tail_that_is_lost(&mut self, on_promotion: &str) -> RelayProcess {
        let relay = self.publish_what_both_have(on_promotion).await;
        self.write_a_tail().await;
        self.fixture.wait_published().await;
        relay
    }

    pub(crate) async fn publish_what_both_have(&mut self, on_promotion: &str) -> RelayProcess {
        let (client, capture) = (self.fixture.client().await, self.fixture.capture);
        let flags = ["--shards", "2", "--on-promotion", on_promotion, "--capture", capture.name()];
        let flags = [&flags[..], &["--add-headers", "seq,position"]].concat();
        let relay = RelayProcess::start(&self.both(), &flags);
        relay.wait_until_it_says(capture.words()).await;
        self.write(&client, 0).await;
        self.fixture.wait_published().await;
        self.wait_until_the_standby_has_all().await;
        relay
    }

    /// What is committed from here on never reaches the standby.
    pub(crate) async fn write_a_tail(&mut self) {
        self.cut_off().await;
        let client = self.fixture.client().await;
        self.write(&client, TAIL.start).await;
    }

    /// The standby is one that commits wait for, but the writer does not, and the standby is cut off.
    pub(crate) async fn write_past_a_synchronous_standby(&mut self) {
        self.cut_off().await;
        let admin = connect(&self.primary.url("postgres")).await;
        let change = "alter system set synchronous_standby_names = '*'";
        for change in [change, "select pg_reload_conf()"] {
            admin.batch_execute(change).await.expect("the superuser may");
        }
        let is_set = "select from pg_settings where name = 'synchronous_standby_names'
            and setting = '*'";
        let patience = Patience::until("the setting holds");
        while admin.query(is_set, &[]).await.expect("an answer").is_empty() {
            patience.pause().await;
        }
        // A relay that reads the log looks once a second whether commits wait.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let client = self.fixture.client().await;
        client.batch_execute("set synchronous_commit = local").await.expect("the session lives");
        self.write(&client, TAIL.start).await;
        let waits = "select from pg_stat_activity
            where wait_event = 'SyncRep' and application_name like 'postrider%'";
        let patience = Patience::until("the relay waits for the standby");
        while admin.query(waits, &[]).await.expect("an answer").is_empty() {
            patience.pause().await;
        }
        // Time in which a relay without a barrier would publish.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Lets the standby keep up the slots of the primary, and the primary send nothing by them that the
    /// standby does not have.
    pub(crate) async fn let_slots_follow(&self) {
        let primary = connect(&self.primary.url("postgres")).await;
        let standby = connect(&self.standby.url("postgres")).await;
        let source = format!(
            "alter system set primary_conninfo = 'host=127.0.0.1 port={} user=postgres password={} dbname=postgres'",
            self.primary.port(),
            self.primary.password()
        );
        for (server, change) in [
            (&primary, "select pg_create_physical_replication_slot('standby', true)"),
            (&standby, source.as_str()),
            (&standby, "alter system set primary_slot_name = 'standby'"),
            (&standby, "alter system set hot_standby_feedback = on"),
            (&standby, "alter system set sync_replication_slots = on"),
            (&standby, "select pg_reload_conf()"),
            (&primary, "alter system set synchronized_standby_slots = 'standby'"),
            (&primary, "select pg_reload_conf()"),
        ] {
            server.batch_execute(change).await.expect("the superuser may");
        }
    }

    /// The standby has the slot as the primary has it.
    pub(crate) async fn wait_until_the_slot_followed(&self) {
        let followed = "select from pg_replication_slots
            where synced and not temporary and confirmed_flush_lsn >= $1::text::pg_lsn";
        let confirmed = "select confirmed_flush_lsn::text from pg_replication_slots
            where slot_type = 'logical' and failover";
        let primary = connect(&self.primary.url("postgres")).await;
        let standby = connect(&self.standby.url("postgres")).await;
        let place: String = primary.query_one(confirmed, &[]).await.expect("a slot").get(0);
        while standby.query(followed, &[&place]).await.expect("an answer").is_empty() {
            // A slot that moves on is looked at more often; a new one needs such a record.
            primary.batch_execute("select pg_log_standby_snapshot()").await.expect("it may");
            self.fixture.wait_published().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn publish_the_rest(mut self, relay: RelayProcess) -> History {
        let client = self.fixture.client().await;
        self.write(&client, TAIL.end).await;
        self.fixture.wait_published().await;
        assert!(relay.stop().await.success());
        self.history().await
    }
}

/// Behind a synchronous standby the tick waits for it too: what the standby does not have is visible to
/// the relay and is not published, though its writer did not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_takes_back_nothing_that_was_published() {
    let mut pair = Pair::new("promoted_sync", &[]).await;
    let relay = pair.publish_what_both_have("follow").await;
    pair.write_past_a_synchronous_standby().await;
    pair.promote();
    relay.wait_until_it_says("going on from the cursors that reached it").await;
    assert_tail_was(0, pair, relay).await;
}

/// Behind an asynchronous standby the lost tail was published: nobody can take that back. But the
/// numbers that are given out a second time hide no new event, whether the relay follows by itself
/// or an operator sets the cursors again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lost_tail_of_an_asynchronous_standby_hides_nothing() {
    let mut pair = Pair::new("promoted_async", &[]).await;
    let relay = pair.publish_a_tail_that_is_lost("follow").await;
    pair.promote();
    relay.wait_until_it_says("going on from the cursors that reached it").await;
    assert_tail_was_all(pair, relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_must_not_be_followed_is_refused_until_reanchored() {
    let mut pair = Pair::new("promoted_by_hand", &[]).await;
    let relay = pair.publish_a_tail_that_is_lost("refuse").await;
    let relay = pair.fail_over_by_hand(relay).await;
    assert_tail_was_all(pair, relay).await;
}

/// The saved cursors are old, and those in Kafka are of the timeline before: the promoted server tells where that ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_lost_nothing_repeats_nothing_that_was_committed_to_kafka() {
    let mut pair = Pair::new("promoted_exactly", &[]).await;
    pair.fixture.deliver_exactly_once();
    let flags = ["--shards", "2", "--on-promotion", "follow"];
    let lazy = [&flags[..], &["--save-interval", "10m"]].concat();
    let relay = RelayProcess::start(&pair.both(), &lazy);
    relay.wait_until_it_says("relaying").await;
    let client = pair.fixture.client().await;
    pair.write(&client, 0).await;
    let (brokers, topic) = (pair.fixture.brokers.clone(), pair.fixture.topic(AGGREGATE_TYPE));
    let seen = || read_topic(&brokers, &topic).len() as u64;
    let patience = Patience::until("all is committed to Kafka");
    while seen() < ROUNDS {
        patience.pause().await;
    }
    relay.kill();
    pair.wait_until_the_standby_has_all().await;
    pair.promote();
    let relay = RelayProcess::start(&pair.both(), &flags);
    pair.fixture.wait_published().await;
    relay.stop_well().await;
    assert_eq!(seen(), ROUNDS, "nothing came twice");
}

pub(crate) async fn assert_tail_was_all(pair: Pair, relay: RelayProcess) {
    assert_tail_was(ROUNDS, pair, relay).await;
}

/// Of what never reached the standby, so many events were published; otherwise all is well.
pub(crate) async fn assert_tail_was(published: u64, pair: Pair, relay: RelayProcess) {
    let fixture = pair.both();
    let verdict = pair.publish_the_rest(relay).await.audit_of_repeats(&fixture);
    println!("{verdict}");
    assert_eq!(verdict.missing + verdict.invented + verdict.out_of_order, 0, "{verdict}");
    assert_eq!(verdict.rolled_back, published, "the published tail: {verdict}");
    if published == 0 {
        // Nothing was published that is lost: no number is given again.
        let records = read_topic(&fixture.brokers, &fixture.topic(AGGREGATE_TYPE));
        let name = if fixture.capture == Capture::Message { "position" } else { "seq" };
        assert_growing(&records, name);
    }
}
