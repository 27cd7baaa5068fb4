//! The order of the demo's steps, once the servers run.
//!
//! Promises: whatever fails, the shop is closed first, then the relay, then the consumer, and the
//! verdict on what was done is given. Must not: draw, write or judge itself.
//! Fails: when the tables or topics cannot be made, or a part cannot be started.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::demo::arguments::DemoArguments;
use crate::demo::check::Check;
use crate::demo::consumer::Consumer;
use crate::demo::display::{Display, Subjects};
use crate::demo::interrupt::Interrupt;
use crate::demo::output;
use crate::demo::picture::DemoPhase;
use crate::demo::relay_task::RelayTask;
use crate::demo::servers::Servers;
use crate::demo::shop::{Shop, TOPICS};
use crate::demo::summary::DemoFindings;
use crate::demo::tables;
use crate::demo::warnings::DemoWarnings;
use crate::demo::words::DemoEnd;
use crate::error::{Error, ErrorKind, Result};
use postrider_testkit::figures::grouped;

/// Ages of the first seconds are left out: caches, producers and Java are cold.
const WARM_UP: Duration = Duration::from_secs(2);
/// When the shop has closed, something must arrive within this time, again and again.
const STALL_DEADLINE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// What came of it: what was found, and what went wrong.
#[derive(Debug)]
pub(super) struct DemoOutcome {
    pub(super) findings: DemoFindings,
    pub(super) troubles: Vec<String>,
}

/// What went wrong; several parts often have the same words for it.
#[derive(Debug, Default)]
struct Troubles(Vec<String>);

impl Troubles {
    fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            let words = error.to_string();
            if !self.0.contains(&words) {
                self.0.push(words);
            }
        }
    }

    fn course(&self) -> DemoEnd {
        if self.0.is_empty() { DemoEnd::Finished } else { DemoEnd::BrokenOff }
    }
}

/// The parts that run at the same time.
struct DemoParts {
    check: Arc<Check>,
    consumer: Consumer,
    relay: RelayTask,
    shop: Shop,
}

/// Runs the demo on these servers, from the empty database to the verdict.
pub(super) async fn run(
    arguments: &DemoArguments,
    servers: &Servers,
    interrupt: &Interrupt,
    warnings: &DemoWarnings,
) -> Result<DemoOutcome> {
    let url = servers.database_url();
    tokio::try_join!(tables::make(&url), servers.create_topics(TOPICS))?;
    output::progress("made the outbox (postrider migrate up), the shop's tables and the topics");
    let mut begin = Instant::now();
    let check = Arc::new(Check::new(begin + WARM_UP));
    let consumer = Consumer::start(servers.broker.brokers(), TOPICS, Arc::clone(&check))?;
    let relay = RelayTask::start(&url, servers.broker.brokers(), arguments.shards)?;
    let shop = Shop::open(&url, arguments.rate, Arc::clone(&check)).await?;
    output::progress(&format!(
        "orders for {} s at {} events/s; one transaction in twenty is rolled back: never published",
        arguments.seconds,
        grouped(u64::from(arguments.rate))
    ));
    begin = Instant::now();
    let subjects = Subjects {
        servers: servers.names(),
        check: Arc::clone(&check),
        monitor: relay.monitor(),
        lateness: shop.lateness(),
        warnings: warnings.clone(),
        interrupt: interrupt.clone(),
    };
    let display = Display::open(arguments, begin, subjects)?;
    let parts = DemoParts { check, consumer, relay, shop };
    let end = begin + Duration::from_secs(u64::from(arguments.seconds));
    let mut outcome = parts.run(display, end, interrupt).await?;
    outcome.findings.servers = servers.names();
    Ok(outcome)
}

impl DemoParts {
    async fn run(
        mut self,
        mut display: Display,
        end: Instant,
        interrupt: &Interrupt,
    ) -> Result<DemoOutcome> {
        let mut troubles = Troubles::default();
        troubles.note(display.until(DemoPhase::Writing, self.write(end, interrupt)).await?);
        let Self { check, consumer, mut relay, shop } = self;
        troubles.note(display.until(DemoPhase::Draining, shop.close()).await?);
        if troubles.course() == DemoEnd::Finished {
            let drained = drain(&check, &consumer, &mut relay, interrupt);
            troubles.note(display.until(DemoPhase::Draining, drained).await?);
        }
        troubles.note(display.until(DemoPhase::Stopping, relay.stop()).await?);
        troubles.note(display.until(DemoPhase::Stopping, consumer.finish()).await?);
        let peak_rate = display.close();
        let (totals, verdict, ages) = check.conclude();
        let course = troubles.course();
        let findings =
            DemoFindings { servers: String::new(), totals, verdict, ages, course, peak_rate };
        Ok(DemoOutcome { findings, troubles: troubles.0 })
    }

    /// Lets the shop write until the end, the word to stop, or the first failure.
    async fn write(&mut self, end: Instant, interrupt: &Interrupt) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep_until(end.into()) => Ok(()),
            () = interrupt.wait() => Ok(()),
            error = self.shop.failure() => Err(error),
            error = self.relay.failure() => Err(error),
            error = ended(&self.consumer) => Err(error),
        }
    }
}

/// Waits until every committed event has arrived. The word that closed the shop does not end this;
/// one that comes now does.
async fn drain(
    check: &Check,
    consumer: &Consumer,
    relay: &mut RelayTask,
    interrupt: &Interrupt,
) -> Result<()> {
    let was_said = interrupt.was_said();
    tokio::select! {
        () = empty(check) => Ok(()),
        error = relay.failure() => Err(error),
        error = ended(consumer) => Err(error),
        () = interrupt.wait(), if !was_said => Err(Error::new(
            ErrorKind::Internal,
            "interrupted while the relay worked off what was left",
        )),
    }
}

/// Waits until the backlog is empty, or nothing has arrived for too long: what is missing then is
/// the verdict's to say.
async fn empty(check: &Check) {
    let (mut least, mut changed_at) = (u64::MAX, Instant::now());
    loop {
        let backlog = check.backlog_events();
        if backlog < least {
            (least, changed_at) = (backlog, Instant::now());
        }
        if backlog == 0 || changed_at.elapsed() > STALL_DEADLINE {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the consumer ends by itself; why it did is told when it is finished.
async fn ended(consumer: &Consumer) -> Error {
    while !consumer.has_ended() {
        tokio::time::sleep(LOOK).await;
    }
    Error::new(ErrorKind::Internal, "the demo's consumer ended too early")
}
