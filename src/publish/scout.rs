//! Looks at topics that cannot be used, so that nobody else waits for them.
//!
//! Promises: a watched topic is looked at after 1 to 60 s, each pause twice as long as the one before;
//! once it can be used, that is told once, and it is watched no more. Must not: hold up a publishing
//! thread. Fails: never; a look that fails is repeated.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::lessons::{PAUSE_MAX, PAUSE_MIN};
use crate::error::{Error, ErrorKind, Result};

/// How long a scout that watches nothing sleeps.
const IDLE: Duration = Duration::from_secs(3_600);
/// Topics that may be handed over while it looks at one.
const TOPICS_MAX: usize = 4_096;

/// What a scout does with a topic.
pub(super) trait Look: Send + 'static {
    /// Whether records can be sent to it, as far as can be told.
    fn is_usable(&self, topic: &str) -> bool;

    /// It can be used again.
    fn tell(&self, topic: String);
}

/// A thread that looks at topics.
#[derive(Debug)]
pub(super) struct Scout {
    topics: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Scout {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(name: &str, look: impl Look) -> Result<Self> {
        let (topics, inlet) = crossbeam_channel::bounded(TOPICS_MAX);
        let thread = std::thread::Builder::new()
            .name(format!("scout-{name}"))
            .spawn(move || scout(&inlet, &look))
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("no thread to look at topics: {cause}"))
            })?;
        Ok(Self { topics: Some(topics), thread: Some(thread) })
    }

    /// Watches a topic. The caller watches it once until it is told.
    ///
    /// # Errors
    /// When too many topics are in trouble at once, or the thread has ended.
    pub(super) fn watch(&self, topic: &str) -> Result<()> {
        let topics = self.topics.as_ref().expect("the scout is there");
        topics.try_send(topic.to_owned()).map_err(|_| {
            Error::new(ErrorKind::TopicUnavailable, "too many topics cannot be used at once")
        })
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        drop(self.topics.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that looks at topics panicked");
        }
    }
}

#[derive(Debug)]
struct Watched {
    topic: String,
    pause: Duration,
    due: Instant,
}

fn scout(inlet: &Receiver<String>, look: &impl Look) {
    let mut watched: Vec<Watched> = Vec::new();
    loop {
        let due = watched.iter().map(|one| one.due).min();
        let sleep = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
        match inlet.recv_timeout(sleep) {
            Ok(topic) => {
                let due = Instant::now() + PAUSE_MIN;
                watched.push(Watched { topic, pause: PAUSE_MIN, due });
            }
            Err(RecvTimeoutError::Timeout) => look_at_one(&mut watched, look),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Looks at the topic that has been due for longest.
fn look_at_one(watched: &mut Vec<Watched>, look: &impl Look) {
    let Some(index) = (0..watched.len()).min_by_key(|index| watched[*index].due) else { return };
    if watched[index].due > Instant::now() {
        return;
    }
    if look.is_usable(&watched[index].topic) {
        let Watched { topic, .. } = watched.swap_remove(index);
        look.tell(topic);
    } else {
        let one = &mut watched[index];
        one.pause = (one.pause * 2).min(PAUSE_MAX);
        one.due = Instant::now() + one.pause;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Third {
        looks: AtomicU32,
        told: Sender<String>,
    }

    impl Look for Third {
        fn is_usable(&self, _: &str) -> bool {
            self.looks.fetch_add(1, Ordering::Relaxed) == 2
        }

        fn tell(&self, topic: String) {
            self.told.send(topic).unwrap();
        }
    }

    #[test]
    fn a_topic_is_told_once_and_pauses_grow() {
        let (told, heard) = crossbeam_channel::bounded(1);
        let look = Third { looks: AtomicU32::new(0), told };
        let mut watched =
            vec![Watched { topic: "t".into(), pause: PAUSE_MIN, due: Instant::now() }];
        for pause in [2, 4] {
            look_at_one(&mut watched, &look);
            assert_eq!(watched[0].pause, Duration::from_secs(pause));
            look_at_one(&mut watched, &look);
            watched[0].due = Instant::now();
        }
        assert_eq!(look.looks.load(Ordering::Relaxed), 2, "it is not looked at before it is due");
        look_at_one(&mut watched, &look);
        assert_eq!((watched.len(), heard.try_recv().as_deref()), (0, Ok("t")));
        look_at_one(&mut watched, &look);
        assert!(heard.try_recv().is_err());
    }
}
