//! Reading the log under faults of servers, slots, networks and writers. Each test ends with the auditor.
//!
//! Promises: each fault is really injected, and work goes on when it has passed; what can happen to
//! every way of reading is shown for each. Must not: repeat what `log` and `switching` show.
//! Fails: with the auditor's verdict, or with what did not go on.

use crate::support::{Capture, Fixture, History, Load, RelayProcess, Traffic};

mod servers;

/// One outbox at work: its writers, and the relay that reads it in one way.
struct Trial {
    fixture: Fixture,
    history: History,
    traffic: Traffic,
    relay: RelayProcess,
}

impl Trial {
    /// Starts the relay, then the writers: a message that is written before is never read.
    async fn start(fixture: Fixture, relayed: &Fixture, load: Load) -> Self {
        let relay = start_relay(relayed, fixture.capture).await;
        let history = History::default();
        let traffic = Traffic::with(&fixture, &history, load).await;
        Self { fixture, history, traffic, relay }
    }

    /// Waits until something more is written, and all that was written is published.
    async fn go_on(&self) {
        self.traffic.commits_more(50).await;
        self.fixture.wait_published_upto(self.fixture.drawn().await).await;
    }

    async fn finish(self) {
        let Self { fixture, history, traffic, relay } = self;
        let verdict = traffic.finish([relay], &fixture, &history).await;
        assert!(verdict.holds(), "{}: {verdict}", fixture.name);
        assert!(verdict.committed > 0, "{}: nothing was written", fixture.name);
    }
}

/// A relay that reads in this way, once it does.
async fn start_relay(fixture: &Fixture, capture: Capture) -> RelayProcess {
    let relay = RelayProcess::start(fixture, &["--capture", capture.name(), "--shards", "2"]);
    relay.wait_until_it_says(capture.words()).await;
    relay
}
