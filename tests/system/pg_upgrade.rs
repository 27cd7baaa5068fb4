//! A cluster that is upgraded by the real `pg_upgrade`: the written recipe, with nothing lost and nothing sent twice.
//!
//! It takes PostgreSQL's programs of a later major version, with `pg_upgrade` among them: `just pg-upgrade` brings them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use postrider_testkit::servers::{Postgres, StopMode};

use crate::handover::{ask, assert_exact, write};
use crate::support::consumer::create_topic;
use crate::support::fixture::connect;
use crate::support::servers::kafka;
use crate::support::{Fixture, Patience, RelayProcess, start_postgres};

/// Its reader has gone; the next relay makes another one.
const DROP_SLOT: &str = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
    where database = current_database()";
/// The folder of the later version's programs.
const LATER: &str = "POSTRIDER_TEST_UPGRADE_TO";

/// A cluster of the later version beside the one that it takes over.
struct LaterCluster<'a> {
    former: &'a Postgres,
    programs: PathBuf,
    folder: PathBuf,
}

impl LaterCluster<'_> {
    /// It belongs to whom the former one belongs to.
    fn make_folder(&self) {
        std::fs::create_dir(&self.folder).expect("it is not there yet");
        let owner = std::fs::metadata(self.former.data_folder()).expect("it is there");
        std::os::unix::fs::chown(&self.folder, Some(owner.uid()), Some(owner.gid()))
            .expect("it is ours to give");
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    /// As the account that owns the former one: PostgreSQL runs as nobody else.
    fn run(&self, program: &str, arguments: &[&str]) {
        let owner = std::fs::metadata(self.former.data_folder()).expect("it is there");
        let (user, group) = (owner.uid().to_string(), owner.gid().to_string());
        let ours = std::fs::metadata("/proc/self").expect("it is there").uid();
        let path = self.programs.join(program);
        let mut command = match ours {
            0 => {
                let mut command = Command::new("setpriv");
                let by = [format!("--reuid={user}"), format!("--regid={group}")];
                command.args(by).args(["--clear-groups", "--"]).arg(path);
                command
            }
            _ => Command::new(path),
        };
        let said = self.folder.join(format!("{program}.log"));
        let log = std::fs::File::create(&said).expect("it can be written");
        command.args(arguments).current_dir(&self.folder);
        command.env("PGPASSWORD", self.former.password()).env("HOME", &self.folder);
        command.stdout(log.try_clone().expect("it is a file")).stderr(log);
        let status = command.status().expect("it runs");
        let said = || std::fs::read_to_string(&said).unwrap_or_default();
        assert!(status.success(), "{program} {arguments:?}: {}", said());
    }

    /// The recipe's third step, with the former one stopped.
    fn take_over(&self, port: u16, has_checksums: bool) {
        let (former, data) = (self.former.data_folder().display().to_string(), self.data());
        // Both are to be alike, and 18 has them unless it is told.
        let checksums = if has_checksums { "--data-checksums" } else { "--no-data-checksums" };
        let cluster = ["--encoding=UTF8", "--locale=C", "--no-sync", checksums];
        let access = ["--auth=trust", "--username=postgres", "--pgdata", &data];
        self.run("initdb", &[&cluster[..], &access[..]].concat());
        let programs = self.former.binary_folder().display().to_string();
        let port_text = port.to_string();
        let from = ["--old-bindir", &programs, "--old-datadir", &former];
        let to = ["--new-datadir", &data, "--username", "postgres", "--new-port", &port_text];
        self.run("pg_upgrade", &[&from[..], &to[..]].concat());
        let folder = self.folder.display();
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c wal_level=logical \
             -c max_prepared_transactions=20"
        );
        let log = self.folder.join("server.log").display().to_string();
        self.run("pg_ctl", &["start", "-w", "-D", &data, "-l", &log, "-o", &options]);
    }
}

impl Drop for LaterCluster<'_> {
    fn drop(&mut self) {
        if Path::new(&self.data()).join("postmaster.pid").exists() {
            self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", "immediate"]);
        }
    }
}

/// By one of the ways of reading.
async fn is_upgraded(capture: &str, programs: &Path) {
    let former = start_postgres(&[("wal_level", "logical")]);
    let name = format!("pg_upgrade_{capture}");
    let (admin, url) = (former.url("postgres"), former.url(&name));
    let fixture = Fixture::on(&name, &admin, url, kafka().brokers()).await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    write(&client, 1..=300).await;
    let relay = RelayProcess::start(&fixture, &["--capture", capture]);
    relay.wait_until_it_says(if capture == "wal" { "reading the log" } else { "relaying" }).await;
    let checksums = client.query_one("show data_checksums", &[]).await.expect("it answers");
    ask(&fixture, &["migrate", "handover"], 0, "300 retained events up to seq 300 are recorded");
    relay.stop_well().await;
    // A slot that has something left to read would keep pg_upgrade from 17 or later from its work.
    let patience = Patience::until("the slot is dropped");
    while client.batch_execute(DROP_SLOT).await.is_err() {
        patience.pause().await;
    }
    former.stop(StopMode::Fast).expect("it stops");

    let folder = former.data_folder().with_file_name("later");
    let later = LaterCluster { former: &former, programs: programs.to_owned(), folder };
    later.make_folder();
    later.take_over(former.port(), checksums.get::<_, &str>(0) == "on");
    let early = RelayProcess::start(&fixture, &[]);
    assert_eq!(early.wait(std::time::Duration::from_secs(30)).await.code(), Some(4));
    ask(&fixture, &["migrate", "reanchor", "--handover"], 0, "behind 300 retained events");
    let client = connect(&fixture.database_url).await;
    write(&client, 301..=400).await;
    ask(&fixture, &["resume"], 0, "goes on");
    let relay = RelayProcess::start(&fixture, &[]);
    ask(&fixture, &["wait"], 0, "is published");
    assert_exact(&fixture, &(1..=400).collect::<Vec<_>>());
    relay.stop_well().await;
}

/// GIVEN an outbox with published events, WHEN its cluster is handed over and upgraded by `pg_upgrade`, THEN each event
/// before and after comes once, and in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_with_no_loss_and_no_repeat() {
    let Some(programs) = std::env::var_os(LATER).filter(|path| !path.is_empty()) else { return };
    for capture in ["poll", "wal"] {
        is_upgraded(capture, Path::new(&programs)).await;
    }
}
