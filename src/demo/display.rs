//! Shows the running demo, five times per second, while work goes on.
//!
//! Promises: work is never held up by a view. Must not: decide when the demo ends, except that it
//! passes on the key to stop. Fails: when the terminal or standard output is gone.

use std::future::Future;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::demo::arguments::DemoArguments;
use crate::demo::check::Check;
use crate::demo::interrupt::Interrupt;
use crate::demo::live::LiveView;
use crate::demo::picture::{DemoPhase, Picture, RateMeter};
use crate::demo::plain::PlainView;
use crate::demo::shop::Lateness;
use crate::demo::warnings::DemoWarnings;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;

const FRAME: Duration = Duration::from_millis(200);

#[derive(Debug)]
enum View {
    Plain(PlainView),
    Live(LiveView),
}

/// What the display looks at.
#[derive(Debug)]
pub(super) struct Subjects {
    pub(super) servers: String,
    pub(super) check: Arc<Check>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) lateness: Lateness,
    pub(super) warnings: DemoWarnings,
    pub(super) interrupt: Interrupt,
}

/// The view with what it looks at.
#[derive(Debug)]
pub(super) struct Display {
    view: View,
    subjects: Subjects,
    meter: RateMeter,
    begin: Instant,
    planned: Duration,
    target_rate: u64,
}

impl Display {
    /// Opens the view that fits the arguments and the terminal.
    pub(super) fn open(
        arguments: &DemoArguments,
        begin: Instant,
        subjects: Subjects,
    ) -> Result<Self> {
        let view = match is_live(arguments) {
            true => View::Live(LiveView::open().map_err(|cause| unusable(&cause))?),
            false => View::Plain(PlainView::default()),
        };
        Ok(Self {
            view,
            subjects,
            meter: RateMeter::default(),
            begin,
            planned: Duration::from_secs(u64::from(arguments.seconds)),
            target_rate: u64::from(arguments.rate),
        })
    }

    /// Shows until the work is done.
    pub(super) async fn until<T>(
        &mut self,
        phase: DemoPhase,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let mut work = pin!(work);
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return Ok(outcome),
                _ = frames.tick() => self.show(phase)?,
            }
        }
    }

    /// Closes the view; the highest rate of arrival is what remains.
    pub(super) fn close(self) -> u64 {
        self.meter.peak_delivered()
    }

    fn show(&mut self, phase: DemoPhase) -> Result<()> {
        let picture = self.picture(phase);
        match &mut self.view {
            View::Plain(plain) => plain.show(&picture).map_err(|cause| unusable(&cause)),
            View::Live(live) => {
                live.show(&picture).map_err(|cause| unusable(&cause))?;
                if live.wants_to_stop().map_err(|cause| unusable(&cause))? {
                    self.subjects.interrupt.say();
                }
                Ok(())
            }
        }
    }

    fn picture(&mut self, phase: DemoPhase) -> Picture {
        let now = Instant::now();
        let findings = self.subjects.check.look(now);
        let rates = self.meter.observe(now, &findings, &self.subjects.monitor.published_by_shard());
        let (history_in, history_out) = self.meter.history();
        Picture {
            servers: self.subjects.servers.clone(),
            phase,
            elapsed: now - self.begin,
            planned: self.planned,
            target_rate: self.target_rate,
            rate_in: rates.committed,
            rate_out: rates.delivered,
            history_in,
            history_out,
            late: self.subjects.lateness.now(),
            totals: findings.totals,
            verdict: findings.verdict,
            ages: findings.recent,
            shards: rates.shards,
            records: findings.shown,
            warning: self.subjects.warnings.last(),
        }
    }
}

/// The live view needs a terminal that can do more than lines, and a reader who wants it.
fn is_live(arguments: &DemoArguments) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
    !arguments.plain
        && std::io::stdout().is_terminal()
        && std::io::stdin().is_terminal()
        && !is_set("NO_COLOR")
        && !is_dumb
}

fn unusable(cause: &std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot write to standard output: {cause}"))
        .with_remedy("try --plain, or leave standard output open")
}
