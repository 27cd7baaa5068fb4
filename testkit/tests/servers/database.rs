//! PostgreSQL: start, stop, crash, standby.

use crate::{holds_within, lives, own_folder, progress};
use postrider_testkit::servers::{
    EmbeddedError, Host, Postgres, PostgresOptions, PostgresSource, StopMode,
};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

fn small() -> PostgresOptions {
    let settings = vec![("shared_buffers".to_owned(), "16MB".to_owned())];
    PostgresOptions { settings, ..PostgresOptions::default() }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // The connection ends with the client or the server; the query then says so.
    tokio::spawn(connection);
    client
}

async fn text(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn starts_and_leaves_nothing() {
    let postgres = Postgres::start(small(), &progress).unwrap();
    let data = postgres.data_folder();
    let process = postgres.process_id().unwrap().unwrap();
    for url in [postgres.url("postgres"), postgres.socket_url("postgres")] {
        let client = connect(&url).await;
        let settings = "select current_setting('wal_level') || ' ' || current_setting('fsync') \
                        || ' ' || current_setting('max_prepared_transactions') || ' ' \
                        || current_setting('shared_buffers') || ' ' \
                        || current_setting('server_encoding')";
        assert_eq!(text(&client, settings).await, "logical on 20 16MB UTF8");
    }
    let wrong = postgres.url("postgres").replace(postgres.password(), "wrong");
    let error = tokio_postgres::connect(&wrong, NoTls).await.err().unwrap();
    assert_eq!(error.code().map(|code| code.code()), Some("28P01"), "{error}");
    drop(postgres);
    assert!(!lives(process), "the server is gone");
    assert!(!own_folder(&data).exists(), "the folder is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn committed_rows_survive_every_end() {
    let postgres = Postgres::start(small(), &progress).unwrap();
    let url = postgres.url("postgres");
    connect(&url).await.batch_execute("create table kept (end_of text)").await.unwrap();
    // `None` is a kill.
    let ends = [Some(StopMode::Smart), Some(StopMode::Fast), Some(StopMode::Immediate), None];
    for (count, end) in ends.into_iter().enumerate() {
        let name = format!("{end:?}");
        let client = connect(&url).await;
        client.execute("insert into kept values ($1)", &[&name]).await.unwrap();
        drop(client);
        end.map_or_else(|| postgres.kill(), |mode| postgres.stop(mode)).unwrap();
        assert_eq!(postgres.process_id().unwrap(), None);
        postgres.start_again().unwrap();
        let client = connect(&url).await;
        assert_eq!(
            text(&client, "select count(*)::text from kept").await,
            (count + 1).to_string(),
            "after {name}"
        );
    }
    assert!(matches!(postgres.start_again(), Err(EmbeddedError::AlreadyRunning { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_server_leaves_no_backend() {
    let postgres = Postgres::start(small(), &progress).unwrap();
    let client = connect(&postgres.url("postgres")).await;
    let backend = text(&client, "select pg_backend_pid()::text").await.parse().unwrap();
    postgres.freeze().unwrap();
    let answer = client.query_one("select 1", &[]);
    assert!(tokio::time::timeout(Duration::from_millis(300), answer).await.is_err(), "frozen");
    postgres.thaw().unwrap();
    assert_eq!(text(&client, "select 'thawed'").await, "thawed");
    postgres.kill().unwrap();
    assert!(!lives(backend));
    assert!(matches!(postgres.freeze(), Err(EmbeddedError::NotRunning { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn standby_streams_and_promotes() {
    let primary = Postgres::start(small(), &progress).unwrap();
    let client = connect(&primary.url("postgres")).await;
    client.batch_execute("create table streamed (number int)").await.unwrap();
    let standby = Postgres::standby_of(&primary, PostgresOptions::default(), &progress).unwrap();
    client.batch_execute("insert into streamed values (7)").await.unwrap();
    let reader = connect(&standby.url("postgres")).await;
    assert_eq!(text(&reader, "select pg_is_in_recovery()::text").await, "true");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while text(&reader, "select count(*)::text from streamed").await != "1" {
        assert!(tokio::time::Instant::now() < deadline, "the row was not streamed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    primary.kill().unwrap();
    standby.promote().unwrap();
    reader.batch_execute("insert into streamed values (8)").await.unwrap();
    assert!(matches!(primary.promote(), Err(EmbeddedError::Failed { .. })));
}

#[test]
fn refused_setting_shows_the_servers_words() {
    let settings = vec![("shared_buffers".to_owned(), "several".to_owned())];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let error = Postgres::start(options, &progress).unwrap_err().to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\""), "{error}");
}

#[test]
fn taken_port_is_told() {
    let postgres = Postgres::start(small(), &progress).unwrap();
    postgres.stop(StopMode::Fast).unwrap();
    let other = std::net::TcpListener::bind(("127.0.0.1", postgres.port())).unwrap();
    let error = postgres.start_again().unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
    drop(other);
    postgres.start_again().unwrap();
}

#[test]
fn missing_server_names_the_package() {
    let host = Host { program_folders: Vec::new(), ..Host::default() };
    let options =
        PostgresOptions { host, source: PostgresSource::System, ..PostgresOptions::default() };
    let error = Postgres::start(options, &progress).unwrap_err();
    assert!(error.is_missing_part());
    assert!(error.to_string().contains("install postgresql (Debian)"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn fetched_server_runs() {
    let source = PostgresSource::Fetched;
    let postgres = Postgres::start(PostgresOptions { source, ..small() }, &progress).unwrap();
    let client = connect(&postgres.url("postgres")).await;
    let version = text(&client, "select current_setting('server_version')").await;
    assert_eq!(version, postgres.version());
    assert!(version.starts_with("17."), "{version}");
}

#[test]
fn server_that_ended_by_itself_is_noticed() {
    let postgres = Postgres::start(small(), &progress).unwrap();
    let process = postgres.process_id().unwrap().unwrap();
    let status = std::process::Command::new("/bin/sh")
        .args(["-c", "kill -s INT \"$1\"", "sh", &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
    let ended = || postgres.process_id().unwrap().is_none();
    assert!(holds_within(Duration::from_secs(10), ended));
    postgres.start_again().unwrap();
}
