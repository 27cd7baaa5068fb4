//! Looks at the replication slot now and then, for the figures, and for what its stream does not bring.
//!
//! Promises: a slot that keeps the server's log is seen; what a promotion would bring is told before it comes.
//! Must not: change it. Fails: with the connection's error; with that of the proof.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::capture::mode::Mode;
use crate::capture::mode_change::{rows_remedy, rows_wait};
use crate::capture::slot::failover::Failover;
use crate::capture::slot::{SlotKeeper, SlotSight};
use crate::error::Result;
use crate::metrics::counters::{Monitor, PromotionReadiness, SlotFigures};
use crate::postgres::Lsn;
use crate::relay::stream_proof::StreamProof;
use crate::relay::tasks::Ended;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many looks pass between two at what a promotion would bring.
const LOOKS_PER_FAILOVER: u32 = 10;
/// While nothing comes for the outbox the slot follows the log in steps; so much is no delay.
const STEP_BYTES: u64 = 2 * 1024 * 1024;

/// Shows the slot until the session ends. Tables become parts of others also while nothing is written that would have
/// to be saved.
pub(super) async fn watch_slot(
    keeper: Arc<SlotKeeper>,
    proof: Arc<StreamProof>,
    monitor: Arc<Monitor>,
) -> Result<Ended> {
    let mut moved = Moved { confirmed: None, at: Instant::now() };
    let (mut looks, mut failover, mut rows) = (0_u32, None, false);
    loop {
        if looks.is_multiple_of(LOOKS_PER_FAILOVER) {
            failover = look_at_failover(&keeper, failover).await?;
            if keeper.mode() == Mode::Message {
                rows = warn_of_rows(&keeper, rows).await?;
            }
        }
        looks = looks.wrapping_add(1);
        if keeper.mode() == Mode::Wal {
            proof.look().await?;
        }
        if let Some(sight) = keeper.sight().await? {
            show_course(&monitor, &sight);
            let figures = moved.figures(sight, Instant::now());
            let promotion = failover.as_ref().map(|failover| readiness(failover, keeper.mode()));
            monitor.set_slot(Some(SlotFigures { promotion, ..figures }));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// How far the stream is, on the scale of the log.
fn show_course(monitor: &Monitor, sight: &SlotSight) {
    let confirmed =
        sight.confirmed.map_or(0, |Lsn(place)| i64::try_from(place).unwrap_or(i64::MAX));
    let remaining = if sight.behind_bytes <= STEP_BYTES { 0 } else { sight.behind_bytes };
    let shard = monitor.shard(0);
    shard.position.store(confirmed, Ordering::Relaxed);
    shard.remaining.store(remaining, Ordering::Relaxed);
}

/// Says once that rows were inserted which nobody reads; gives whether there are any.
async fn warn_of_rows(keeper: &SlotKeeper, were_said: bool) -> Result<bool> {
    let waits = rows_wait(keeper.connection()).await?;
    if waits && !were_said {
        tracing::warn!(
            remedy = rows_remedy(),
            "rows of the outbox wait: capture message reads messages alone, and publishes no row"
        );
    }
    Ok(waits)
}

/// Says once what would go wrong if a standby were promoted; gives what is seen now.
async fn look_at_failover(
    keeper: &SlotKeeper,
    before: Option<Failover>,
) -> Result<Option<Failover>> {
    let now = keeper.failover().await?.and_then(|sight| sight.failover);
    let is_trouble = |failover: &&Failover| failover.is_trouble(keeper.mode());
    let said = before.as_ref().filter(is_trouble);
    if let Some(trouble) = now.as_ref().filter(is_trouble)
        && said != Some(trouble)
    {
        tracing::warn!(
            slot = keeper.name(),
            cause = trouble.words(),
            remedy = keeper.failover_remedy(trouble),
            "the slot is not ready for the promotion of a standby"
        );
    }
    Ok(now)
}

fn readiness(failover: &Failover, mode: Mode) -> PromotionReadiness {
    match failover.is_trouble(mode) {
        true => PromotionReadiness::NotReady,
        false => PromotionReadiness::Ready,
    }
}

/// When the slot was last seen to move, or to have nothing to move for.
struct Moved {
    confirmed: Option<Lsn>,
    at: Instant,
}

impl Moved {
    fn figures(&mut self, sight: SlotSight, now: Instant) -> SlotFigures {
        if sight.confirmed > self.confirmed || sight.behind_bytes <= STEP_BYTES {
            self.at = now;
        }
        self.confirmed = sight.confirmed;
        SlotFigures {
            retained_bytes: sight.retained_bytes,
            safe_bytes: sight.safe_bytes,
            age_seconds: (now - self.at).as_secs(),
            promotion: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slot_that_the_log_leaves_behind_grows_old() {
        let begin = Instant::now();
        let mut moved = Moved { confirmed: None, at: begin };
        let mut age = |confirmed: u64, behind_bytes: u64, second: u64| {
            let sight = SlotSight {
                retained_bytes: behind_bytes,
                safe_bytes: None,
                confirmed: Some(Lsn(confirmed)),
                behind_bytes,
                inactive_seconds: None,
            };
            moved.figures(sight, begin + Duration::from_secs(second)).age_seconds
        };
        assert_eq!(age(10, 0, 1), 0);
        assert_eq!(age(10, STEP_BYTES, 9), 0, "an idle outbox");
        assert_eq!(age(10, 2 * STEP_BYTES, 12), 3);
        assert_eq!(age(10, 3 * STEP_BYTES, 19), 10);
        assert_eq!(age(11, 3 * STEP_BYTES, 20), 0, "it moves again");
    }
}
