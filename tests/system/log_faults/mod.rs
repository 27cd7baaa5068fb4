//! Reading the log under faults of servers, slots, networks and writers. Each test ends with the auditor.
//!
//! Promises: each fault is really injected, and work goes on when it has passed; what can happen to
//! every way of reading is shown for each. Must not: repeat what `log` and `switching` show.
//! Fails: with the auditor's verdict, or with what did not go on.

use postrider_testkit::servers::Postgres;

use crate::support::{
    Capture, Consumed, Fixture, History, Load, Proxy, RelayProcess, Traffic, read_topic,
};

mod claims;
mod command;
mod encodings;
mod giants;
mod large;
mod parking;
mod promotion;
mod records;
mod servers;
mod slots;
mod table;
mod transactions;

const ALL: [Capture; 3] = [Capture::Poll, Capture::Wal, Capture::Message];
const LOG: [Capture; 2] = [Capture::Wal, Capture::Message];

/// One outbox at work: its writers, and the relay that reads it in one way.
struct Trial {
    fixture: Fixture,
    history: History,
    traffic: Traffic,
    relay: RelayProcess,
}

impl Trial {
    /// The relay reads already: a message that is written before is never read.
    async fn begin((fixture, relay): (Fixture, RelayProcess), load: Load) -> Self {
        let history = History::default();
        let traffic = Traffic::with(&fixture, &history, load).await;
        Self { fixture, history, traffic, relay }
    }

    /// Waits until something more is written, and all that was written is published.
    async fn go_on(&self) {
        self.traffic.commits_more(50).await;
        self.fixture.wait_published_upto(self.fixture.drawn().await).await;
    }

    /// Kills the relay, if that is not done yet, and starts one with further arguments.
    async fn restart(&mut self, arguments: &[&str]) {
        self.relay.signal("KILL");
        self.relay = start_relay_with(&self.fixture, self.fixture.capture, arguments).await;
    }

    async fn finish(self) {
        let Self { fixture, history, traffic, relay } = self;
        let verdict = traffic.finish([relay], &fixture, &history).await;
        assert!(verdict.holds(), "{}: {verdict}", fixture.name);
        assert!(verdict.committed > 0, "{}: nothing was written", fixture.name);
    }
}

/// An outbox for each way of reading on a server, each with its relay. All slots are made before anybody
/// writes: making one waits for every transaction of the server.
async fn outlets(
    name: &str,
    captures: &[Capture],
    postgres: &Postgres,
    brokers: &str,
    proxy: Option<&Proxy>,
) -> Vec<(Fixture, RelayProcess)> {
    let mut outlets = Vec::new();
    for capture in captures {
        let name = format!("{name}_{}", capture.name());
        let (admin, url) = (postgres.url("postgres"), postgres.url(&name));
        let fixture = Fixture::on(&name, &admin, url, brokers).await.captured_by(*capture);
        let relayed = proxy.map_or_else(|| fixture.clone(), |proxy| fixture.through(proxy));
        let relay = start_relay(&relayed, *capture).await;
        outlets.push((fixture, relay));
    }
    outlets
}

/// A relay that reads in this way, once it does.
async fn start_relay(fixture: &Fixture, capture: Capture) -> RelayProcess {
    start_relay_with(fixture, capture, &[]).await
}

async fn start_relay_with(fixture: &Fixture, capture: Capture, arguments: &[&str]) -> RelayProcess {
    let reads = ["--capture", capture.name(), "--shards", "2"];
    let relay = RelayProcess::start(fixture, &[&reads, arguments].concat());
    relay.wait_until_it_says(capture.words()).await;
    relay
}

/// Waits until so many events are parked; gives the reason and the detail of each, in their order.
async fn wait_parked(client: &tokio_postgres::Client, count: usize) -> Vec<(String, String)> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        let parked = "select reason, detail from postrider.parked order by turn";
        let rows = client.query(parked, &[]).await.expect("it answers");
        if rows.len() >= count {
            return rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        }
        assert!(std::time::Instant::now() < deadline, "{} of {count} are parked", rows.len());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Waits until the topic has an event of each of these aggregates.
async fn wait_arrived(fixture: &Fixture, topic: &str, keys: &[&str]) -> Vec<Consumed> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        let records = read_topic(&fixture.brokers, &fixture.topic(topic));
        let has = |key: &&&str| {
            records.iter().any(|record| record.key.as_deref() == Some(key.as_bytes()))
        };
        let Some(missing) = keys.iter().find(|key| !has(key)) else { return records };
        assert!(std::time::Instant::now() < deadline, "{missing} did not arrive");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}
