//! A database that is copied or restored on the server of the original: its cursors are those of the original.

use std::path::Path;
use std::time::Duration;

use crate::handover::{ask, assert_exact, run_tool, write};
use crate::support::consumer::create_topic;
use crate::support::fixture::{connect, empty_database};
use crate::support::servers::postgres;
use crate::support::{Fixture, RelayProcess};

const REFUSAL: &str = "this is a copy or a restore";

/// All that asks a cursor says so, and nobody says that nothing waits.
async fn is_refused(fixture: &Fixture) {
    ask(fixture, &["check"], 4, REFUSAL);
    let relay = RelayProcess::start(fixture, &[]);
    relay.wait_until_it_says(REFUSAL).await;
    assert_eq!(relay.wait(Duration::from_secs(60)).await.code(), Some(4));
    let output = fixture.command().arg("status").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!said.contains("nothing waits"), "{said}");
}

async fn published(name: &str) -> Fixture {
    let fixture = Fixture::new(name).await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    write(&fixture.client().await, 1..=20).await;
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_on_the_same_server_is_refused_and_the_original_goes_on() {
    let fixture = published("copied_from").await;
    let admin = connect(&postgres().url("postgres")).await;
    let copy = "create database copied_to template copied_from";
    admin.batch_execute(copy).await.expect("nobody works with the original");
    let copy = Fixture { database_url: postgres().url("copied_to"), ..fixture.clone() };
    is_refused(&copy).await;
    write(&fixture.client().await, 21..=40).await;
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    assert_exact(&fixture, &(1..=40).collect::<Vec<_>>());

    // What is declared to be the one that goes on repeats what it retains.
    ask(&copy, &["migrate", "reanchor"], 0, "20");
    let relay = RelayProcess::start(&copy, &[]);
    copy.wait_published().await;
    ask(&copy, &["check"], 0, "no problems");
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_restored_in_its_own_place_is_refused() {
    let fixture = published("restored_in_place").await;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("restored_in_place.dump");
    let file = file.to_str().expect("it is text").to_owned();
    let url = fixture.database_url.as_str();
    run_tool(postgres(), "pg_dump", &["--format=custom", "--file", &file, "--dbname", url]);
    write(&fixture.client().await, 21..=40).await;
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    let restore = ["--exit-on-error", "--clean", "--if-exists", "--dbname", url, &file];
    run_tool(postgres(), "pg_restore", &restore);
    is_refused(&fixture).await;
}

/// Tables without what postrider writes into them are told from tables of somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_without_rows_is_told_as_such() {
    let fixture = Fixture::new("copied_bare_from").await;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("copied_bare.dump");
    let file = file.to_str().expect("it is text").to_owned();
    let dump = ["--schema-only", "--format=custom", "--file", &file, "--dbname"];
    run_tool(postgres(), "pg_dump", &[&dump[..], &[&fixture.database_url]].concat());
    let url = empty_database("copied_bare_to").await;
    run_tool(postgres(), "pg_restore", &["--exit-on-error", "--dbname", &url, &file]);
    let copy = Fixture { database_url: url, ..fixture };
    for command in [&["check"] as &[&str], &["migrate", "up"], &["run"], &["status"]] {
        ask(&copy, command, 6, "was copied without its rows");
    }
}
