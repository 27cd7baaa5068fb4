//! Looks who holds a lock in our way, while PostgreSQL gives a task no answer.
//!
//! Promises: asks nothing while all is answered; whoever is in the way is named within ten seconds, once, and it is said
//! when nobody is any more: a session that ends by it is no sign of that. Must not: end anybody, or a session of ours. Fails: never; where nothing can be seen nobody
//! is named.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::counters::Monitor;
use crate::metrics::health::{LockInTheWay, SessionState};
use crate::postgres::{DatabaseConfig, LockHolder, lock_holder};

/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Answers take less; where they do not, something is in the way.
const SILENCE_MILLIS: u64 = 4_000;

/// Looks, as long as somebody polls it.
pub(super) async fn watch(database: DatabaseConfig, monitor: Arc<Monitor>) {
    let mut known: Option<LockHolder> = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let found = match monitor.session() {
            // What opens the next session says for itself what it waits for.
            SessionState::Between(_) => known.clone(),
            _ if monitor.health().unanswered_millis() >= SILENCE_MILLIS => {
                lock_holder(&database).await
            }
            _ => None,
        };
        if found != known {
            tell(known.as_ref(), found.as_ref());
            monitor.set_lock_in_the_way(
                found.as_ref().map(|holder| LockInTheWay {
                    words: holder.to_string(),
                    remedy: holder.remedy(),
                }),
            );
            known = found;
        }
    }
}

fn tell(known: Option<&LockHolder>, found: Option<&LockHolder>) {
    match (known, found) {
        (_, Some(holder)) => tracing::warn!(
            waits_for = %holder,
            remedy = holder.remedy(),
            "PostgreSQL keeps this instance waiting for a lock: nothing new is seen, and events wait"
        ),
        (Some(_), None) => tracing::info!("PostgreSQL answers again: the lock is gone"),
        (None, None) => {}
    }
}
