//! The command that switches is killed at any of its steps, and the instances with it.

use std::process::Stdio;
use std::time::Duration;

use postrider_testkit::audit::Fate;

use super::start_relay;
use crate::support::servers::kafka;
use crate::support::traffic::Load;
use crate::support::writer::write_event;
use crate::support::{Capture, Fixture, History, Patience, RelayProcess, Traffic, start_postgres};

/// From before its first statement to long after the change.
const DELAYS_MILLIS: [u64; 8] = [10, 25, 40, 60, 90, 150, 300, 700];
/// Those of the test; each keeps the log.
const SLOTS: &str = "select from pg_replication_slots where database = current_database()";
const LIGHT: Load = Load { writers: 2, pause: Duration::from_millis(4), ..Load::FULL };

fn switch(fixture: &Fixture, to: &str) -> bool {
    let output = fixture.command().args(["capture", "switch", to]).output();
    output.expect("the binary runs").status.success()
}

/// Begins a switch and kills the command.
async fn switch_and_kill(fixture: &Fixture, to: &str, delay: Duration) {
    let mut command = fixture.command();
    command.args(["capture", "switch", to]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut switching = command.spawn().expect("the binary runs");
    tokio::time::sleep(delay).await;
    switching.kill().expect("it is ours to kill");
    switching.wait().expect("it is ours to wait for");
}

/// The server may still look for a command that was killed whether messages wait.
async fn wait_until_nobody_reads(fixture: &Fixture) {
    let client = fixture.client().await;
    let read = "select from pg_replication_slots where active";
    let patience = Patience::until("nobody reads the slot");
    while !client.query(read, &[]).await.expect("slots are listed").is_empty() {
        patience.pause().await;
    }
}

async fn mode(fixture: &Fixture) -> String {
    let mode = "select mode from postrider.capture";
    fixture.client().await.query_one(mode, &[]).await.expect("it answers").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_switches_and_instances_find_their_way() {
    let fixture = Fixture::new("log_switch_killed").await;
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, LIGHT).await;
    let mut relays = [RelayProcess::start(&fixture, &[]), RelayProcess::start(&fixture, &[])];
    relays[0].wait_until_it_says("relaying").await;
    for (round, millis) in DELAYS_MILLIS.into_iter().enumerate() {
        let to = if mode(&fixture).await == "poll" { "wal" } else { "poll" };
        switch_and_kill(&fixture, to, Duration::from_millis(millis)).await;
        // One of the two dies with it, in turn.
        let relay = std::mem::replace(&mut relays[round % 2], RelayProcess::start(&fixture, &[]));
        relay.kill();
    }
    fixture.wait_published_upto(fixture.drawn().await).await;
    // It comes to its end when nobody kills it.
    for to in ["wal", "poll"] {
        assert!(switch(&fixture, to), "switch {to}");
        assert_eq!(mode(&fixture).await, to);
    }
    let left = fixture.client().await.query(SLOTS, &[]).await.expect("slots are listed");
    assert!(left.is_empty(), "a slot is left");
    let verdict = traffic.finish(relays, &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// A switch to messages makes the slot before it changes the way: whatever was killed, what is written
/// after a switch that came to its end is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_switches_to_messages_can_be_made_again() {
    // A server of its own: making a slot waits for all transactions, also those of other tests.
    let (name, postgres) = ("log_switch_messages", start_postgres(&[]));
    let (admin, url) = (postgres.url("postgres"), postgres.url(name));
    let fixture = Fixture::on(name, &admin, url, kafka().brokers()).await;
    let (client, history) = (fixture.client().await, History::default());
    for (round, millis) in DELAYS_MILLIS.into_iter().enumerate().step_by(2) {
        switch_and_kill(&fixture, "message", Duration::from_millis(millis)).await;
        let mut finish = fixture.command();
        finish.args(["capture", "switch", "message", "--no-wait"]);
        assert!(finish.status().expect("the binary runs").success());
        let number = round as u64 * 2 + 1;
        let before = write_event(&client, Capture::Message, "a", number).await;
        let relay = start_relay(&fixture, Capture::Message).await;
        let after = write_event(&client, Capture::Message, "a", number + 1).await;
        history.ended(vec![before, after], Fate::Committed);
        fixture.clone().captured_by(Capture::Message).wait_published().await;
        relay.stop_well().await;
        switch_and_kill(&fixture, "poll", Duration::from_millis(millis)).await;
        wait_until_nobody_reads(&fixture).await;
        assert!(switch(&fixture, "poll"));
    }
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// Between its look at the way of reading and its lock, which shows in the list of locks.
const SWITCH_BEHIND_THE_READER: &str = "do $$ begin
    loop
        exit when exists (
            select from pg_locks
            where locktype = 'relation' and mode = 'ExclusiveLock' and granted
                and database = (select oid from pg_database where datname = current_database())
                and relation = 'postrider.log_reader'::regclass);
        perform pg_sleep(0.0005);
    end loop;
    update postrider.capture set mode = 'poll';
end $$";

/// The reader that begins at this moment follows like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_begins_while_others_switch_follows() {
    let fixture = Fixture::new("log_switch_begin").await;
    let (client, switcher) = (fixture.client().await, fixture.client().await);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    relay.stop_well().await;
    let switching =
        tokio::spawn(async move { switcher.batch_execute(SWITCH_BEHIND_THE_READER).await });
    let relay = RelayProcess::start(&fixture, &[]);
    switching.await.expect("it does not panic").expect("the mode can be changed");
    let patience = Patience::until("the slot is not read any more, and dropped");
    while !client.query(SLOTS, &[]).await.expect("slots are listed").is_empty() {
        patience.pause().await;
    }
    write_event(&client, Capture::Poll, "a", 1).await;
    fixture.wait_published().await;
    relay.stop_well().await;
}
