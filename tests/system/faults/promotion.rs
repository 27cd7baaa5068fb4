//! The primary dies with commits that its standby never got, and the standby is promoted.

use std::time::Duration;

use postrider::audit::Fate;
use postrider::embedded::{Postgres, PostgresOptions};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::fixture::connect;
use crate::support::servers::servers;
use crate::support::writer::{Inserted, write_event};
use crate::support::{Fixture, History, Patience, RelayProcess, start_postgres};

const POSTGRES_EXIT_CODE: i32 = 4;
const ROUNDS: u64 = 60;

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
        let brokers = servers().kafka.brokers();
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
    /// end. An operator sets the cursors anew, and a new relay starts.
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

    /// What the promoted server has was committed; the rest never happened.
    async fn history(&self) -> History {
        let client = self.fixture.client().await;
        let kept = client.query("select id from outbox", &[]).await.expect("the table is there");
        let kept: Vec<Uuid> = kept.iter().map(|row| row.get(0)).collect();
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
        let (client, capture) = (self.fixture.client().await, self.fixture.capture);
        let flags = ["--shards", "2", "--on-promotion", on_promotion, "--capture", capture.name()];
        let relay = RelayProcess::start(&self.both(), &flags);
        relay.wait_until_it_says(capture.words()).await;
        self.write(&client, 0).await;
        self.fixture.wait_published().await;
        self.wait_until_the_standby_has_all().await;
        self.cut_off().await;
        self.write(&client, 1_000).await;
        self.fixture.wait_published().await;
        relay
    }

    async fn publish_the_rest(mut self, relay: RelayProcess) -> History {
        let client = self.fixture.client().await;
        self.write(&client, 10_000).await;
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
    let client = pair.fixture.client().await;
    pair.write(&client, 0).await;
    let relay = RelayProcess::start(&pair.both(), &["--shards", "2"]);
    pair.fixture.wait_published().await;
    pair.wait_until_the_standby_has_all().await;
    pair.cut_off().await;
    let admin = connect(&pair.primary.url("postgres")).await;
    for change in ["alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"] {
        admin.batch_execute(change).await.expect("the superuser may");
    }
    let synchronous = "select setting from pg_settings where name = 'synchronous_standby_names'";
    let is_set = |row: tokio_postgres::Row| row.get::<_, String>(0) == "*";
    let patience = Patience::until("the setting holds");
    while !is_set(admin.query_one(synchronous, &[]).await.expect("an answer")) {
        patience.pause().await;
    }
    client.batch_execute("set synchronous_commit = local").await.expect("the session lives");
    pair.write(&client, 1_000).await;
    let waits = "select count(*) from pg_stat_activity
        where wait_event = 'SyncRep' and application_name like 'postrider%'";
    let patience = Patience::until("the tick waits for the standby");
    while admin.query_one(waits, &[]).await.expect("an answer").get::<_, i64>(0) == 0 {
        patience.pause().await;
    }
    // Time in which a relay without the fence would publish.
    tokio::time::sleep(Duration::from_millis(500)).await;
    pair.promote();
    relay.wait_until_it_says("going on from the cursors that reached it").await;
    let fixture = pair.both();
    let verdict = pair.publish_the_rest(relay).await.audit(&fixture);
    println!("{verdict}");
    assert!(verdict.holds(), "{verdict}");
}

/// Behind an asynchronous standby the lost tail was published: nobody can take that back. But the
/// numbers that are given out a second time hide no new event, whether the relay follows by itself
/// or an operator sets the cursors anew.
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

pub(crate) async fn assert_tail_was_all(pair: Pair, relay: RelayProcess) {
    let fixture = pair.both();
    let verdict = pair.publish_the_rest(relay).await.audit(&fixture);
    println!("{verdict}");
    assert_eq!(verdict.missing + verdict.invented + verdict.out_of_order, 0, "{verdict}");
    assert_eq!(verdict.rolled_back, ROUNDS, "the published tail: {verdict}");
}
