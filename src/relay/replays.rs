//! Does what was asked for by the database: sends published events once more (`postrider replay`), and has a tick
//! taken where somebody waits for one (`postrider wait`).
//!
//! Promises: of the owned buckets what was asked for is sent in the order of `seq`, to its own topics, marked, and no
//! faster than asked for; how far it came is saved only behind Kafka's acknowledgement. Must not: touch what shards
//! send, hold an aggregate, or end the session: relaying goes on without it.
//! Fails: never; what is in the way is written down beside the replay, and tried again.
//!
//! It has a producer of its own, and shards know nothing of it. That keeps the order all the same: nothing is sent
//! before the bucket's cursor covers all that was committed when the replay was asked for, so that none of its events
//! appears first by a replay; and what one owner sends is a run of the same events from a place that is acknowledged, so
//! that two owners in a row leave repeats and no gap. Among the shard's own batches it would cost each page a moment
//! at which nothing is in flight.
//!
//! ```text
//!  look, each second ─► a replay of ours, its cursor covers it ─► page ─► own producer ─► acknowledged ─► saved ─┐
//!                              ▲                                                                                 │
//!                              └──── its turn is over, or it waits for a topic ◄─── as fast as asked for ◄───────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::capture::replay;
use crate::capture::replay::reader::{ReplayRange, ReplayReader};
use crate::capture::replay::{OpenPart, OpenReplay, ReplayStep};
use crate::config::Config;
use crate::control::cursors::CursorStore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::outbox::Outbox;
use crate::publish::kafka::config::{ArrivalPattern, ProducerConfig};
use crate::relay::instance::Instance;
use crate::relay::publishers::Publishers;
use crate::relay::replay_sender::{ReplaySender, SentPage};
use crate::relay::slot_recovery::covers;
use crate::relay::tasks::{Ended, SessionTasks};

/// How often it is looked whether a replay is asked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After trouble.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// A replay has its turn for so long: then it is looked who else waits, and which buckets are ours.
const TURN: Duration = Duration::from_secs(10);
/// Events of one page, at most.
const PAGE_ROWS: u32 = 500;
/// Of a replay that is held up pages are so small that there are as many per second.
const PAGES_PER_SECOND: f64 = 5.0;

/// What replays are sent with.
struct ReplayTask {
    config: Config,
    outbox: Outbox,
    store: Arc<CursorStore>,
    publishers: Publishers,
    /// Asks for a tick at once: an outbox at rest does not tick by itself, and cursors wait for it.
    nudge: Arc<Notify>,
    stop: watch::Receiver<bool>,
}

/// Sends replays until the session ends.
pub(super) fn spawn_replays(
    instance: &Instance,
    session_tasks: &mut SessionTasks,
    (outbox, store): (&Outbox, &Arc<CursorStore>),
    producer: &ProducerConfig,
    nudge: &Arc<Notify>,
) {
    let send_deadline = &session_tasks.send_deadline;
    let task = ReplayTask {
        config: instance.config.clone(),
        outbox: outbox.clone(),
        store: Arc::clone(store),
        publishers: Publishers::new(
            instance,
            outbox.payload,
            producer,
            ArrivalPattern::Pages,
            send_deadline,
        ),
        nudge: Arc::clone(nudge),
        stop: session_tasks.stop.clone(),
    };
    session_tasks.tasks.spawn(task.run());
}

/// How a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnEnd {
    /// There may be more to do at once.
    Over,
    /// Nothing can be done now.
    Waits,
    /// A topic takes nothing.
    Held,
}

impl ReplayTask {
    /// Works until the session ends.
    async fn run(mut self) -> Result<Ended> {
        let mut reader = None;
        loop {
            let pause = match self.round(&mut reader).await {
                Ok(TurnEnd::Over) => Duration::ZERO,
                Ok(TurnEnd::Waits) => LOOK_INTERVAL,
                Ok(TurnEnd::Held) => TROUBLE_PAUSE,
                Err(error) => {
                    reader = None;
                    self.tell(&error);
                    TROUBLE_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stop.changed() => return Ok(Ended::Helper),
            }
        }
    }

    fn tell(&self, error: &Error) {
        if let Some(unsaid) = self.publishers.warnings.note(error.message(), Instant::now()) {
            tracing::warn!(
                cause = error.message(),
                remedy = error.remedy(),
                unsaid,
                "replays are held up; relaying goes on"
            );
        }
    }

    /// One turn for each replay that can go on.
    async fn round(&self, reader: &mut Option<ReplayReader>) -> Result<TurnEnd> {
        let owned = self.owned();
        let asked = replay::look(self.store.connection(), &owned).await?;
        if asked.is_waited {
            self.nudge.notify_one();
        }
        if !asked.is_any_open {
            *reader = None;
            return Ok(TurnEnd::Waits);
        }
        let reader = match reader {
            Some(reader) => reader,
            None => {
                let (database, bytes) = (&self.config.database, self.config.max_event_bytes);
                reader.insert(ReplayReader::connect(database, &self.outbox, bytes).await?)
            }
        };
        let (mut end, mut failed) = (TurnEnd::Waits, None);
        for replay in replay::open(reader.connection(), &owned).await? {
            match self.turn(reader, &replay).await {
                Ok(TurnEnd::Over) => end = TurnEnd::Over,
                Ok(TurnEnd::Held) if end == TurnEnd::Waits => end = TurnEnd::Held,
                Ok(TurnEnd::Held | TurnEnd::Waits) => {}
                // Others have their turn all the same.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(end), Err)
    }

    fn owned(&self) -> Vec<Bucket> {
        self.store.owned().into_iter().map(|(bucket, _)| bucket).collect()
    }

    /// Those of its buckets in which everything of it is published or parked.
    async fn covered(&self, replay: &OpenReplay) -> Result<Vec<OpenPart>> {
        let buckets: Vec<Bucket> = replay.parts.iter().map(|part| part.bucket).collect();
        let cursors = self.store.load(&buckets).await?;
        let is_covered = |part: &&OpenPart| {
            cursors.iter().any(|(bucket, cursor)| {
                *bucket == part.bucket && covers(cursor, &replay.asked_snapshot)
            })
        };
        Ok(replay.parts.iter().filter(is_covered).copied().collect())
    }

    /// Sends some of a replay: bucket by bucket, until its turn is over.
    async fn turn(&self, reader: &mut ReplayReader, replay: &OpenReplay) -> Result<TurnEnd> {
        let parts = match self.covered(replay).await {
            Ok(parts) => parts,
            // Some bucket was taken meanwhile.
            Err(error) if error.kind() == ErrorKind::Fenced => return Ok(TurnEnd::Waits),
            Err(error) => return Err(error),
        };
        if parts.len() < replay.parts.len() {
            self.nudge.notify_one();
        }
        if parts.is_empty() {
            return Ok(TurnEnd::Waits);
        }
        let mut sender = ReplaySender::start(&self.publishers, replay)?;
        let until = Instant::now() + TURN;
        let mut ended = Ok(TurnEnd::Over);
        for part in parts {
            ended = self.send_part(reader, &mut sender, (replay, part), until).await;
            if !matches!(ended, Ok(TurnEnd::Over)) {
                break;
            }
        }
        sender.close().await?;
        ended
    }

    /// Sends a bucket's events, until there are no more or the turn is over.
    async fn send_part(
        &self,
        reader: &mut ReplayReader,
        sender: &mut ReplaySender,
        (replay, mut part): (&OpenReplay, OpenPart),
        until: Instant,
    ) -> Result<TurnEnd> {
        let pace = ReplayPace::of(replay);
        let OpenReplay { filter, asked_snapshot, .. } = replay;
        while self.owned().contains(&part.bucket) && Instant::now() < until {
            let began = Instant::now();
            let range = ReplayRange { filter, asked_snapshot, part };
            let page = reader.page(range, pace.page_rows()).await?;
            let reached = page.last_seq.map_or(part.next_seq, |last| last.saturating_add(1));
            let is_last = page.is_last;
            let step = match sender.send(page).await? {
                SentPage::Sent { sent, left_out } => {
                    ReplayStep { next_seq: reached, sent, left_out, trouble: None, is_end: is_last }
                }
                SentPage::Waits(trouble) => {
                    let next_seq = part.next_seq;
                    ReplayStep { next_seq, trouble: Some(trouble), ..ReplayStep::default() }
                }
            };
            let save = replay::save(reader.connection(), replay.replay, part.bucket, &step);
            if !save.await? || step.is_end {
                break;
            }
            if step.trouble.is_some() {
                return Ok(TurnEnd::Held);
            }
            part.next_seq = step.next_seq;
            tokio::time::sleep(pace.rest(step.sent, began.elapsed())).await;
        }
        Ok(TurnEnd::Over)
    }
}

/// How fast a replay is sent here.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ReplayPace {
    /// None for as fast as it goes.
    events_per_second: Option<f64>,
}

impl ReplayPace {
    /// This instance's share of what was asked for, by the buckets that are left.
    fn of(replay: &OpenReplay) -> Self {
        let ours = replay.parts.len() as f64 / (replay.parts_open.max(1) as f64);
        let share = |asked: i32| f64::from(asked) * ours.min(1.0);
        Self { events_per_second: replay.way.events_per_second.map(share) }
    }

    fn page_rows(self) -> u32 {
        match self.events_per_second {
            None => PAGE_ROWS,
            Some(rate) => (rate / PAGES_PER_SECOND).clamp(1.0, f64::from(PAGE_ROWS)) as u32,
        }
    }

    /// How long to wait after so many events that took so long.
    fn rest(self, sent: i64, took: Duration) -> Duration {
        let Some(rate) = self.events_per_second else { return Duration::ZERO };
        Duration::from_secs_f64(sent.max(0) as f64 / rate).saturating_sub(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_no_faster_than_it_was_asked_for() {
        let pace = ReplayPace { events_per_second: Some(50.0) };
        assert_eq!(pace.page_rows(), 10);
        assert_eq!(pace.rest(10, Duration::from_millis(50)), Duration::from_millis(150));
        assert_eq!(pace.rest(10, Duration::from_secs(1)), Duration::ZERO);
        let slow = ReplayPace { events_per_second: Some(0.5) };
        assert_eq!((slow.page_rows(), slow.rest(1, Duration::ZERO)), (1, Duration::from_secs(2)));
        let free = ReplayPace { events_per_second: None };
        assert_eq!((free.page_rows(), free.rest(500, Duration::ZERO)), (500, Duration::ZERO));
        let fast = ReplayPace { events_per_second: Some(1e9) };
        assert_eq!(fast.page_rows(), PAGE_ROWS);
    }
}
