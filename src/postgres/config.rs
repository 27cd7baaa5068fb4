//! Where the database is and how to get in: a connection string, filled from libpq's environment.
//!
//! Promises: everything means what it means to libpq; a password never shows.
//! Must not: open a connection or read a certificate.
//! Fails: [`ErrorKind::Config`] with the parameter's name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::{
    ChannelBinding, Host, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs,
};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection_string::{ConnectionString, invalid, shown};
use crate::postgres::environment::{EnvironmentSource, ProcessVariables};
use crate::postgres::password::{Credentials, PasswordSource};
use crate::postgres::require_auth::RequiredAuth;
use crate::postgres::servers::{DEFAULT_PORT, LastServer};
use crate::postgres::tls::{Identity, Roots, TlsSettings};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer is noticed after about half a minute, idle or not.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;

/// Variables of libpq that change where a connection goes or how safe it is, and that we cannot honour.
const REFUSED_VARIABLES: &[&str] = &[
    "PGSERVICE",
    "PGREQUIREPEER",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
];

/// Those that say what a connection string may say.
const VARIABLES: &[&str] = &[
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGDATABASE",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGOPTIONS",
    "PGTARGETSESSIONATTRS",
    "PGCHANNELBINDING",
    "PGLOADBALANCEHOSTS",
    "PGCONNECT_TIMEOUT",
    "PGGSSENCMODE",
    "PGREQUIREAUTH",
    "PGREQUIRESSL",
    "PGSSLMODE",
    "PGSSLNEGOTIATION",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
];

/// What could end a session before it has its settings, taken away at its start.
const UNHURRIED: &str = "-c statement_timeout=0 -c idle_session_timeout=0";

/// A startup option that reaches PostgreSQL, and that poolers refuse or swallow.
const DIRECT_MARK: &str = "-c postrider.direct=on";

/// Where the database is, who asks, and how the connection is protected.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub(super) driver: tokio_postgres::Config,
    pub(super) tls: TlsSettings,
    pub(super) credentials: Arc<Credentials>,
    /// How a server may ask who we are.
    pub(super) required_auth: RequiredAuth,
    pub(super) last_server: Arc<LastServer>,
}

impl DatabaseConfig {
    /// Reads a `postgres://` URL or `key=value` pairs; the `PG…` variables fill what is left open.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a parameter is not known or has no meaning.
    pub fn parse(url_or_dsn: &str) -> Result<Self> {
        Resolver { environment: &ProcessVariables }.resolve(url_or_dsn)
    }

    /// Reads the `PG…` variables alone, as `psql` without arguments does.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a variable has no meaning.
    pub fn from_environment() -> Result<Self> {
        Self::parse("")
    }

    /// The same with a password from elsewhere, found again for each session.
    #[must_use]
    pub fn with_password(self, source: PasswordSource) -> Self {
        Self { credentials: Arc::new(Credentials::of(source)), ..self }
    }

    /// The same as it was read from this file: a password in it is read again for each session.
    #[must_use]
    pub fn of_file(self, file: PathBuf) -> Self {
        match self.credentials.source() {
            PasswordSource::Given => self.with_password(PasswordSource::ConnectionString(file)),
            _ => self,
        }
    }

    /// The same for a long run: a password that is refused may be about to change, and is tried again for
    /// this long.
    #[must_use]
    pub fn patient_with_refusals(self, patience: Duration) -> Self {
        Self { credentials: Arc::new(self.credentials.be_patient(patience)), ..self }
    }

    /// `host:port/database`, without secrets, for logs and messages.
    pub fn display_name(&self) -> String {
        let servers: Vec<String> =
            servers(&self.driver).map(|(host, port)| format!("{host}:{port}")).collect();
        let database = self.database_name();
        format!("{}/{database}", servers.join(","))
    }

    /// The database's name; that of the user where none was given, as libpq has it.
    pub fn database_name(&self) -> &str {
        self.driver.get_dbname().or(self.driver.get_user()).unwrap_or_default()
    }

    /// Why the conversation with a server beyond this machine may be overheard or bent, if it may.
    pub fn weakness(&self) -> Option<&'static str> {
        let is_far = |(host, _): (String, u16)| !is_near(&host);
        let is_far = servers(&self.driver).any(is_far);
        self.tls.weakness().filter(|_| is_far)
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
pub(super) fn servers(driver: &tokio_postgres::Config) -> impl Iterator<Item = (String, u16)> {
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

/// Whether packets to it stay on this machine.
pub fn is_near(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host.starts_with('/')
        || host == "localhost"
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
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
    environment: &'a dyn EnvironmentSource,
}

impl Resolver<'_> {
    fn resolve(&self, text: &str) -> Result<DatabaseConfig> {
        if let Some(variable) = REFUSED_VARIABLES.iter().find(|name| self.is_set(name)) {
            return Err(Error::new(ErrorKind::Config, format!("{variable} is not supported"))
                .with_remedy(format!("unset {variable} and give --database-url")));
        }
        if let Some(variable) = VARIABLES.iter().find(|name| self.environment.is_no_text(name)) {
            let cause = format!("the environment variable {variable} is not UTF-8");
            return Err(Error::new(ErrorKind::Config, cause)
                .with_remedy(format!("correct or unset {variable}")));
        }
        let given = ConnectionString::split(text)?;
        let mut driver = tokio_postgres::Config::new();
        self.fill_server(&mut driver, &given)?;
        self.fill_session(&mut driver, &given)?;
        self.fill_patience(&mut driver, &given)?;
        let source = self.fill_password(&mut driver, &given);
        let tls = self.tls(&given)?;
        let required_auth = match self.value(&given, "require_auth", "PGREQUIREAUTH") {
            None => RequiredAuth::default(),
            Some(list) => RequiredAuth::parse(&list)?,
        };
        let credentials = Arc::new(Credentials::of(source));
        let last_server = Arc::default();
        Ok(DatabaseConfig { driver, tls, credentials, required_auth, last_server })
    }

    fn is_set(&self, variable: &str) -> bool {
        self.environment.get(variable).is_some()
    }

    /// A parameter as it was given, or as its variable says.
    fn value(&self, given: &ConnectionString, name: &str, variable: &str) -> Option<String> {
        let value = given.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        value.or_else(|| self.environment.get(variable))
    }

    fn fill_server(
        &self,
        driver: &mut tokio_postgres::Config,
        given: &ConnectionString,
    ) -> Result<()> {
        let names_server = given.get("host").is_some() || given.get("hostaddr").is_some();
        let list = |name: &str, variable: &str, counts: bool| {
            let given = given.get(name).map(str::to_owned);
            let found = given.or_else(|| self.environment.get(variable).filter(|_| counts));
            let parts = |list: String| list.split(',').map(str::to_owned).collect::<Vec<_>>();
            found.map(parts).unwrap_or_default()
        };
        let mut ports = Vec::new();
        for port in list("port", "PGPORT", true) {
            let port = if port.is_empty() { Ok(DEFAULT_PORT) } else { port.parse() };
            ports.push(port.map_err(|_| invalid_either(given, "port", "PGPORT"))?);
        }
        for port in &ports {
            driver.port(*port);
        }
        for address in list("hostaddr", "PGHOSTADDR", !names_server) {
            let address =
                address.parse().map_err(|_| invalid_either(given, "hostaddr", "PGHOSTADDR"))?;
            driver.hostaddr(address);
        }
        for (index, host) in list("host", "PGHOST", !names_server).into_iter().enumerate() {
            if !may_be_a_host(&host) {
                return Err(invalid_either(given, "host", "PGHOST"));
            }
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            driver.host(if host.is_empty() { default_host(port) } else { host });
        }
        if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
            driver.host(default_host(ports.first().copied().unwrap_or(DEFAULT_PORT)));
        }
        let user = given.get("user").map(str::to_owned);
        if let Some(user) = user.or_else(|| self.first(&["PGUSER", "USER", "LOGNAME"])) {
            driver.user(user);
        }
        if let Some(database) = self.value(given, "dbname", "PGDATABASE") {
            if database.contains("://") {
                return Err(invalid_either(given, "dbname", "PGDATABASE"));
            }
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
                let cause =
                    format!("target_session_attrs{} would not find the primary", shown(other));
                return Err(Error::new(ErrorKind::Config, cause)
                    .with_remedy("use any, read-write or primary: a standby cannot be relayed"));
            }
        }
        let word = |name: &str, variable: &str| self.value(given, name, variable);
        match word("channel_binding", "PGCHANNELBINDING").as_deref() {
            None | Some("prefer") => {}
            Some("disable") => {
                driver.channel_binding(ChannelBinding::Disable);
            }
            Some("require") => {
                driver.channel_binding(ChannelBinding::Require);
            }
            Some(_) => return Err(invalid_either(given, "channel_binding", "PGCHANNELBINDING")),
        }
        match word("load_balance_hosts", "PGLOADBALANCEHOSTS").as_deref() {
            None | Some("disable") => {}
            Some("random") => {
                driver.load_balance_hosts(LoadBalanceHosts::Random);
            }
            Some(_) => {
                return Err(invalid_either(given, "load_balance_hosts", "PGLOADBALANCEHOSTS"));
            }
        }
        match word("sslnegotiation", "PGSSLNEGOTIATION").as_deref() {
            None | Some("postgres") => {}
            Some("direct") => {
                driver.ssl_negotiation(SslNegotiation::Direct);
            }
            Some(_) => return Err(invalid_either(given, "sslnegotiation", "PGSSLNEGOTIATION")),
        }
        // Encryption by Kerberos is not there; libpq's `prefer` means that it may be missing.
        match word("gssencmode", "PGGSSENCMODE").as_deref() {
            Some("require") => {
                Err(Error::new(ErrorKind::Config, "gssencmode=require is not supported")
                    .with_remedy("use sslmode=verify-full to encrypt the connection"))
            }
            _ => Ok(()),
        }
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
        let seconds = |name: &str, usual: Duration| match given.get(name) {
            None => Ok(usual),
            Some(text) => match number::<i32>(name, text)? {
                // libpq: the system's own; ours then.
                ..=0 => Ok(usual),
                seconds => Ok(Duration::from_secs(u64::from(seconds.unsigned_abs()))),
            },
        };
        driver.keepalives_idle(seconds("keepalives_idle", KEEPALIVES_IDLE)?);
        driver.keepalives_interval(seconds("keepalives_interval", KEEPALIVES_INTERVAL)?);
        let retries = ["keepalives_count", "keepalives_retries"];
        let retries =
            retries.iter().find_map(|name| given.get(name).map(|count| number(name, count)));
        driver.keepalives_retries(retries.transpose()?.unwrap_or(KEEPALIVES_RETRIES));
        if let Some(keepalives) = given.get("keepalives") {
            driver.keepalives(number::<i32>("keepalives", keepalives)? != 0);
        }
        Ok(())
    }

    /// The password that was given; else where it is to be looked up.
    fn fill_password(
        &self,
        driver: &mut tokio_postgres::Config,
        given: &ConnectionString,
    ) -> PasswordSource {
        if let Some(password) = self.value(given, "password", "PGPASSWORD") {
            driver.password(password);
            return PasswordSource::Given;
        }
        let file = self.value(given, "passfile", "PGPASSFILE").map(PathBuf::from);
        let file = file.or_else(|| self.environment.home(".pgpass"));
        file.map_or(PasswordSource::Given, PasswordSource::PasswordFile)
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
            // libpq's way before sslmode.
            (None, None) => match self.environment.get("PGREQUIRESSL") {
                Some(required) if required.starts_with('1') => Some("require".parse()?),
                _ => None,
            },
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
                    .with_remedy("add sslkey=FILE with the certificate's key"));
            }
        };
        TlsSettings::new(mode, roots, identity)
    }

    fn first(&self, variables: &[&str]) -> Option<String> {
        variables.iter().find_map(|variable| self.environment.get(variable))
    }
}

fn variable_error(variable: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the environment variable {variable} has no meaning"))
        .with_remedy(format!("correct or unset {variable}"))
}

/// The error for a value that came from the string, or else from a variable.
fn invalid_either(given: &ConnectionString, name: &str, variable: &str) -> Error {
    if given.get(name).is_some() {
        invalid(&format!("the value of {name} has no meaning"))
    } else {
        variable_error(variable)
    }
}

/// A folder, an address or a name; nothing that holds what only another part of a string holds.
fn may_be_a_host(text: &str) -> bool {
    let strange = |character: char| "@/?&=#\"'".contains(character) || character.is_whitespace();
    text.starts_with('/') || !text.contains(strange)
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

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
