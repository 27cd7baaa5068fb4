//! Reading the log under faults of servers, slots, networks and writers. Each test ends with the auditor.
//!
//! Promises: each fault is really injected, and work goes on when it has passed; what can happen to
//! every way of reading is shown for each. Must not: repeat what `log` and `switching` show.
//! Fails: with the auditor's verdict, or with what did not go on.

use postrider::embedded::Postgres;

use crate::support::{Capture, Fixture, History, Load, Proxy, RelayProcess, Traffic};

mod claims;
mod command;
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
