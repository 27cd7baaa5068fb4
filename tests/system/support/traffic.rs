//! Writers that go on until they are told to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postrider_testkit::audit::Verdict;
use tokio::task::JoinSet;

use super::writer::Flaw;
use super::{Fixture, History, RelayProcess, Writer};

const AGGREGATES: u32 = 30;
/// Until PostgreSQL may be back.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What a writer's session may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Nothing: an error ends the test.
    Whole,
    /// Its server may go away: it is made again, and a commit that got no answer may have happened.
    Broken,
}

/// How the writers write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) sessions: Sessions,
    pub(crate) writers: u32,
    /// Aggregates, each about as often as another.
    pub(crate) aggregates: u32,
    /// Aggregates of one transaction.
    pub(crate) events: u32,
    /// After each transaction.
    pub(crate) pause: Duration,
    /// One of so many transactions of a writer begins with an event that cannot be published.
    pub(crate) flawed_every: Option<u32>,
}

impl Load {
    /// As fast as three writers can be.
    pub(crate) const FULL: Self = Self {
        sessions: Sessions::Whole,
        writers: 3,
        aggregates: AGGREGATES,
        events: 1,
        pause: Duration::ZERO,
        flawed_every: None,
    };

    /// Three writers whose server may go away; faults and not the processor shall be what counts.
    pub(crate) const BROKEN: Self =
        Self { sessions: Sessions::Broken, pause: Duration::from_millis(2), ..Self::FULL };
}

/// Writers at work.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    last_commit: Arc<Mutex<Instant>>,
    writers: JoinSet<()>,
}

impl Traffic {
    /// So many writers that nothing disturbs.
    pub(crate) async fn start(fixture: &Fixture, history: &History, writers: u32) -> Self {
        Self::with(fixture, history, Load { writers, ..Load::FULL }).await
    }

    pub(crate) async fn with(fixture: &Fixture, history: &History, load: Load) -> Self {
        Writer::create_aggregates(fixture, load.aggregates).await;
        let mut traffic = Self {
            stop: Arc::new(AtomicBool::new(false)),
            commits: Arc::new(AtomicU64::new(0)),
            last_commit: Arc::new(Mutex::new(Instant::now())),
            writers: JoinSet::new(),
        };
        for number in 0..load.writers {
            let session = Session {
                fixture: fixture.clone(),
                history: history.clone(),
                load,
                round: number,
                written: 0,
                stop: Arc::clone(&traffic.stop),
                commits: Arc::clone(&traffic.commits),
                last_commit: Arc::clone(&traffic.last_commit),
            };
            traffic.writers.spawn(session.run());
        }
        traffic
    }

    /// Waits until so many transactions more have been committed.
    pub(crate) async fn commits_more(&self, count: u64) {
        let wanted = self.commits.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.commits.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "the writers stand still");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether no transaction was committed for so long.
    pub(crate) fn is_disturbed_for(&self, time: Duration) -> bool {
        self.last_commit.lock().expect("no writer panicked").elapsed() > time
    }

    /// Ends the writers, waits until everything is published, stops the relays, and audits.
    pub(crate) async fn finish(
        self,
        relays: impl IntoIterator<Item = RelayProcess>,
        fixture: &Fixture,
        history: &History,
    ) -> Verdict {
        self.stop().await;
        fixture.wait_published().await;
        for relay in relays {
            relay.stop_well().await;
        }
        let verdict = history.audit(fixture);
        println!("{}: {verdict}", fixture.name);
        verdict
    }

    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("no writer panics");
        }
    }
}

struct Session {
    fixture: Fixture,
    history: History,
    load: Load,
    round: u32,
    written: u32,
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    last_commit: Arc<Mutex<Instant>>,
}

impl Session {
    async fn run(mut self) {
        while !self.has_to_stop() {
            let Err(error) = self.write().await else { return };
            assert!(self.load.sessions == Sessions::Broken, "a writer was disturbed: {error}");
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    fn has_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Writes until the end or the first error.
    async fn write(&mut self) -> Result<(), tokio_postgres::Error> {
        let mut writer = Writer::open(&self.fixture, &self.history).await?;
        while !self.has_to_stop() {
            let aggregates = self.next_aggregates();
            let flaw = self.next_flaw();
            if self.round % 9 == 8 {
                writer.try_roll_back(&aggregates, flaw).await?;
            } else {
                writer.try_commit(&aggregates, flaw).await?;
                self.commits.fetch_add(1, Ordering::Relaxed);
                *self.last_commit.lock().expect("no writer panicked") = Instant::now();
            }
            if !self.load.pause.is_zero() {
                tokio::time::sleep(self.load.pause).await;
            }
        }
        Ok(())
    }

    /// One flaw after another.
    fn next_flaw(&mut self) -> Flaw {
        self.written += 1;
        match self.load.flawed_every {
            Some(every) if self.written.is_multiple_of(2 * every) => Flaw::Headers,
            Some(every) if self.written.is_multiple_of(every) => Flaw::Size,
            Some(_) | None => Flaw::None,
        }
    }

    /// Rising, so that no two writers wait for each other.
    fn next_aggregates(&mut self) -> Vec<u32> {
        self.round = self.round.wrapping_add(7);
        let first = self.round % self.load.aggregates;
        let last = (first + self.load.events).min(self.load.aggregates);
        (first + 1..=last).collect()
    }
}
