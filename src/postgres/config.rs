//! Where the database is and how to get in: a connection string, filled from libpq's environment.
//!
//! Promises: everything means what it means to libpq; a password never shows.
//! Must not: open a connection or read a certificate.
//! Fails: [`ErrorKind::Config`] with the parameter's name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{
    ChannelBinding, Host, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs,
};

use super::connection_string::{ConnectionString, invalid};
use super::environment::{self, Environment, Process, Server};
use super::tls::{Identity, Roots, TlsSettings};
use crate::error::{Error, ErrorKind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer is noticed after about half a minute, idle or not.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;
pub(super) const DEFAULT_PORT: u16 = 5432;

/// What could end a session before it has its settings, taken away at its start.
const UNHURRIED: &str = "-c statement_timeout=0 -c idle_session_timeout=0";

/// A startup option that reaches PostgreSQL, and that poolers refuse or swallow.
const DIRECT_MARK: &str = "-c postrider.direct=on";

/// Where the database is, who asks, and how the connection is protected.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub(super) driver: tokio_postgres::Config,
    pub(super) tls: TlsSettings,
}

impl DatabaseConfig {
    /// Reads a `postgres://` URL or `key=value` pairs; the `PG…` variables fill what is left open.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a parameter is not known or has no meaning.
    pub fn parse(url_or_dsn: &str) -> Result<Self> {
        Resolver { environment: &Process }.resolve(url_or_dsn)
    }

    /// Reads the `PG…` variables alone, as `psql` without arguments does.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a variable has no meaning.
    pub fn from_environment() -> Result<Self> {
        Self::parse("")
    }

    /// `host:port/database`, without secrets, for logs and messages.
    pub fn display_name(&self) -> String {
        let servers: Vec<String> =
            servers(&self.driver).map(|(host, port)| format!("{host}:{port}")).collect();
        let database = self.driver.get_dbname().or(self.driver.get_user()).unwrap_or_default();
        format!("{}/{database}", servers.join(","))
    }

    /// Whether a failover from one server to another is provided for.
    pub fn names_several_servers(&self) -> bool {
        servers(&self.driver).count() > 1
    }

    /// The longest that opening a connection may take, every host counted.
    pub(super) fn patience(&self) -> Option<Duration> {
        let hosts = u32::try_from(servers(&self.driver).count()).unwrap_or(u32::MAX);
        // A host may have two addresses, one of which says nothing.
        self.driver.get_connect_timeout().map(|each| each.saturating_mul(hosts.saturating_mul(2)))
    }

    /// Whether all servers are reached over sockets in the file system, where TLS does not exist.
    pub(super) fn is_local(&self) -> bool {
        self.driver.get_hostaddrs().is_empty()
            && self.driver.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)))
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DatabaseConfig")
            .field("name", &self.display_name())
            .field("user", &self.driver.get_user())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Hosts with their ports, in the order in which they are tried.
fn servers(driver: &tokio_postgres::Config) -> impl Iterator<Item = (String, u16)> {
    let ports = driver.get_ports();
    let names: Vec<String> = if driver.get_hosts().is_empty() {
        driver.get_hostaddrs().iter().map(ToString::to_string).collect()
    } else {
        driver.get_hosts().iter().map(host_name).collect()
    };
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| (name, *ports.get(index).or(ports.first()).unwrap_or(&DEFAULT_PORT)))
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => folder.display().to_string(),
    }
}

struct Resolver<'a> {
    environment: &'a dyn Environment,
}

impl Resolver<'_> {
    fn resolve(&self, text: &str) -> Result<DatabaseConfig> {
        if self.environment.get("PGSERVICE").is_some() {
            return Err(Error::new(ErrorKind::Config, "PGSERVICE is not supported")
                .with_remedy("Unset PGSERVICE and give --database-url"));
        }
        let given = ConnectionString::split(text)?;
        let mut driver = tokio_postgres::Config::from_str(&given.rest).map_err(|cause| {
            let reason = std::error::Error::source(&cause).map(ToString::to_string);
            invalid(&reason.unwrap_or_else(|| cause.to_string()))
        })?;
        self.fill_server(&mut driver)?;
        self.fill_session(&mut driver, &given)?;
        self.fill_patience(&mut driver, &given)?;
        self.fill_password(&mut driver, &given);
        let tls = self.tls(&given)?;
        Ok(DatabaseConfig { driver, tls })
    }

    /// A parameter as it was given, or as its variable says.
    fn value(&self, given: &ConnectionString, name: &str, variable: &str) -> Option<String> {
        let value = given.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        value.or_else(|| self.environment.get(variable))
    }

    fn fill_server(&self, driver: &mut tokio_postgres::Config) -> Result<()> {
        let port_given = !driver.get_ports().is_empty();
        let nowhere = driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty();
        for address in self.list("PGHOSTADDR").filter(|_| nowhere) {
            driver.hostaddr(address.parse().map_err(|_| variable_error("PGHOSTADDR"))?);
        }
        for host in self.list("PGHOST").filter(|_| nowhere) {
            driver.host(host);
        }
        for port in self.list("PGPORT").filter(|_| !port_given) {
            driver.port(port.parse().map_err(|_| variable_error("PGPORT"))?);
        }
        if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
            let port = driver.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
            driver.host(default_host(port));
        }
        if driver.get_user().is_none()
            && let Some(user) = self.first(&["PGUSER", "USER", "LOGNAME"])
        {
            driver.user(user);
        }
        if driver.get_dbname().is_none()
            && let Some(database) = self.environment.get("PGDATABASE")
        {
            driver.dbname(database);
        }
        Ok(())
    }

    fn fill_session(
        &self,
        driver: &mut tokio_postgres::Config,
        given: &ConnectionString,
    ) -> Result<()> {
        let options = self.value(given, "options", "PGOPTIONS").unwrap_or_default();
        driver.options(format!("{options} {UNHURRIED} {DIRECT_MARK}").trim_start());
        match self.value(given, "target_session_attrs", "PGTARGETSESSIONATTRS").as_deref() {
            None | Some("any") => {}
            Some("read-write" | "primary") => {
                driver.target_session_attrs(TargetSessionAttrs::ReadWrite);
            }
            Some(other) => {
                let cause = format!("target_session_attrs={other} would not find the primary");
                return Err(Error::new(ErrorKind::Config, cause)
                    .with_remedy("Use any, read-write or primary: a standby cannot be relayed"));
            }
        }
        if let Some(binding) = self.variable(given, "channel_binding", "PGCHANNELBINDING") {
            driver.channel_binding(match binding.as_str() {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err(variable_error("PGCHANNELBINDING")),
            });
        }
        if let Some(order) = self.variable(given, "load_balance_hosts", "PGLOADBALANCEHOSTS") {
            driver.load_balance_hosts(match order.as_str() {
                "disable" => LoadBalanceHosts::Disable,
                "random" => LoadBalanceHosts::Random,
                _ => return Err(variable_error("PGLOADBALANCEHOSTS")),
            });
        }
        if let Some(start) = self.variable(given, "sslnegotiation", "PGSSLNEGOTIATION") {
            driver.ssl_negotiation(match start.as_str() {
                "postgres" => SslNegotiation::Postgres,
                "direct" => SslNegotiation::Direct,
                _ => return Err(variable_error("PGSSLNEGOTIATION")),
            });
        }
        self.refuse_kerberos(given)
    }

    /// Encryption by Kerberos is not there; libpq's `prefer` means that it may be missing.
    fn refuse_kerberos(&self, given: &ConnectionString) -> Result<()> {
        match self.value(given, "gssencmode", "PGGSSENCMODE").as_deref() {
            Some("require") => {
                Err(Error::new(ErrorKind::Config, "gssencmode=require is not supported")
                    .with_remedy("Use sslmode=verify-full to encrypt the connection"))
            }
            _ => Ok(()),
        }
    }

    /// A variable whose parameter was not given to the driver.
    fn variable(&self, given: &ConnectionString, name: &str, variable: &str) -> Option<String> {
        if given.names(name) { None } else { self.environment.get(variable) }
    }

    fn fill_patience(
        &self,
        driver: &mut tokio_postgres::Config,
        given: &ConnectionString,
    ) -> Result<()> {
        // libpq: zero or less waits for ever, one is too short and becomes two.
        match self.value(given, "connect_timeout", "PGCONNECT_TIMEOUT") {
            None => {
                driver.connect_timeout(CONNECT_TIMEOUT);
            }
            Some(text) => {
                let seconds = number::<i32>("connect_timeout", &text)?;
                if let Ok(seconds @ 1..) = u64::try_from(seconds) {
                    driver.connect_timeout(Duration::from_secs(seconds.max(2)));
                }
            }
        }
        let user_timeout = match given.get("tcp_user_timeout") {
            None => TCP_USER_TIMEOUT,
            Some(text) => Duration::from_millis(number("tcp_user_timeout", text)?),
        };
        if !user_timeout.is_zero() {
            driver.tcp_user_timeout(user_timeout);
        }
        if !given.names("keepalives_idle") {
            driver.keepalives_idle(KEEPALIVES_IDLE);
        }
        if !given.names("keepalives_interval") {
            driver.keepalives_interval(KEEPALIVES_INTERVAL);
        }
        let retries = given.get("keepalives_count");
        let retries = retries.map(|count| number("keepalives_count", count)).transpose()?;
        driver.keepalives_retries(retries.unwrap_or(KEEPALIVES_RETRIES));
        Ok(())
    }

    fn fill_password(&self, driver: &mut tokio_postgres::Config, given: &ConnectionString) {
        if driver.get_password().is_some() {
            return;
        }
        let found = self.environment.get("PGPASSWORD").or_else(|| {
            let file = self.value(given, "passfile", "PGPASSFILE").map(PathBuf::from);
            let file = file.or_else(|| self.environment.home(".pgpass"))?;
            password_of_file(&file, driver)
        });
        if let Some(password) = found {
            driver.password(password);
        }
    }

    fn tls(&self, given: &ConnectionString) -> Result<TlsSettings> {
        let in_home = |name: &str| {
            let path = self.environment.home(".postgresql")?.join(name);
            path.is_file().then_some(path)
        };
        let mode = match (self.value(given, "sslmode", "PGSSLMODE"), given.get("ssl")) {
            (Some(mode), _) => Some(mode.parse()?),
            (None, Some("true")) => Some("require".parse()?),
            (None, Some(_)) => return Err(invalid("ssl can only be true")),
            (None, None) => None,
        };
        let roots = match self.value(given, "sslrootcert", "PGSSLROOTCERT") {
            Some(system) if system == "system" => Some(Roots::System),
            Some(file) => Some(Roots::File(file.into())),
            None => in_home("root.crt").map(Roots::File),
        };
        let file = |name, variable, default: &str| {
            let given = self.value(given, name, variable).map(PathBuf::from);
            given.or_else(|| in_home(default))
        };
        let certificate = file("sslcert", "PGSSLCERT", "postgresql.crt");
        let key = file("sslkey", "PGSSLKEY", "postgresql.key");
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, _) => None,
            (Some(_), None) => {
                return Err(Error::new(ErrorKind::Config, "there is an sslcert, but no sslkey")
                    .with_remedy("Add sslkey=FILE with the certificate's key"));
            }
        };
        TlsSettings::new(mode, roots, identity)
    }

    fn list(&self, variable: &str) -> impl Iterator<Item = String> + use<> {
        let value = self.environment.get(variable).unwrap_or_default();
        let parts: Vec<String> = value.split(',').map(str::to_owned).collect();
        parts.into_iter().filter(|part| !part.is_empty())
    }

    fn first(&self, variables: &[&str]) -> Option<String> {
        variables.iter().find_map(|variable| self.environment.get(variable))
    }
}

fn variable_error(variable: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the environment variable {variable} has no meaning"))
        .with_remedy(format!("Correct or unset {variable}"))
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| invalid(&format!("{name} is not a number that fits")))
}

/// libpq's default: the socket folder of this system, or this host.
fn default_host(port: u16) -> String {
    let folders = ["/var/run/postgresql", "/tmp"];
    let has_socket = |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    (*folders.iter().find(has_socket).unwrap_or(&"localhost")).to_owned()
}

fn password_of_file(file: &Path, driver: &tokio_postgres::Config) -> Option<String> {
    let user = driver.get_user()?;
    let database = driver.get_dbname().unwrap_or(user);
    servers(driver).find_map(|(host, port)| {
        // The file calls this system's own socket folder "localhost".
        let local = ["/var/run/postgresql", "/tmp"].contains(&host.as_str());
        let host = if local { "localhost" } else { host.trim_matches(['[', ']']) };
        environment::password(file, &Server { host, port, database, user })
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
