//! Does what was asked for by the database: sends published events once more (`postrider replay`), and has a tick
//! taken where somebody waits for one (`postrider wait`).
//!
//! Promises: of the owned buckets what was asked for is sent in the order of `seq`, to its own topics, marked, and no
//! faster than asked for; how far it came is saved only behind Kafka's acknowledgement; several are sent side by side,
//! so that one that is slow or held up holds up no other. Must not: touch what shards
//! send, hold an aggregate, or end the session: relaying goes on without it.
//! Fails: never; what is in the way is written down beside the replay, and tried again.
//!
//! Each has a producer of its own, and shards know nothing of it. That keeps the order all the same: nothing is sent
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

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, Notify, watch};

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
use crate::relay::replay_turns::{LOOK_INTERVAL, ReplayTurns, TROUBLE_PAUSE, TurnEnd};
use crate::relay::slot_recovery::covers;
use crate::relay::tasks::{Ended, SessionTasks};

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
    /// Sessions that no turn uses; none where nothing is to be sent.
    readers: Mutex<Vec<ReplayReader>>,
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
        readers: Mutex::default(),
    };
    session_tasks.tasks.spawn(task.run());
}

impl ReplayTask {
    /// Works until the session ends.
    async fn run(self) -> Result<Ended> {
        let (mut turns, mut sending) = (ReplayTurns::default(), FuturesUnordered::new());
        let mut stop = self.stop.clone();
        loop {
            let pause = match self.begin(&mut turns).await {
                Ok(begun) => {
                    sending.extend(begun.into_iter().map(|replay| self.turn(replay)));
                    LOOK_INTERVAL
                }
                Err(error) => {
                    self.tell(&error);
                    TROUBLE_PAUSE
                }
            };
            tokio::select! {
                Some((replay, end)) = sending.next() => turns.ended(replay, end, Instant::now()),
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return Ok(Ended::Helper),
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

    /// The replays that have a turn now.
    async fn begin(&self, turns: &mut ReplayTurns) -> Result<Vec<OpenReplay>> {
        let (owned, connection) = (self.owned(), self.store.connection());
        let asked = replay::look(connection, &owned).await?;
        if asked.is_waited {
            self.nudge.notify_one();
        }
        if !asked.is_any_open {
            self.readers.lock().await.clear();
            return Ok(Vec::new());
        }
        let mut open = replay::open(connection, &owned).await?;
        let numbers: Vec<i64> = open.iter().map(|replay| replay.replay).collect();
        let begun = turns.begin(&numbers, Instant::now());
        open.retain(|replay| begun.contains(&replay.replay));
        Ok(open)
    }

    /// A replay's turn, to its end. Trouble is written down, and others have their turn all the same.
    async fn turn(&self, replay: OpenReplay) -> (i64, TurnEnd) {
        let end = match self.send_some(&replay).await {
            Ok(end) => end,
            Err(error) => {
                self.tell(&error);
                TurnEnd::Held
            }
        };
        (replay.replay, end)
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
    async fn send_some(&self, replay: &OpenReplay) -> Result<TurnEnd> {
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
        let mut reader = self.reader().await?;
        let mut sender = match ReplaySender::start(&self.publishers, replay) {
            Ok(sender) => sender,
            Err(error) => {
                held(&reader, (replay, parts[0]), &error).await?;
                return Err(error);
            }
        };
        let until = Instant::now() + TURN;
        let mut ended = Ok(TurnEnd::Over);
        for part in parts {
            ended = self.send_part(&mut reader, &mut sender, (replay, part), until).await;
            if !matches!(ended, Ok(TurnEnd::Over)) {
                break;
            }
        }
        sender.close().await?;
        // One whose session has failed is not used again.
        if ended.is_ok() {
            self.readers.lock().await.push(reader);
        }
        ended
    }

    /// A session to read with: one that another turn has left, or a new one.
    async fn reader(&self) -> Result<ReplayReader> {
        let left = self.readers.lock().await.pop();
        match left {
            Some(reader) => Ok(reader),
            None => {
                let (database, bytes) = (&self.config.database, self.config.max_event_bytes);
                ReplayReader::connect(database, &self.outbox, bytes).await
            }
        }
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
            let step = match sender.send(page).await {
                Ok(SentPage::Sent { sent, left_out }) => {
                    ReplayStep { next_seq: reached, sent, left_out, trouble: None, is_end: is_last }
                }
                Ok(SentPage::Waits(trouble)) => waiting(part, trouble),
                Err(error) => {
                    held(reader, (replay, part), &error).await?;
                    return Err(error);
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

/// A step that goes nowhere, for this reason.
fn waiting(part: OpenPart, trouble: String) -> ReplayStep {
    ReplayStep { next_seq: part.next_seq, trouble: Some(trouble), ..ReplayStep::default() }
}

/// Writes down what holds a replay up, where whoever asked for it looks.
async fn held(
    reader: &ReplayReader,
    (replay, part): (&OpenReplay, OpenPart),
    error: &Error,
) -> Result<()> {
    let step = waiting(part, error.message().to_owned());
    replay::save(reader.connection(), replay.replay, part.bucket, &step).await.map(drop)
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
