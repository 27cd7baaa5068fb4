//! Looks at topics beside the publishing thread, so that nobody waits for what is seen.
//!
//! Promises: a topic that cannot be used is looked at after 1 to 60 s, each pause twice as long as the one
//! before; once it can be used, that is told once, and it is watched no more. One in use is looked at
//! again when it is asked for; that it cannot be used any more is told when it stayed so for a while. Any
//! number of topics costs a few requests per look. Must not: hold up a publishing thread.
//! Fails: never; a look that fails is repeated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::learned_limits::UNUSABLE;

/// How long a watcher that watches nothing sleeps.
const IDLE: Duration = Duration::from_secs(3_600);
/// Between two looks, so that topics whose time has come are looked at together.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// The shortest pause before a topic is looked at.
const PAUSE_MIN: Duration = UNUSABLE.pause();
/// A topic in use whose partition loses its leader gets another within this, as a rule.
const DOUBT: Duration = Duration::from_secs(5);

/// What was seen of a topic.
#[derive(Debug)]
pub(super) enum Sight<T> {
    /// Records can be sent to it, as far as can be told.
    Usable(T),
    /// They cannot, for that reason.
    Unusable(Error),
    /// There was no answer.
    Unseen,
    /// It was not its turn: too many were to be looked at.
    NotYet,
}

/// What a watcher does with topics.
pub(super) trait LookAtTopics: Send + 'static {
    /// What is found out about a topic that can be used.
    type Found;

    /// Looks at these topics, which are in the order of their turn; one sight for each.
    fn look(&mut self, topics: &[String]) -> Vec<Sight<Self::Found>>;

    /// A watched one can be used again; what was found out comes before.
    fn tell(&self, topic: String);

    /// What was found out about one that is in use or back.
    fn refreshed(&self, topic: String, seen: Result<Self::Found>);
}

/// What one thread leaves for another: each topic lies here once, so the topics themselves are the bound.
#[derive(Debug)]
pub(super) struct Tray<T>(Mutex<Vec<T>>);

impl<T> Tray<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Vec::new())))
    }

    pub(super) fn put(&self, one: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }

    pub(super) fn take_all(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
enum Task {
    /// Until they can be used.
    Watch(Vec<String>),
    /// Once.
    Refresh(Vec<String>),
}

/// A thread that looks at topics.
#[derive(Debug)]
pub(super) struct TopicWatcher {
    tasks: Arc<Tray<Task>>,
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TopicWatcher {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(name: &str, look: impl LookAtTopics) -> Result<Self> {
        let (wake, woken) = crossbeam_channel::bounded(1);
        let tasks = Tray::new();
        let inlet = Arc::clone(&tasks);
        let thread = std::thread::Builder::new()
            .name(format!("topics-{name}"))
            .spawn(move || watch(&inlet, &woken, look))
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("no thread to look at topics: {cause}"))
            })?;
        Ok(Self { tasks, wake: Some(wake), thread: Some(thread) })
    }

    /// Watches topics. The caller watches each once until it is told.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(super) fn watch(&self, topics: Vec<String>) -> Result<()> {
        self.hand_over(Task::Watch(topics))
    }

    /// Looks at topics that are in use. The caller asks for each once until it is told.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(super) fn refresh(&self, topics: Vec<String>) -> Result<()> {
        self.hand_over(Task::Refresh(topics))
    }

    fn hand_over(&self, task: Task) -> Result<()> {
        self.tasks.put(task);
        match self.wake.as_ref().expect("the watcher is there").try_send(()) {
            // It is awake already, and will look.
            Ok(()) | Err(TrySendError::Full(())) => Ok(()),
            Err(TrySendError::Disconnected(())) => {
                Err(Error::new(ErrorKind::Internal, "the thread that looks at topics has ended"))
            }
        }
    }
}

impl Drop for TopicWatcher {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that looks at topics panicked");
        }
    }
}

#[derive(Debug)]
enum Wait {
    /// It cannot be used; the pause before the next look.
    Unusable { backoff: Backoff },
    /// It is in use; since when it seems not to be usable.
    InUse { doubted: Option<Instant> },
}

/// What is to be looked at, by when, then by the order of coming.
#[derive(Debug, Default)]
struct WatchedTopics {
    next: u64,
    due: BTreeMap<(Instant, u64), (String, Wait)>,
}

impl WatchedTopics {
    fn add(&mut self, topic: String, wait: Wait, due: Instant) {
        self.next += 1;
        self.due.insert((due, self.next), (topic, wait));
    }

    fn take_task(&mut self, task: Task, now: Instant) {
        match task {
            Task::Watch(topics) => topics.into_iter().for_each(|topic| {
                self.add(topic, Wait::Unusable { backoff: UNUSABLE }, now + PAUSE_MIN);
            }),
            Task::Refresh(topics) => topics.into_iter().for_each(|topic| {
                self.add(topic, Wait::InUse { doubted: None }, now);
            }),
        }
    }

    fn first_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Looks at all topics whose time has come.
    fn look<L: LookAtTopics>(&mut self, look: &mut L, now: Instant) {
        let later = self.due.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.due, later);
        if due.is_empty() {
            return;
        }
        let (topics, waits): (Vec<String>, Vec<Wait>) = due.into_values().unzip();
        let sights = look.look(&topics);
        assert_eq!(sights.len(), topics.len(), "each topic has its sight");
        // The look may have been long.
        let now = now.max(Instant::now());
        for ((topic, wait), sight) in topics.into_iter().zip(waits).zip(sights) {
            self.judge(look, topic, wait, sight, now);
        }
    }

    fn judge<L: LookAtTopics>(
        &mut self,
        look: &L,
        topic: String,
        wait: Wait,
        sight: Sight<L::Found>,
        now: Instant,
    ) {
        match (wait, sight) {
            (Wait::Unusable { .. }, Sight::Usable(found)) => {
                look.refreshed(topic.clone(), Ok(found));
                look.tell(topic);
            }
            (Wait::Unusable { backoff }, Sight::Unusable(_) | Sight::Unseen) => {
                let backoff = backoff.doubled();
                self.add(topic, Wait::Unusable { backoff }, now + backoff.pause());
            }
            (wait @ Wait::Unusable { .. }, Sight::NotYet) => self.add(topic, wait, now + PAUSE_MIN),
            (Wait::InUse { .. }, Sight::Usable(found)) => look.refreshed(topic, Ok(found)),
            (Wait::InUse { doubted: Some(since) }, Sight::Unusable(cause))
                if now.duration_since(since) >= DOUBT =>
            {
                look.refreshed(topic, Err(cause));
            }
            (Wait::InUse { doubted }, Sight::Unusable(_)) => {
                let doubted = Some(doubted.unwrap_or(now));
                self.add(topic, Wait::InUse { doubted }, now + PAUSE_MIN);
            }
            // Kafka may be away; then the old answer holds.
            (Wait::InUse { .. }, Sight::Unseen | Sight::NotYet) => {
                self.add(topic, Wait::InUse { doubted: None }, now + PAUSE_MIN);
            }
        }
    }
}

fn watch<L: LookAtTopics>(tasks: &Tray<Task>, woken: &Receiver<()>, mut look: L) {
    let (mut watched, mut looked) = (WatchedTopics::default(), None::<Instant>);
    loop {
        let now = Instant::now();
        let due = watched
            .first_due()
            .map(|due| looked.map_or(due, |looked: Instant| due.max(looked + LOOK_PAUSE)));
        match woken.recv_timeout(due.map_or(IDLE, |due| due.saturating_duration_since(now))) {
            Ok(()) => {
                let now = Instant::now();
                tasks.take_all().into_iter().for_each(|task| watched.take_task(task, now));
            }
            Err(RecvTimeoutError::Timeout) => {
                watched.look(&mut look, Instant::now());
                looked = Some(Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Topics whose name begins with `u` cannot be used.
    #[derive(Default)]
    struct Book {
        usable: bool,
        looks: Vec<usize>,
        told: RefCell<Vec<String>>,
        refreshed: RefCell<Vec<(String, bool)>>,
    }

    impl LookAtTopics for Book {
        type Found = ();

        fn look(&mut self, topics: &[String]) -> Vec<Sight<()>> {
            self.looks.push(topics.len());
            let cause = || Error::new(ErrorKind::TopicUnavailable, "no leader");
            let is_usable = |topic: &String| self.usable || !topic.starts_with('u');
            let sight = |topic| match is_usable(topic) {
                true => Sight::Usable(()),
                false => Sight::Unusable(cause()),
            };
            topics.iter().map(sight).collect()
        }

        fn tell(&self, topic: String) {
            self.told.borrow_mut().push(topic);
        }

        fn refreshed(&self, topic: String, seen: Result<()>) {
            self.refreshed.borrow_mut().push((topic, seen.is_ok()));
        }
    }

    #[test]
    fn a_topic_is_told_once_and_pauses_grow() {
        let (mut watched, mut book, start) =
            (WatchedTopics::default(), Book::default(), Instant::now());
        watched.take_task(Task::Watch(vec!["u".into()]), start);
        let mut now = start;
        for pause in [1, 2, 4] {
            let due = watched.first_due().expect("it is watched");
            assert!(due.duration_since(now).as_secs() <= pause);
            now = due;
            watched.look(&mut book, now - Duration::from_millis(1));
            watched.look(&mut book, now);
        }
        assert_eq!(book.looks, [1, 1, 1], "it is not looked at before it is due");
        book.usable = true;
        watched.look(&mut book, now + 60 * PAUSE_MIN);
        assert_eq!(*book.told.borrow(), ["u"]);
        assert_eq!(*book.refreshed.borrow(), [("u".into(), true)]);
        assert_eq!(watched.first_due(), None);
    }

    #[test]
    fn thousands_are_looked_at_together() {
        let (mut watched, mut book, now) =
            (WatchedTopics::default(), Book::default(), Instant::now());
        let topics = (0..20_000).map(|number| format!("u{number}")).collect();
        watched.take_task(Task::Watch(topics), now);
        watched.take_task(Task::Refresh(vec!["a".into(), "b".into()]), now);
        watched.look(&mut book, now + PAUSE_MIN);
        assert_eq!(book.looks, [20_002]);
        assert_eq!(*book.refreshed.borrow(), [("a".into(), true), ("b".into(), true)]);
        assert_eq!(watched.due.len(), 20_000);
    }

    #[test]
    fn whoever_had_no_turn_comes_soon_and_before_the_others() {
        let (mut watched, now) = (WatchedTopics::default(), Instant::now());
        let book = Book::default();
        for topic in ["a", "b"] {
            let backoff = UNUSABLE.doubled().doubled();
            let wait = Wait::Unusable { backoff };
            watched.judge(&book, topic.into(), wait, Sight::NotYet, now);
        }
        let wait = Wait::Unusable { backoff: UNUSABLE };
        watched.judge(&book, "c".into(), wait, Sight::Unseen, now);
        assert_eq!(watched.first_due(), Some(now + PAUSE_MIN));
        let order: Vec<&str> = watched.due.values().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(order, ["a", "b", "c"]);
    }

    #[test]
    fn one_in_use_is_given_up_when_it_stays_unusable() {
        let (mut watched, mut book, now) =
            (WatchedTopics::default(), Book::default(), Instant::now());
        watched.take_task(Task::Refresh(vec!["u".into()]), now);
        watched.look(&mut book, now);
        watched.look(&mut book, now + 3 * PAUSE_MIN);
        assert!(book.refreshed.borrow().is_empty(), "a change of leaders takes a moment");
        watched.look(&mut book, now + 2 * DOUBT);
        assert_eq!(*book.refreshed.borrow(), [("u".into(), false)]);
        assert_eq!(watched.first_due(), None);
    }
}
