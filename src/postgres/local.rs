//! Sessions over sockets in the file system whose server is watched: the driver lets nothing stand between
//! itself and such a socket that it has opened by itself.
//!
//! Promises: the folders are tried in turn, as the driver does. Must not: be used where nothing is required of
//! the server. Fails: with the operating system's error, or the server's.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::error::Result;
use crate::postgres::require_auth::{RequiredAuth, WatchedStream};
use crate::postgres::servers::DEFAULT_PORT;
use crate::postgres::{Connection, DatabaseConfig, OpenedConnection, errors, guard};

const READ_ONLY: &str = include_str!("../../sql/queries/read_only.sql");

/// The first session that is had. The outer error comes before the server has a say.
pub(super) async fn open(database: &DatabaseConfig, driver: &Config) -> Result<OpenedConnection> {
    let mut last = None;
    for socket in sockets(driver) {
        match connect(&socket, driver, &database.required_auth).await {
            Ok(Ok(connection)) => return Ok(Ok(connection)),
            failed => last = Some(failed),
        }
    }
    last.expect("a configuration names a server").map_err(|cause| {
        let operation = format!("connect to {}", database.display_name());
        errors::worded(&operation, errors::explain_io(&cause)).with_source(cause)
    })
}

fn sockets(driver: &Config) -> impl Iterator<Item = PathBuf> {
    let ports = driver.get_ports();
    let folders = driver.get_hosts().iter().enumerate().filter_map(|(index, host)| match host {
        Host::Unix(folder) => Some((index, folder)),
        Host::Tcp(_) => None,
    });
    folders.map(|(index, folder)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        folder.join(format!(".s.PGSQL.{port}"))
    })
}

async fn connect(
    socket: &Path,
    driver: &Config,
    required: &RequiredAuth,
) -> io::Result<OpenedConnection> {
    let connecting = UnixStream::connect(socket);
    let stream = match driver.get_connect_timeout() {
        None => connecting.await?,
        Some(patience) => tokio::time::timeout(*patience, connecting).await??,
    };
    let opened = driver.connect_raw(WatchedStream::new(stream, required.clone()), NoTls).await;
    let connection = match opened {
        Ok((client, connection)) => guard(driver, client, connection),
        Err(error) => return Ok(Err(error)),
    };
    if driver.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
        return writable(connection).await;
    }
    Ok(Ok(connection))
}

/// The session, if its server takes writes.
async fn writable(connection: Connection) -> io::Result<OpenedConnection> {
    let rows = match connection.client().simple_query(READ_ONLY).await {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    let is_on = |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"));
    if rows.iter().any(is_on) {
        let cause = "database does not allow writes";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, cause));
    }
    Ok(Ok(connection))
}
