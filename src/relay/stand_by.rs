//! Until an instance reads the log: one does, the others stand by.
//!
//! Promises: of those that wait, one goes on when the reader is gone, also one that is gone without a word; a
//! session that keeps them waiting and is no instance is named. Must not: know what an event says.
//! Fails: when PostgreSQL gives no answer for a lease; with the connection's error.

use std::time::{Duration, Instant};

use crate::capture::mode::{Way, read_state};
use crate::capture::slot::reader_lock::{Stranger, stranger, try_lock, unlock_the_silent};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::health::SessionState;
use crate::relay::instance::Instance;
use crate::relay::tasks::{Opened, STAND_BY_INTERVAL};
use crate::schema;

/// Who stands by for so long is not between two sessions of its own: another instance reads. A snapshot that
/// is kept for a copy holds back the vacuum of the whole database.
const HELD_PATIENCE: Duration = Duration::from_secs(3);

/// How ordering key by ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StandByEnd {
    /// It is this instance's turn: the lock of the log's reader is ours.
    Ours,
    /// The session is over before: the process is to stop, or the capture mode was changed.
    Over,
}

/// What people were told of the one that has the lock.
#[derive(Debug, PartialEq)]
enum ToldHolder {
    /// Nothing yet.
    Nothing,
    /// That another instance reads the log.
    Instance,
    /// That this session keeps the lock, and is no instance.
    Stranger(Stranger),
}

impl Instance {
    /// Waits for its turn. It has no lease that would end a session that gets no answer.
    pub(super) async fn stand_by(&self, opened: &Opened) -> Result<StandByEnd> {
        let (mut stop, since, mut told) = (self.stop.clone(), Instant::now(), ToldHolder::Nothing);
        let (way, patience) = (opened.way, Duration::from_secs(self.config.lease_seconds.into()));
        loop {
            let looked = tokio::select! {
                looked = tokio::time::timeout(patience, look_for_turn(opened, way, patience)) => {
                    looked.map_err(|_| no_answer(patience))??
                }
                _ = stop.changed() => return Ok(StandByEnd::Over),
            };
            match looked {
                Looked::Reader => return Ok(StandByEnd::Ours),
                Looked::OtherWay => return Ok(StandByEnd::Over),
                Looked::StandsBy => told = self.wait_for(opened, since, told).await?,
            }
            tokio::select! {
                () = tokio::time::sleep(STAND_BY_INTERVAL) => {}
                _ = stop.changed() => return Ok(StandByEnd::Over),
            }
        }
    }

    /// What is to be said and done while another one has the lock.
    async fn wait_for(
        &self,
        opened: &Opened,
        since: Instant,
        told: ToldHolder,
    ) -> Result<ToldHolder> {
        if told == ToldHolder::Nothing {
            tracing::info!("another instance reads the log; standing by");
            return Ok(ToldHolder::Instance);
        }
        if since.elapsed() > HELD_PATIENCE {
            self.held.give_up();
        }
        let patience = Duration::from_secs(self.config.lease_seconds.into());
        if since.elapsed() > patience {
            return self.look_for_a_stranger(opened, told, patience).await;
        }
        Ok(told)
    }

    /// Who keeps the lock for longer than a lease, and has none, is no instance: nothing is published.
    /// The session of one that is frozen is ended as soon.
    async fn look_for_a_stranger(
        &self,
        opened: &Opened,
        told: ToldHolder,
        silence: Duration,
    ) -> Result<ToldHolder> {
        let found = stranger(&opened.control, &self.name, silence).await?;
        let found = found.map_or(ToldHolder::Instance, ToldHolder::Stranger);
        self.monitor.set_session(match &found {
            ToldHolder::Stranger(_) => SessionState::Obstructed,
            ToldHolder::Nothing | ToldHolder::Instance => SessionState::StandingBy,
        });
        if let ToldHolder::Stranger(stranger) = &found
            && found != told
        {
            tracing::warn!(
                pid = stranger.pid,
                role = stranger.role,
                application = stranger.application_name,
                remedy = format!(
                    "end that session (pg_terminate_backend), and take the role's right on {} if it is none of the \
                     relay's",
                    schema::chosen().of("log_reader")
                ),
                "a session that is no instance keeps the lock of the log's reader: nothing is published"
            );
        }
        Ok(found)
    }
}

/// What an instance finds that would read the log.
enum Looked {
    /// It is the reader from here on.
    Reader,
    /// Another one is.
    StandsBy,
    /// Events are read in another way, or not at all.
    OtherWay,
}

async fn look_for_turn(opened: &Opened, way: Way, silence: Duration) -> Result<Looked> {
    if read_state(&opened.control).await?.way() != way {
        return Ok(Looked::OtherWay);
    }
    if try_lock(&opened.control).await? {
        return Ok(Looked::Reader);
    }
    if unlock_the_silent(&opened.control, silence).await? {
        tracing::warn!("the instance that read the WAL is silent; its session was ended");
    }
    Ok(Looked::StandsBy)
}

fn no_answer(patience: Duration) -> Error {
    let seconds = patience.as_secs();
    Error::new(
        ErrorKind::PostgresUnavailable,
        format!("PostgreSQL gave no answer within {seconds} s while standing by"),
    )
    .with_remedy("check the network and the server's load")
}
