//! What relays cost that have nothing to do, each on a database of its own of one server.
//!
//! `just idle 50` measures 50 of them for a minute; without a word two are measured for some seconds.

use std::time::{Duration, Instant};

use crate::support::{Fixture, RelayProcess, start_postgres};

const DATABASES: &str = "POSTRIDER_TEST_IDLE_DATABASES";
const SECONDS: &str = "POSTRIDER_TEST_IDLE_SECONDS";
/// What each may take of a core in a debug build, on a machine that does other things.
const CORE_SHARE_MAX: f64 = 0.25;
const MEMORY_KILOBYTES_MAX: u64 = 200_000;
/// Sessions of a relay with one shard, and of what looks meanwhile.
const SESSIONS: usize = 12;

fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().filter(|text| !text.is_empty()).map_or(usual, |text| {
        text.parse().unwrap_or_else(|cause| panic!("{variable}={text}: {cause}"))
    })
}

/// User and system time of all processes of a server, by its first one.
fn server_cpu(first: u32) -> Duration {
    let of_process = |id: u32| {
        // One that has just ended counts nothing.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
        let fields: Vec<u64> = fields.split(' ').skip(11).take(2).flat_map(str::parse).collect();
        fields.iter().sum::<u64>()
    };
    let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
    let children = children.expect("Linux tells them");
    let children = children.split_whitespace().flat_map(str::parse::<u32>);
    let ticks: u64 = children.chain([first]).map(of_process).sum();
    Duration::from_millis(ticks * 10)
}

/// GIVEN as many databases as were asked for, each with a relay, and no events WHEN some time passes THEN none of them
/// takes more than a small share of a core.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_at_rest_cost_little_on_many_databases() {
    let (databases, seconds) = (number(DATABASES, 2), number(SECONDS, 3));
    let sessions = (databases * SESSIONS + 20).to_string();
    let postgres = start_postgres(&[("max_connections", &sessions)]);
    let brokers = crate::support::servers::kafka().brokers().to_owned();
    let mut relays = Vec::new();
    for place in 0..databases {
        let name = format!("idle_{place}");
        let (admin, url) = (postgres.url("postgres"), postgres.url(&name));
        let fixture = Fixture::on(&name, &admin, url, &brokers).await;
        relays.push(RelayProcess::start(&fixture, &["--shards", "1"]));
    }
    for relay in &relays {
        relay.wait_until_it_says("relaying").await;
    }
    // What is done once is done.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = postgres.process_id().expect("it can be asked").expect("it runs");
    let (begin, server) = (Instant::now(), server_cpu(first));
    let before: Vec<Duration> = relays.iter().map(RelayProcess::cpu_time).collect();
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let passed = begin.elapsed().as_secs_f64();
    let share = |time: Duration| time.as_secs_f64() / passed;
    let server = share(server_cpu(first).saturating_sub(server));
    let shares: Vec<f64> =
        relays.iter().zip(before).map(|(relay, before)| share(relay.cpu_time() - before)).collect();
    let memory: Vec<u64> = relays.iter().map(RelayProcess::peak_memory_kilobytes).collect();
    println!(
        "{databases} databases, {passed:.0} s at rest: each relay {:.2} % of a core (most {:.2} %) and {} kB at most; \
         PostgreSQL {:.2} % of a core for all, {:.2} % for each",
        100.0 * shares.iter().sum::<f64>() / databases as f64,
        100.0 * shares.iter().copied().fold(0.0, f64::max),
        memory.iter().max().expect("there is one"),
        100.0 * server,
        100.0 * server / databases as f64,
    );
    assert!(shares.iter().all(|share| *share < CORE_SHARE_MAX), "{shares:?}");
    assert!(memory.iter().all(|kilobytes| *kilobytes < MEMORY_KILOBYTES_MAX), "{memory:?}");
    for relay in relays {
        relay.stop_well().await;
    }
}
