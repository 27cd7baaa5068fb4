//! Opening a session: which server, which encryption, who we are.
//!
//! Promises: servers are tried in turn with the settings of the driver's own sessions; one that takes
//! no writes is passed by when writes were asked for. Must not: outlive the caller's patience.
//! Fails: with the last server's fault.

use std::hash::{BuildHasher, RandomState};
use std::io;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs};

use crate::error::{Error, ErrorKind};
use crate::postgres::replication::authentication::{answer, authenticate, unexpected};
use crate::postgres::replication::fault::Fault;
use crate::postgres::replication::session::{Walsender, is_on};
use crate::postgres::replication::transport::{Transport, look_up};
use crate::postgres::replication::wire::Wire;
use crate::postgres::servers::DEFAULT_PORT;
use crate::postgres::tls::Attempt;
use crate::postgres::{DatabaseConfig, application_name, attempts};

const READ_ONLY: &str = include_str!("../../../sql/queries/read_only.sql");

/// What a replication session is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionScope {
    /// The log of one database, and its statements.
    Database,
    /// Every byte of the server.
    Server,
}

impl SessionScope {
    /// As the server is asked for it.
    fn parameter(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Server => "true",
        }
    }
}

/// One server that was named.
struct NamedServer<'a> {
    /// Where its socket is.
    place: HostPlace,
    port: u16,
    /// Whom its certificate must name.
    name: Option<&'a str>,
}

enum HostPlace {
    Network(String),
    Folder(std::path::PathBuf),
}

/// A session that is ready for statements.
pub(super) async fn open(
    database: &DatabaseConfig,
    purpose: &str,
    scope: SessionScope,
) -> Result<Wire, Fault> {
    let servers = servers(&database.driver)?;
    let mut last = None;
    for place in database.last_server.order(&database.driver, servers.len()) {
        let server = &servers[place];
        match open_one(database, purpose, scope, server).await {
            Ok(wire) => {
                database.last_server.note(place);
                return Ok(wire);
            }
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.expect("a configuration names a server"))
}

/// One server, in each way that the settings let us go.
async fn open_one(
    database: &DatabaseConfig,
    purpose: &str,
    scope: SessionScope,
    server: &NamedServer<'_>,
) -> Result<Wire, Fault> {
    let (last, first) = attempts(database).split_last().expect("every mode knows a way");
    for attempt in first {
        match open_server(database, purpose, scope, *attempt, server).await {
            Err(fault) if fault.asks_for_other_encryption() => {
                tracing::debug!(?attempt, ?fault, "trying with other encryption");
            }
            done => return done,
        }
    }
    open_server(database, purpose, scope, *last, server).await
}

/// The servers in the order in which they are tried.
fn servers(driver: &Config) -> Result<Vec<NamedServer<'_>>, Fault> {
    let (hosts, addresses, ports) =
        (driver.get_hosts(), driver.get_hostaddrs(), driver.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |given: usize| given == 0 || given == count;
    if !fits(hosts.len()) || !fits(addresses.len()) || !(ports.len() == 1 || fits(ports.len())) {
        let cause = "host, hostaddr and port do not name the same number of servers";
        let error = Error::new(ErrorKind::Config, cause);
        return Err(Fault::Ours(error.with_remedy("correct --database-url")));
    }
    let server = |index: usize| {
        let host = hosts.get(index);
        let name = match host {
            Some(Host::Tcp(name)) => Some(name.as_str()),
            _ => None,
        };
        let place = match (addresses.get(index), host) {
            (Some(address), _) => HostPlace::Network(address.to_string()),
            (None, Some(Host::Tcp(name))) => HostPlace::Network(name.clone()),
            (None, Some(Host::Unix(folder))) => HostPlace::Folder(folder.clone()),
            (None, None) => unreachable!("each index has a host or an address"),
        };
        let port = *ports.get(index).or(ports.first()).unwrap_or(&DEFAULT_PORT);
        NamedServer { place, port, name }
    };
    let mut servers: Vec<NamedServer<'_>> = (0..count).map(server).collect();
    shuffle(driver, &mut servers);
    Ok(servers)
}

/// Another order each time, where that is asked for.
fn shuffle<T>(driver: &Config, items: &mut Vec<T>) {
    if driver.get_load_balance_hosts() == LoadBalanceHosts::Random {
        let seed = RandomState::new();
        let mut keyed: Vec<(u64, T)> =
            items.drain(..).enumerate().map(|(index, item)| (seed.hash_one(index), item)).collect();
        keyed.sort_by_key(|(key, _)| *key);
        items.extend(keyed.into_iter().map(|(_, item)| item));
    }
}

async fn open_server(
    database: &DatabaseConfig,
    purpose: &str,
    scope: SessionScope,
    attempt: Attempt,
    server: &NamedServer<'_>,
) -> Result<Wire, Fault> {
    let driver = &database.driver;
    if attempt == Attempt::EncryptedIfOffered
        && driver.get_ssl_negotiation() == SslNegotiation::Direct
    {
        let cause = "sslnegotiation=direct leaves no way to go without encryption";
        let error = Error::new(ErrorKind::Config, cause);
        return Err(Fault::Ours(error.with_remedy("use sslmode=require or stronger with it")));
    }
    let host = match &server.place {
        HostPlace::Network(host) => host,
        HostPlace::Folder(folder) => {
            let timeout = driver.get_connect_timeout().copied();
            let transport = Transport::unix(folder, server.port, timeout).await?;
            let transport =
                transport.encrypt(attempt, driver.get_ssl_negotiation(), "", &database.tls).await?;
            return begin(database, purpose, scope, transport).await;
        }
    };
    let mut addresses = look_up(host, server.port).await?;
    shuffle(driver, &mut addresses);
    let name = server.name.unwrap_or(host);
    let mut last = Fault::Io(io::Error::other("lookup gave no address"));
    for address in addresses {
        let opened = async {
            let transport = Transport::tcp(address, driver).await?;
            let transport = transport
                .encrypt(attempt, driver.get_ssl_negotiation(), name, &database.tls)
                .await?;
            begin(database, purpose, scope, transport).await
        };
        match opened.await {
            Ok(wire) => return Ok(wire),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

/// From a socket to a session that may be used.
async fn begin(
    database: &DatabaseConfig,
    purpose: &str,
    scope: SessionScope,
    transport: Transport,
) -> Result<Wire, Fault> {
    let driver = &database.driver;
    let mut wire = Wire::new(transport);
    let user = match driver.get_user() {
        Some(user) => user.to_owned(),
        None => whoami::username().map_err(|cause| Fault::Io(io::Error::other(cause)))?,
    };
    let name = application_name(purpose);
    let options = driver.get_options().unwrap_or_default();
    let parameters = [
        Some(("client_encoding", "UTF8")),
        Some(("user", user.as_str())),
        driver.get_dbname().map(|database| ("database", database)),
        Some(("options", options)).filter(|_| !options.is_empty()),
        Some(("application_name", name.as_str())),
        Some(("replication", scope.parameter())),
    ];
    wire.put(|out| frontend::startup_message(parameters.into_iter().flatten(), out))?;
    authenticate(&mut wire, database, &user).await?;
    loop {
        match answer(&mut wire).await? {
            Message::BackendKeyData(_) | Message::ParameterStatus(_) => {}
            Message::ReadyForQuery(_) => break,
            _ => return Err(unexpected()),
        }
    }
    match driver.get_target_session_attrs() {
        TargetSessionAttrs::ReadWrite => writable(wire).await,
        _ => Ok(wire),
    }
}

/// The session, if its server takes writes.
async fn writable(wire: Wire) -> Result<Wire, Fault> {
    let mut walsender = Walsender::new(wire);
    let rows = walsender.ask(READ_ONLY).await?;
    if rows.iter().any(|row| row.first().is_some_and(is_on)) {
        let cause = "database does not allow writes";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, cause).into());
    }
    Ok(walsender.wire)
}
