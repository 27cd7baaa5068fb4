//! Connections to PostgreSQL: sessions whose settings are ours, errors in our words.
//!
//! Promises: every session begins with `sql/queries/session.sql`, whatever the role's, the database's
//! and the server's defaults are; a dropped [`Connection`] leaves no task behind.
//! Must not: know the outbox. Send through a connection pooler: it would mix up the sessions.
//! Fails: with cause and remedy, by [`classify`].

mod certificate;
mod config;
mod connection_string;
mod driver;
mod environment;
mod errors;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod local;
mod lock_holder;
mod log_in;
mod password;
mod replication;
mod require_auth;
mod servers;
mod sql;
mod tls;
mod types;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use crate::postgres::config::{DatabaseConfig, is_near};
pub use crate::postgres::errors::{classify, is_about_a_value};
pub use crate::postgres::lock_holder::{HoldingSession, LockHolder, lock_holder};
pub use crate::postgres::password::PasswordSource;
pub use crate::postgres::replication::{
    Everything, Frame, LogStream, MessageSieve, ReplyWanted, Walsender, connect_walsender,
    may_copy_server,
};
pub use crate::postgres::sql::{Sql, fill, render, without_head};
pub use crate::postgres::types::{Lsn, PgSnapshot, RawBytes, Timestamp, Xid8};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::password::Unopened;
use crate::postgres::require_auth::{WatchedOpen, WatchedTls};
use crate::postgres::tls::Attempt;
use crate::schema;
use crate::throttle::Repeats;

const SESSION: &str = include_str!("../../sql/queries/session.sql");

/// A session of our own: its client, and the task that moves its bytes.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    task: JoinHandle<()>,
    _open: Open,
}

impl Connection {
    /// To send statements.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// To begin transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Connection {
    /// Closes the socket at once; the server ends the session and what it had not committed.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many sessions this process has.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Counts one of them as long as it lives.
#[derive(Debug)]
struct Open(());

impl Open {
    fn count() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many sessions with PostgreSQL are open in this process.
pub fn open_connections() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// Lost sessions, of which the log tells once per cause and pause.
static LOST: LazyLock<Repeats<Instant, Duration>> =
    LazyLock::new(|| Repeats::new(Duration::from_secs(10)));

/// How soon people are told of a lock, and how often it is looked whether there is one.
const LOCK_LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// Opens a session. `purpose` shows in `pg_stat_activity` as application_name `postrider <purpose>`, for another
/// schema than the usual one `postrider/<tag> <purpose>`.
///
/// # Errors
/// When no server answers, refuses us, or is hidden by a connection pooler.
pub async fn connect(database: &DatabaseConfig, purpose: &str) -> Result<Connection> {
    let name = database.display_name();
    let Some(patience) = database.patience() else { return open(database, purpose, &name).await };
    let opened = tokio::time::timeout(patience, open(database, purpose, &name)).await;
    opened.unwrap_or_else(|_| Err(no_answer(&format!("connect to {name}"), None)))
}

/// Gives whatever opens or ends a session the time in which all hosts together may be tried. A network
/// may fail right after a connection was made, and nobody hangs up; a lease, which ends sessions that get
/// no answer, is not held yet or no more.
///
/// # Errors
/// [`ErrorKind::PostgresUnavailable`] when it takes longer, with whoever holds a lock in its way; the work's own.
pub async fn with_timeout<T>(
    database: &DatabaseConfig,
    action: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(patience) = database.patience() else { return work.await };
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        // The work is ended, but the server notices that only some seconds later: who waited is to be seen still.
        Err(_) => Err(no_answer(action, lock_holder(database).await.as_ref())),
    }
}

/// The same for people who wait: they are told within seconds who holds a lock in the work's way, or that there is no
/// answer at all.
///
/// # Errors
/// [`ErrorKind::PostgresUnavailable`] when somebody does; the work's own.
pub async fn unless_locked<T>(
    database: &DatabaseConfig,
    action: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    let mut is_told = false;
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(LOCK_LOOK_INTERVAL) => {}
        }
        // While it is looked the work goes on.
        let looked = Instant::now();
        tokio::select! {
            done = &mut work => return done,
            holder = lock_holder(database) => {
                if let Some(holder) = holder {
                    return Err(no_answer(action, Some(&holder)));
                }
            }
        }
        // Work may be slow; a look that gets no answer either has met a server that gives none.
        if !is_told && looked.elapsed() >= lock_holder::PATIENCE {
            is_told = true;
            tracing::warn!(
                server = database.display_name(),
                remedy = "check that the server is up, and the network lets you through; connect_timeout in the URL says \
                          how long it is tried",
                "PostgreSQL gives no answer yet: it is waited for"
            );
        }
    }
}

fn no_answer(action: &str, holder: Option<&LockHolder>) -> Error {
    let unavailable = |words: String| Error::new(ErrorKind::PostgresUnavailable, words);
    match holder {
        Some(holder) => unavailable(format!("cannot {action}: it waits for {holder}"))
            .with_remedy(holder.remedy()),
        None => unavailable(format!("cannot {action}: no answer")).with_remedy(
            "check that the server is up, the network lets you through, and nobody holds locks on \
             postrider's tables",
        ),
    }
}

async fn open(database: &DatabaseConfig, purpose: &str, name: &str) -> Result<Connection> {
    let connection = database.log_in(|now| open_as(now, purpose, name)).await?;
    prepare(connection, name).await
}

/// A session with the credentials of this moment.
async fn open_as(
    database: DatabaseConfig,
    purpose: &str,
    name: &str,
) -> std::result::Result<Connection, Unopened> {
    let database = &database;
    let failed = |error: tokio_postgres::Error| {
        let is_password = errors::is_password_refusal(&error);
        let error = classify(&format!("connect to {name}"), error);
        if is_password { Unopened::Password(error) } else { Unopened::Otherwise(error) }
    };
    let mut drivers = servers::each_alone(&database.driver);
    let mut last = None;
    for number in database.last_server.order(&database.driver, drivers.len()) {
        let driver = drivers[number].application_name(application_name(purpose));
        match open_one(database, driver).await? {
            Ok(connection) => {
                database.last_server.note(number);
                return Ok(connection);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(failed(last.expect("a configuration names a server")))
}

/// One server, in each way that the settings let us go.
async fn open_one(
    database: &DatabaseConfig,
    driver: &mut tokio_postgres::Config,
) -> Result<OpenedConnection> {
    let attempts = attempts(database);
    let (last, first) = attempts.split_last().expect("every mode knows a way");
    for attempt in first {
        match open_once(database, driver, *attempt).await? {
            Err(error)
                if errors::is_about_encryption(&error) || errors::is_host_refusal(&error) =>
            {
                tracing::debug!(?attempt, %error, "trying with other encryption");
            }
            done => return Ok(done),
        }
    }
    open_once(database, driver, *last).await
}

/// What shows in `pg_stat_activity`.
fn application_name(purpose: &str) -> String {
    format!("{} {purpose}", schema::chosen().program())
}

/// The ways to try, in order.
fn attempts(database: &DatabaseConfig) -> &'static [Attempt] {
    if database.is_local() { &[Attempt::Open] } else { database.tls.attempts() }
}

type OpenedConnection = std::result::Result<Connection, tokio_postgres::Error>;

/// One attempt. The outer error is about our own files.
async fn open_once(
    database: &DatabaseConfig,
    driver: &mut tokio_postgres::Config,
    attempt: Attempt,
) -> Result<OpenedConnection> {
    let required = &database.required_auth;
    let may_fall_back = required.is_any() || driver.get_ssl_negotiation() == SslNegotiation::Direct;
    driver.ssl_mode(match attempt {
        Attempt::Open => SslMode::Disable,
        Attempt::EncryptedIfOffered if may_fall_back => SslMode::Prefer,
        // Where it is not offered, the next attempt is the open one, which is watched, too.
        Attempt::EncryptedIfOffered | Attempt::Encrypted => SslMode::Require,
    });
    match (attempt, required.is_any()) {
        (Attempt::Open, true) => Ok(spawn(driver, NoTls).await),
        (Attempt::Open, false) if database.is_local() => local::open(database, driver).await,
        (Attempt::Open, false) => {
            // Each server has a name, or the driver would not have it encrypted.
            let mut driver = driver.clone();
            if driver.get_hosts().is_empty() {
                for address in driver.get_hostaddrs().to_vec() {
                    driver.host(address.to_string());
                }
            }
            driver.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            Ok(spawn(&driver, WatchedOpen(required.clone())).await)
        }
        (Attempt::EncryptedIfOffered | Attempt::Encrypted, is_any) => {
            let tls =
                MakeRustlsConnect::new(database.tls.client_config(driver.get_ssl_negotiation())?);
            if is_any {
                return Ok(spawn(driver, tls).await);
            }
            Ok(spawn(driver, WatchedTls { inner: tls, required: required.clone() }).await)
        }
    }
}

async fn spawn<T>(driver: &tokio_postgres::Config, tls: T) -> OpenedConnection
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = driver.connect(tls).await?;
    Ok(guard(driver, client, connection))
}

/// Moves the bytes of a session until it is dropped.
fn guard<S, T>(
    driver: &tokio_postgres::Config,
    client: Client,
    connection: tokio_postgres::Connection<S, T>,
) -> Connection
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let purpose = driver.get_application_name().unwrap_or_default().to_owned();
    let task = tokio::spawn(async move {
        // The client only learns that the connection is closed; the reason is said here.
        if let Err(error) = connection.await {
            let error = classify("keep the connection", error);
            // All sessions of a process are lost together, mostly.
            if let Some(unsaid) = LOST.note(error.message(), Instant::now()) {
                tracing::warn!(session = %purpose, error = %error.message(), unsaid, "connection lost");
            }
        }
    });
    Connection { client, task, _open: Open::count() }
}

/// Gives the session its settings, and checks that it is PostgreSQL's own.
async fn prepare(connection: Connection, name: &str) -> Result<Connection> {
    let answer = connection.client.simple_query(SESSION).await;
    let answer = answer.map_err(|cause| classify("set up the session", cause))?;
    let direct = answer
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on")));
    if direct { Ok(connection) } else { Err(errors::pooler(name)) }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
