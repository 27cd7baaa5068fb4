//! PostgreSQL's disk is full.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use postrider_testkit::servers::{Host, Postgres, PostgresOptions};

use crate::support::servers::kafka;
use crate::support::{Fixture, History, Load, Patience, RelayProcess, Traffic, mostly_waits};

/// A new cluster takes about 45 MB, its log some segments of 16 MB.
const DISK_MEGABYTES: u64 = 160;

/// A small file system of our own; dropped, it is gone.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// None where this user may not mount.
    fn new() -> Option<Self> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let folder = PathBuf::from(format!("/tmp/postrider-disk-{}", &name[..8]));
        std::fs::create_dir(&folder).expect("the name is new");
        let size = format!("size={DISK_MEGABYTES}m,mode=0755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|output| output.status.success());
        if mounted {
            return Some(Self { folder });
        }
        std::fs::remove_dir(&folder).expect("nothing was mounted there");
        None
    }

    fn free_bytes(&self) -> u64 {
        let output = Command::new("df")
            .args(["--output=avail", "-B1"])
            .arg(&self.folder)
            .output()
            .expect("df runs");
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("df tells a number")
    }

    /// Takes all but this much.
    fn fill(&self, left_bytes: u64) {
        let mut ballast = File::create(self.ballast()).expect("there is room for a name");
        let mut room = self.free_bytes().saturating_sub(left_bytes);
        let piece = vec![0; 1 << 20];
        while room > 0 {
            let now = usize::try_from(room).map_or(piece.len(), |room| room.min(piece.len()));
            std::io::Write::write_all(&mut ballast, &piece[..now]).expect("there is room");
            room -= now as u64;
        }
    }

    fn relieve(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.display());
            return;
        }
        if let Err(error) = std::fs::remove_dir(&self.folder) {
            eprintln!("{} stays: {error}", self.folder.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_postgresql() {
    mostly_waits();
    let Some(disk) = SmallDisk::new() else {
        println!(
            "NOT TESTED: this user may not mount a small file system; nothing is said of full disks"
        );
        return;
    };
    let settings = [("max_wal_size", "48MB"), ("min_wal_size", "32MB"), ("wal_keep_size", "0")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let host = Host { temporary_folders: vec![disk.folder.clone()], ..Host::default() };
    let options = PostgresOptions { host, settings, ..PostgresOptions::default() };
    let postgres = Postgres::start(options, &|line| println!("{line}"))
        .unwrap_or_else(|missing| panic!("{missing}"));
    let url = postgres.url("disk_full");
    let brokers = kafka().brokers();
    let fixture = Fixture::on("disk_full", &postgres.url("postgres"), url, brokers).await;
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, Load { events: 5, ..Load::BROKEN }).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    traffic.commits_more(100).await;
    for _ in 0..2 {
        disk.fill(1 << 20);
        wait_until_it_hurts(&postgres, &traffic).await;
        disk.relieve();
        recover(&postgres, &traffic).await;
        fixture.wait_published_upto(fixture.drawn().await).await;
    }
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
    drop(postgres);
}

/// Until writers write again. The server may give up after a look at it, too.
async fn recover(postgres: &Postgres, traffic: &Traffic) {
    let patience = Patience::until("the writers go on");
    let writes = traffic.commits_more(100);
    tokio::pin!(writes);
    loop {
        if postgres.process_id().expect("the system tells").is_none() {
            postgres.start_again().expect("it recovers");
        }
        tokio::select! {
            () = &mut writes => return,
            () = patience.pause() => {}
        }
    }
}

/// Until writers cannot write, or the server has given up.
async fn wait_until_it_hurts(postgres: &Postgres, traffic: &Traffic) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let is_down = postgres.process_id().expect("the system tells").is_none();
        if is_down || traffic.is_disturbed_for(Duration::from_secs(1)) {
            println!("the disk is full; the server is {}", if is_down { "down" } else { "up" });
            return;
        }
        assert!(Instant::now() < deadline, "the disk is never full");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
