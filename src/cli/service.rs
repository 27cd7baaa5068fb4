//! What a service manager is told: systemd's notify protocol (`Type=notify`, `WatchdogSec=`).
//!
//! Promises: ready is said once, when a session works, stands by or is paused; a sign of life is given while `/livez` would
//! answer 200, and not otherwise; a change of what the status says is told. Must not: hold up the relay, or let a text of
//! others write a line of its own. Fails: never; a manager that cannot be told is named in the log, once.
//!
//! Source: systemd's manual, `sd_notify(3)` and `sd_watchdog_enabled(3)`.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::legible;
use crate::metrics::counters::Monitor;
use crate::metrics::health::{HealthCheck, SessionState};
use crate::metrics::vitals::Vitals;

/// How often it is looked whether there is anything to tell.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often the status is written anew.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// So many signs of life are given in the time of which one has to come.
const SIGNS_PER_WATCHDOG: u32 = 3;
/// Of a status, people see the beginning.
const STATUS_CHARACTERS: usize = 400;
/// So many messages wait where the manager does not read.
const MESSAGES_MAX: usize = 4;
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Who started this process and wants to hear of it. A thread of its own sends: where the manager does not read, that
/// thread waits, and neither the relay nor its end does.
#[derive(Clone, Debug)]
pub(super) struct ServiceManager(SyncSender<Vec<ServiceMessage>>);

impl ServiceManager {
    /// The one that the environment names, if it names any.
    pub(super) fn of_environment() -> Option<Self> {
        std::env::var_os(NOTIFY_SOCKET)?;
        let (sender, messages) = sync_channel(MESSAGES_MAX);
        let thread = std::thread::Builder::new().name("service".to_owned());
        match thread.spawn(move || send(&messages)) {
            Ok(_) => Some(Self(sender)),
            Err(cause) => {
                warn(&cause);
                None
            }
        }
    }

    /// Tells how things are until the process ends.
    pub(super) fn watch_over(&self, monitor: Arc<Monitor>) {
        let watchdog = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
        let report = ServiceReport::new(monitor, watchdog, Instant::now());
        tokio::spawn(tell_on(self.clone(), report));
    }

    /// What is in flight lands now.
    pub(super) fn tell_stopping(&self) {
        let status = ServiceMessage::Status("stopping: what is in flight lands".to_owned());
        if self.0.try_send(vec![status, ServiceMessage::Stopping]).is_err() {
            tracing::debug!("the service manager does not read, and was not told of the stop");
        }
    }
}

/// What cannot be taken yet is told later, in order.
async fn tell_on(manager: ServiceManager, mut report: ServiceReport) {
    let mut late = None;
    loop {
        let told = late.take().unwrap_or_else(|| report.next(Instant::now()));
        if !told.is_empty()
            && let Err(TrySendError::Full(told)) = manager.0.try_send(told)
        {
            late = Some(told);
        }
        tokio::time::sleep(report.pause()).await;
    }
}

/// Sends what comes, until nobody is left that could tell anything.
fn send(messages: &Receiver<Vec<ServiceMessage>>) {
    let mut is_heard = true;
    for told in messages {
        let states: Vec<NotifyState<'_>> = told.iter().map(ServiceMessage::as_state).collect();
        if let Err(cause) = sd_notify::notify(&states)
            && std::mem::replace(&mut is_heard, false)
        {
            warn(&cause);
        }
    }
}

fn warn(cause: &io::Error) {
    tracing::warn!(
        %cause,
        remedy = "check NOTIFY_SOCKET, or unset it: a unit of Type=notify sets it",
        "the service manager cannot be told how things are"
    );
}

/// One line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServiceMessage {
    Ready,
    Stopping,
    Alive,
    Status(String),
}

impl ServiceMessage {
    fn as_state(&self) -> NotifyState<'_> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Stopping => NotifyState::Stopping,
            Self::Alive => NotifyState::Watchdog,
            Self::Status(words) => NotifyState::Status(words),
        }
    }
}

/// What was told, and what is to be told next.
#[derive(Debug)]
struct ServiceReport {
    monitor: Arc<Monitor>,
    vitals: Vitals,
    /// Within which a sign of life has to come, if anybody waits for one.
    watchdog: Option<Duration>,
    is_ready: bool,
    /// When a sign of life was given.
    alive_at: Option<Instant>,
    status: String,
    /// When the status was looked at, and what was published until then.
    looked: Option<(Instant, u64)>,
}

impl ServiceReport {
    fn new(monitor: Arc<Monitor>, watchdog: Option<Duration>, now: Instant) -> Self {
        let vitals = Vitals::new(Arc::clone(&monitor), now);
        Self {
            monitor,
            vitals,
            watchdog,
            is_ready: false,
            alive_at: None,
            status: String::new(),
            looked: None,
        }
    }

    /// A short watchdog is looked after more often.
    fn pause(&self) -> Duration {
        self.sign_interval().map_or(LOOK_INTERVAL, |interval| interval.min(LOOK_INTERVAL))
    }

    fn sign_interval(&self) -> Option<Duration> {
        self.watchdog.map(|within| within / SIGNS_PER_WATCHDOG)
    }

    fn next(&mut self, now: Instant) -> Vec<ServiceMessage> {
        let mut told = Vec::new();
        let becomes_ready = !self.is_ready && self.monitor.is_working();
        if becomes_ready {
            self.is_ready = true;
            told.push(ServiceMessage::Ready);
        }
        told.extend(self.status(becomes_ready, now).map(ServiceMessage::Status));
        told.extend(self.sign_of_life(now));
        told
    }

    fn sign_of_life(&mut self, now: Instant) -> Option<ServiceMessage> {
        let interval = self.sign_interval()?;
        let is_due = self.alive_at.is_none_or(|at| now.duration_since(at) >= interval);
        let is_alive = is_due && self.vitals.checks(now).iter().all(HealthCheck::is_well);
        is_alive.then(|| {
            self.alive_at = Some(now);
            ServiceMessage::Alive
        })
    }

    /// The status, if it is time for it and it says something new. What a stop says stays.
    fn status(&mut self, is_due: bool, now: Instant) -> Option<String> {
        let published = self.monitor.published();
        let passed = self.looked.map(|(at, before)| (now.duration_since(at), published - before));
        let is_due = is_due || passed.is_none_or(|(time, _)| time >= STATUS_INTERVAL);
        if !is_due || self.monitor.is_stopping() {
            return None;
        }
        self.looked = Some((now, published));
        let per_second = passed.map_or(0.0, |(time, events)| events as f64 / time.as_secs_f64());
        let status = legible::shown(&sentence(&self.monitor, per_second), STATUS_CHARACTERS);
        (status != self.status).then(|| {
            self.status.clone_from(&status);
            status
        })
    }
}

/// How things are, in one line.
fn sentence(monitor: &Monitor, per_second: f64) -> String {
    let checks = monitor.health().ready();
    let ill: Vec<String> = checks
        .iter()
        .filter(|check| !check.is_well())
        .map(|check| format!("{} {}", check.name, check.words))
        .collect();
    match monitor.session() {
        SessionState::Paused { reason } => format!("publishing is paused: {reason}"),
        SessionState::StandingBy => "standing by: another instance reads the log".to_owned(),
        SessionState::Between(None) => "starting".to_owned(),
        SessionState::Working if ill.is_empty() => working(monitor, per_second),
        SessionState::Working | SessionState::Between(Some(_)) | SessionState::Obstructed => {
            format!("not ready: {}", ill.join("; "))
        }
    }
}

fn working(monitor: &Monitor, per_second: f64) -> String {
    let mut words = format!("publishing {per_second:.0} events/s");
    if let Some(seen) = monitor.seen() {
        let oldest = seen.oldest_age_seconds.values().copied().fold(0.0, f64::max);
        let parked: u64 = seen.parked.values().sum();
        words.push_str(&format!(", the oldest that waits is {oldest:.1} s old, {parked} parked"));
    }
    words
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
