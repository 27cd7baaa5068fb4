//! Writers that write all the while, and the audit at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postrider::audit::Verdict;
use tokio::task::JoinSet;

use super::{Fixture, History, RelayProcess, Writer};

/// How many aggregates they write to.
const AGGREGATES: u32 = 30;

/// Writers that go on until they are told to stop.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Traffic {
    pub(crate) async fn start(fixture: &Fixture, history: &History, sessions: u32) -> Self {
        Writer::create_aggregates(fixture, AGGREGATES).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for session in 0..sessions {
            let mut writer = Writer::new(fixture, history).await;
            let stop = Arc::clone(&stop);
            writers.spawn(async move {
                let mut round = session;
                while !stop.load(Ordering::Relaxed) {
                    let aggregate = 1 + round % AGGREGATES;
                    if round % 9 == 8 {
                        writer.roll_back(&[aggregate]).await;
                    } else {
                        writer.commit(&[aggregate]).await;
                    }
                    round += 7;
                }
            });
        }
        Self { stop, writers }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("no writer panics");
        }
    }
}

/// Lets the writers end and everything be published, stops the relay, and audits.
pub(crate) async fn finish(
    traffic: Traffic,
    relay: RelayProcess,
    fixture: &Fixture,
    history: &History,
) -> Verdict {
    traffic.stop().await;
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    history.audit(fixture)
}
