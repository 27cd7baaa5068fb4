//! The two endpoints of one PostgreSQL server: loopback or network, and the unix socket.
//!
//! Promises: both lead to the server that the given one leads to. Must not: guess; an endpoint that
//! is not of this server is absent. Fails: when the server does not answer where it was said to be.

use std::str::FromStr;

use anyhow::{Context, Result};
use tokio_postgres::Client;
use tokio_postgres::config::{Config, Host};

use crate::workload::outbox;

/// Where a server is, without how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct ServerLogin {
    /// The TCP port, which is also the number of the socket.
    pub(crate) port: String,
    /// The database.
    pub(crate) database: String,
    /// The user.
    pub(crate) user: String,
    /// The password, if one is needed.
    pub(crate) password: String,
}

/// The endpoints of a server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    /// Who logs in.
    pub(crate) login: ServerLogin,
    /// The host for TCP.
    pub(crate) tcp_host: Option<String>,
    /// The folder of the unix socket.
    pub(crate) socket_folder: Option<String>,
}

impl ServerLogin {
    /// A connection string without the password, as libpq takes it.
    pub(crate) fn conninfo(&self, host: &str) -> String {
        let fields = [
            ("host", host),
            ("port", &self.port),
            ("dbname", &self.database),
            ("user", &self.user),
        ];
        fields.map(|(name, value)| format!("{name}={}", quoted(value))).join(" ")
    }

    /// The same with the password, for this tool's own connections.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("{} password={}", self.conninfo(host), quoted(&self.password))
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

impl Endpoints {
    /// Asks the server and tries both endpoints.
    ///
    /// # Errors
    /// As the module says.
    pub(crate) async fn find(client: &Client, database_url: &str) -> Result<Self> {
        let config = Config::from_str(database_url).context("--database-url cannot be read")?;
        let row = client
            .query_one(
                "select current_setting('port'), current_database(), session_user::text, \
                 split_part(current_setting('unix_socket_directories'), ',', 1), \
                 pg_postmaster_start_time()::text",
                &[],
            )
            .await
            .context("PostgreSQL does not answer")?;
        let password = config.get_password().unwrap_or_default();
        let login = ServerLogin {
            port: row.get(0),
            database: row.get(1),
            user: row.get(2),
            password: String::from_utf8(password.to_vec()).context("the password is not text")?,
        };
        let started: String = row.get(4);
        let given = config.get_hosts().iter().find_map(|host| match host {
            Host::Tcp(name) => Some(name.clone()),
            Host::Unix(_) => None,
        });
        let (tcp, socket) = (given.unwrap_or_else(|| "127.0.0.1".to_owned()), row.get(3));
        Ok(Self {
            tcp_host: leads_there(&login, tcp, &started).await,
            socket_folder: leads_there(&login, socket, &started).await,
            login,
        })
    }
}

/// The host, if the server that answers there is the one that was started then.
async fn leads_there(login: &ServerLogin, host: String, started: &str) -> Option<String> {
    if host.is_empty() {
        return None;
    }
    let start_time = async {
        let client = outbox::connect(&login.url(&host)).await?;
        let row = client.query_one("select pg_postmaster_start_time()::text", &[]).await?;
        anyhow::Ok(row.get::<_, String>(0))
    };
    let same = start_time.await.is_ok_and(|start| start == started);
    same.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_survives_strange_values() {
        let login = ServerLogin {
            port: "5432".to_owned(),
            database: "it's".to_owned(),
            user: r"back\slash".to_owned(),
            password: "a b".to_owned(),
        };
        let config = Config::from_str(&login.url("/tmp/s t")).expect("readable");
        assert_eq!(config.get_dbname(), Some("it's"));
        assert_eq!(config.get_user(), Some(r"back\slash"));
        assert_eq!(config.get_password(), Some(b"a b".as_slice()));
        assert!(!login.conninfo("h").contains("password"));
    }
}
