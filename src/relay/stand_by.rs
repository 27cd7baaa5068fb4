//! Until an instance reads the log: one does, the others stand by.
//!
//! Promises: of those that wait, one goes on when the reader is gone, also one that is gone without a word; a
//! session that keeps them waiting and is no instance is named. Must not: know what an event says.
//! Fails: when PostgreSQL gives no answer for a lease; with the connection's error.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::capture::mode::{Mode, read_state};
use crate::capture::slot::reader_lock::{Stranger, stranger, try_lock, unlock_the_silent};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::Connection;
use crate::relay::Relay;
use crate::relay::log_session::STAND_BY_INTERVAL;
use crate::relay::poll_session::Opened;

/// Who stands by for so long is not between two sessions of its own: another instance reads. A snapshot that
/// is kept for a copy holds back the vacuum of the whole database.
const HELD_PATIENCE: Duration = Duration::from_secs(3);

impl Relay {
    /// Waits for its turn; false when the session is to end before. It has no lease that would end a
    /// session that gets no answer.
    pub(super) async fn become_reader(&self, opened: &Opened, mode: Mode) -> Result<bool> {
        let (mut stop, mut said, since) = (self.stop.clone(), false, Instant::now());
        let mut told = None;
        let patience = Duration::from_secs(self.config.lease_seconds.into());
        loop {
            let looked = tokio::select! {
                looked = tokio::time::timeout(patience, look_for_turn(opened, mode, patience)) => {
                    looked.map_err(|_| no_answer(patience))??
                }
                _ = stop.changed() => return Ok(false),
            };
            match looked {
                Looked::Reader => return Ok(true),
                Looked::OtherMode => return Ok(false),
                Looked::StandsBy if std::mem::replace(&mut said, true) => {
                    if since.elapsed() > HELD_PATIENCE {
                        self.give_up_held();
                    }
                    if since.elapsed() > patience {
                        self.look_for_a_stranger(&opened.control, &mut told).await?;
                    }
                }
                Looked::StandsBy => {
                    tracing::info!("another instance reads the log; standing by");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(STAND_BY_INTERVAL) => {}
                _ = stop.changed() => return Ok(false),
            }
        }
    }

    /// Who keeps the lock for longer than a lease, and has none, is no instance: nothing is published.
    async fn look_for_a_stranger(
        &self,
        control: &Connection,
        told: &mut Option<Stranger>,
    ) -> Result<()> {
        let found = stranger(control, &self.name).await?;
        self.monitor.set_working(found.is_none());
        if let Some(stranger) = found.as_ref().filter(|_| *told != found) {
            tracing::warn!(
                pid = stranger.pid,
                role = stranger.role,
                application = stranger.application_name,
                remedy = "end that session (pg_terminate_backend), and take the role's right on \
                          postrider.log_reader if it is none of the relay's",
                "a session that is no instance keeps the lock of the log's reader: nothing is published"
            );
        }
        *told = found;
        Ok(())
    }

    /// Ends the session that has made a slot and waits for this instance to copy by it.
    pub(super) fn give_up_held(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if held.is_some() {
            tracing::info!("another instance goes on: the snapshot for a copy is given up");
        }
    }
}

/// What an instance finds that would read the log.
enum Looked {
    /// It is the reader from here on.
    Reader,
    /// Another one is.
    StandsBy,
    /// Events are read in another way.
    OtherMode,
}

async fn look_for_turn(opened: &Opened, mode: Mode, silence: Duration) -> Result<Looked> {
    if read_state(&opened.control).await?.mode != mode {
        return Ok(Looked::OtherMode);
    }
    if try_lock(&opened.control).await? {
        return Ok(Looked::Reader);
    }
    if unlock_the_silent(&opened.control, silence).await? {
        tracing::warn!("the instance that read the log is silent; its session was ended");
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
