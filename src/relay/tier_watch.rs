//! Looks now and then at the tier, at how much waits in the own buckets and what is parked, for whoever asks.
//!
//! Promises: takes a hundredth of the time at most, and relaying goes on without it; what cannot be seen now, as behind a
//! lock, stays as it was seen last in the same session: what an alert rests on does not vanish; the first event that is
//! parked is seen soon, also where the server is slow. Must not: end a session,
//! or keep one of its own while the relay has none. Fails: never; what was never seen is not told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::tier_look::{Looker, TierLook, TierSight};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;
use crate::metrics::health::SessionState;
use crate::metrics::seen::{SeenBacklog, SeenTier};
use crate::postgres::DatabaseConfig;

/// The pause between two looks, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// And at most.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The pause behind a look is at least so many times as long as the look was.
const PAUSE_PER_LOOK: u32 = 100;
/// How often it is looked whether the session is another one.
const STEP: Duration = Duration::from_millis(250);
/// Before the first look of a session its buckets are taken.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A look that takes longer gets no answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks, as long as somebody polls it.
pub(super) async fn watch(database: DatabaseConfig, name: String, monitor: Arc<Monitor>) {
    let mut looking = None;
    loop {
        let session = monitor.session();
        if matches!(session, SessionState::Between(_)) {
            looking = None;
            tokio::time::sleep(STEP).await;
            continue;
        }
        let (began, parked_before) = (Instant::now(), monitor.parked_so_far());
        match look(&database, &name, &mut looking).await {
            Ok(sight) => show(&monitor, sight),
            Err(cause) => {
                // The others of the session meet the same, and tell it.
                tracing::debug!(cause = cause.message(), "the tier cannot be seen");
                looking = None;
                monitor.recent().look_at_backlog(None);
            }
        }
        let pause = (began.elapsed() * PAUSE_PER_LOOK).clamp(LOOK_INTERVAL, LOOK_INTERVAL_MAX);
        let is_awaited = nothing_is_parked(&monitor);
        wait(&monitor, &session, pause, is_awaited.then_some(parked_before)).await;
    }
}

/// What is seen of own buckets concerns a session that has some.
fn show(monitor: &Monitor, sight: TierSight) {
    let is_working = monitor.session() == SessionState::Working;
    let at_millis = monitor.recent().now_millis();
    monitor.set_seen(is_working.then_some(SeenBacklog { at_millis, ..sight.own }));
    monitor.set_tier(SeenTier { at_millis, tier: sight.tier, parked: sight.parked });
}

async fn look(
    database: &DatabaseConfig,
    name: &str,
    looking: &mut Option<TierLook>,
) -> Result<TierSight> {
    let looked = async {
        let session = match looking {
            Some(session) => session,
            None => looking.insert(TierLook::open(database, "figures").await?),
        };
        session.look(Looker::Instance(name)).await
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::PostgresUnavailable, "no answer to a look at the tier"))
    })
}

fn nothing_is_parked(monitor: &Monitor) -> bool {
    monitor.seen().is_some_and(|seen| seen.parked.values().all(|events| *events == 0))
}

/// Until the next look is due, or soon after the session has become another one; where nothing was parked of so many
/// that ever were, no longer than the shortest pause after that has changed.
async fn wait(
    monitor: &Monitor,
    session: &SessionState,
    pause: Duration,
    parked_before: Option<u64>,
) {
    let began = Instant::now();
    while began.elapsed() < pause {
        tokio::time::sleep(STEP).await;
        let is_parked = parked_before.is_some_and(|before| before != monitor.parked_so_far());
        if is_parked && began.elapsed() >= LOOK_INTERVAL {
            return;
        }
        let now = monitor.session();
        if now != *session {
            if !matches!(now, SessionState::Between(_)) {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            return;
        }
    }
}
