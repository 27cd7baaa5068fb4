//! Replication sessions on servers of one's own: every way in, and servers that go away.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider::error::{Error, ErrorKind, Result};
use postrider::postgres::{
    DatabaseConfig, Everything, Frame, LogStream, Walsender, connect_walsender,
};
use postrider_testkit::servers::{Postgres, StopMode};
use tokio::time::{Instant, sleep, timeout};

use crate::support::fixture::connect;
use crate::support::start_postgres;

const PATIENCE: Duration = Duration::from_secs(30);

/// # Errors
/// When the server refuses.
async fn enter(text: &str) -> Result<Walsender> {
    connect_walsender(&DatabaseConfig::parse(text).unwrap(), "test").await
}

/// How a session came in: encrypted or not.
async fn way(text: &str) -> String {
    let mut session = enter(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let asked = "select current_user || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()";
    session.query(asked).await.unwrap()[0][0].clone().unwrap()
}

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

/// Gives the server a certificate, a role for each method, and lines that let them in by it.
async fn prepare(postgres: &Postgres) {
    let data = postgres.data_folder();
    let owner = fs::metadata(&data).unwrap();
    for (from, to) in [("server.pem", "server.crt"), ("server.key", "server.key")] {
        let to = data.join(to);
        fs::copy(certificate(from), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let rules = data.join("pg_hba.conf");
    let lines = "host all trusted 127.0.0.1/32 trust\nhost all clear 127.0.0.1/32 password\n\
                 host all hashed 127.0.0.1/32 md5\nhostssl all tls_only 127.0.0.1/32 scram-sha-256\n\
                 host all tls_only 127.0.0.1/32 reject\n";
    let rest = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("{lines}{rest}")).unwrap();
    let client = connect(&postgres.url("postgres")).await;
    for statement in [
        "alter system set ssl = on",
        "create role trusted login replication",
        "create role clear login replication password 'right'",
        "create role tls_only login replication password 'right'",
        "set password_encryption = md5",
        "create role hashed login replication password 'right'",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    // The server reads its files when it gets to it.
    let begin = Instant::now();
    let port = postgres.port();
    let new = format!("host=127.0.0.1 port={port} dbname=postgres user=trusted sslmode=require");
    while enter(&new).await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "the server does not take its new settings");
        sleep(Duration::from_millis(20)).await;
    }
}

fn assert_says(error: &Error, kind: ErrorKind, cause: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(cause), "{cause} in {error}");
    assert!(error.remedy().is_some(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_in_is_taken() {
    let postgres = start_postgres(&[("shared_buffers", "16MB")]);
    prepare(&postgres).await;
    let port = postgres.port();
    let server = format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres");
    let root = certificate("server.pem");
    let verified = format!("sslmode=verify-full sslrootcert={}", root.display());

    for (who, encrypted) in [
        ("user=trusted sslmode=disable", "trusted false"),
        ("user=trusted sslmode=prefer", "trusted true"),
        ("user=clear password=right sslmode=disable", "clear false"),
        ("user=hashed password=right sslmode=disable", "hashed false"),
        ("user=hashed password=right sslmode=require", "hashed true"),
        // The first try is refused by pg_hba.conf, the second is encrypted.
        ("user=tls_only password=right sslmode=allow", "tls_only true"),
        ("user=tls_only password=right channel_binding=require", "tls_only true"),
        ("user=tls_only password=right channel_binding=disable", "tls_only true"),
    ] {
        assert_eq!(way(&format!("{server} {who}")).await, encrypted, "{who}");
    }
    let by_name = format!("{server} user=tls_only password=right {verified}");
    assert_eq!(way(&by_name).await, "tls_only true");
    let by_address =
        format!("host=127.0.0.1 port={port} dbname=postgres user=tls_only password=right");
    assert_eq!(way(&format!("{by_address} {verified}")).await, "tls_only true");
    assert_eq!(way(&postgres.socket_url("postgres")).await, "postgres false");
    // A closed port is passed by.
    let second = format!("host=127.0.0.1,127.0.0.1 port=1,{port} dbname=postgres user=trusted");
    assert_eq!(way(&second).await, "trusted true");

    let refused = ErrorKind::PostgresRefused;
    let other = certificate("other.pem");
    let other = format!("sslmode=verify-ca sslrootcert={}", other.display());
    let everyone = [
        ("user=clear password=wrong", "28P01"),
        ("user=hashed password=wrong", "28P01"),
        ("user=tls_only password=wrong", "28P01"),
        ("user=tls_only password=right sslmode=disable", "28000"),
        ("user=clear password=right channel_binding=require", "channel binding"),
        ("user=hashed password=right channel_binding=require", "channel binding"),
        ("user=trusted channel_binding=require", "channel binding"),
        (&format!("user=trusted {other}"), "TLS handshake"),
    ];
    for (who, cause) in everyone {
        let error = enter(&format!("{server} {who}")).await.unwrap_err();
        assert_says(&error, refused, cause);
    }
    servers_ask_only_as_is_required(&postgres, &server).await;
}

/// With `require_auth` both kinds of session answer a server only if it asks in the right way.
async fn servers_ask_only_as_is_required(postgres: &Postgres, server: &str) {
    let port = postgres.port();
    let places = [
        format!("{server} sslmode=disable"),
        format!("{server} sslmode=prefer"),
        format!("{server} sslmode=require"),
        format!("hostaddr=127.0.0.1 port={port} dbname=postgres sslmode=disable"),
    ];
    let (none, clear, md5, scram) = ("none", "password", "md5", "scram-sha-256");
    for place in &places {
        for (who, asks) in [("trusted", none), ("clear", clear), ("hashed", md5)] {
            let who = format!("{place} user={who} password=right");
            for method in [none, clear, md5, scram] {
                let fits = method == asks;
                requires(&who, method, fits).await;
                requires(&who, &format!("!{method}"), !fits).await;
            }
            requires(&who, &format!("gss,{asks}"), true).await;
            requires(&who, "!sspi,!oauth", true).await;
        }
    }
    let scrams = format!("{} user=tls_only password=right", places[2]);
    let folder = postgres.socket_folder();
    let socket = format!("host={} port={port} dbname=postgres", folder.display());
    let local = format!("{socket} user=postgres password={}", postgres.password());
    let writes = format!("{local} target_session_attrs=primary");
    for who in [&scrams, &local, &writes] {
        for (list, fits) in [(scram, true), ("!scram-sha-256", false), ("none,md5", false)] {
            requires(who, list, fits).await;
        }
    }
    requires(&format!("{scrams} channel_binding=require"), scram, true).await;
}

async fn requires(text: &str, list: &str, fits: bool) {
    let text = format!("{text} require_auth={list}");
    let database = DatabaseConfig::parse(&text).unwrap();
    let session = postrider::postgres::connect(&database, "test").await.map(|_| ());
    for opened in [session, enter(&text).await.map(|_| ())] {
        match opened {
            Ok(()) => assert!(fits, "{text}"),
            Err(error) => {
                assert!(!fits, "{text}: {error}");
                assert_says(&error, ErrorKind::PostgresRefused, "but require_auth takes only");
            }
        }
    }
}

/// Frames until the server goes away, everything confirmed.
async fn until_the_end(mut stream: LogStream) -> Error {
    loop {
        match timeout(PATIENCE, stream.next(&mut Everything)).await.expect("an end in time") {
            Ok(Frame::KeepAlive { end, .. }) => match stream.confirm(end, end).await {
                Ok(()) => {}
                Err(error) => return error,
            },
            Ok(Frame::Data { .. } | Frame::Paused) => {}
            Err(error) => return error,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_is_told() {
    let postgres = start_postgres(&[("shared_buffers", "16MB")]);
    let url = postgres.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("create publication everything for all tables").await.unwrap();
    let mut session = enter(&url).await.unwrap();
    session.query("CREATE_REPLICATION_SLOT s LOGICAL pgoutput NOEXPORT_SNAPSHOT").await.unwrap();
    let start = "START_REPLICATION SLOT s LOGICAL 0/0 \
                 (proto_version '1', publication_names 'everything')";

    let stream = session.stream(start).await.unwrap();
    let end = tokio::spawn(until_the_end(stream));
    postgres.kill().unwrap();
    assert_says(&end.await.unwrap(), ErrorKind::PostgresUnavailable, "");
    assert_says(&enter(&url).await.unwrap_err(), ErrorKind::PostgresUnavailable, "refused");

    postgres.start_again().unwrap();
    let stream = enter(&url).await.unwrap().stream(start).await.unwrap();
    let end = tokio::spawn(until_the_end(stream));
    // The server waits until we have confirmed what it wrote at the end.
    postgres.stop(StopMode::Fast).unwrap();
    assert_says(&end.await.unwrap(), ErrorKind::PostgresUnavailable, "the connection has ended");
}
