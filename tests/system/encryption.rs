//! Servers with certificates of the old ways, as `psql` gets in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use postrider::postgres::{DatabaseConfig, connect, connect_walsender};
use postrider_testkit::servers::Postgres;

use crate::support::fixture::connect as connect_openly;
use crate::support::{Patience, start_postgres};

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

/// Gives the server another certificate, and waits until it shows it.
async fn show(postgres: &Postgres, name: &str) {
    let data = postgres.data_folder();
    let owner = fs::metadata(&data).unwrap();
    for (from, to) in [(format!("{name}.pem"), "server.crt"), (format!("{name}.key"), "server.key")]
    {
        let to = data.join(to);
        fs::copy(certificate(&from), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let client = connect_openly(&postgres.url("postgres")).await;
    client.batch_execute("alter system set ssl = on").await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
    // With the certificate itself for a root only this one is believed.
    let patience = Patience::until("the server shows its new certificate");
    let root = certificate(&format!("{name}.pem"));
    let text = format!("sslmode=verify-ca sslrootcert={}", root.display());
    while way(postgres, &text).await.is_err() {
        patience.pause().await;
    }
}

/// Whether both kinds of session come in, and are encrypted.
async fn way(postgres: &Postgres, more: &str) -> Result<bool, String> {
    let port = postgres.port();
    let text = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres user=postgres \
         password={} {more}",
        postgres.password()
    );
    let database = DatabaseConfig::parse(&text).map_err(|error| error.to_string())?;
    let asked = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let session = connect(&database, "test").await.map_err(|error| error.to_string())?;
    let is_encrypted: bool = session.client().query_one(asked, &[]).await.unwrap().get(0);
    let walsender = connect_walsender(&database, "test").await;
    let mut walsender = walsender.map_err(|error| error.to_string())?;
    let rows = walsender.query(asked).await.unwrap();
    assert_eq!(rows[0][0].as_deref() == Some("t"), is_encrypted, "{more}");
    Ok(is_encrypted)
}

/// Of version 1 by itself, of version 1 by PostgreSQL's own recipe, and with the subject's name alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_the_old_ways_are_taken_in_every_mode() {
    let postgres = start_postgres(&[]);
    for (name, root) in
        [("v1_self", "v1_self"), ("recipe_server", "recipe_root"), ("cn_only", "cn_only")]
    {
        show(&postgres, name).await;
        let root = certificate(&format!("{root}.pem"));
        let root = root.display();
        for mode in ["sslmode=prefer", "sslmode=require", ""] {
            assert_eq!(way(&postgres, mode).await, Ok(true), "{name} {mode}");
        }
        for mode in ["require", "verify-ca", "verify-full"] {
            for version in ["TLSv1.2", "TLSv1.3"] {
                let client = connect_openly(&postgres.url("postgres")).await;
                let set = format!("alter system set ssl_max_protocol_version = '{version}'");
                client.batch_execute(&set).await.unwrap();
                client.batch_execute("select pg_reload_conf()").await.unwrap();
                let text = format!("sslmode={mode} sslrootcert={root}");
                assert_eq!(way(&postgres, &text).await, Ok(true), "{name} {mode} {version}");
            }
        }
        let other = certificate("other.pem");
        let text = format!("sslmode=verify-ca sslrootcert={}", other.display());
        assert!(way(&postgres, &text).await.is_err(), "{name} by another root");
    }
}
