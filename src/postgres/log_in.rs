//! Opening a session with the password of the moment.
//!
//! Promises: a source that can change is asked at each session, and again when its password was refused.
//! Must not: keep a password, or know how a session is opened.
//! Fails: as the opening does; for a password that may be about to change, as an outage.

use crate::error::Result;
use crate::postgres::config::{DatabaseConfig, servers};
use crate::postgres::password::{ServerName, Unopened};

impl DatabaseConfig {
    /// Opens a session with the password as it is now. One that is refused may just be replaced: then the next
    /// one is tried at once, and nobody hears of it.
    ///
    /// # Errors
    /// As `open`; for a password that may be about to change, an outage.
    pub(super) async fn log_in<S, Opening>(&self, open: impl Fn(Self) -> Opening) -> Result<S>
    where
        Opening: Future<Output = std::result::Result<S, Unopened>>,
    {
        let mut now = self.now().await?;
        let mut opened = open(now.clone()).await;
        for pause in self.credentials.second_looks() {
            if !matches!(opened, Err(Unopened::Password(_))) {
                break;
            }
            tokio::time::sleep(*pause).await;
            let next = self.now().await?;
            if next.driver.get_password() != now.driver.get_password() {
                opened = open(next.clone()).await;
                now = next;
            }
        }
        match opened {
            Ok(session) => {
                self.credentials.let_in();
                Ok(session)
            }
            Err(Unopened::Password(error)) => Err(self.credentials.refused(error)),
            Err(Unopened::Otherwise(error)) => Err(error),
        }
    }

    /// The same with the password as it is now.
    ///
    /// # Errors
    /// When the file or the command gives none.
    pub(super) async fn now(&self) -> Result<Self> {
        let source = self.credentials.source();
        let password = source.read(self.server_name()).await;
        let password = password.map_err(|error| self.credentials.missing(error))?;
        let mut now = self.clone();
        if let Some(password) = password {
            now.driver.password(password);
        }
        Ok(now)
    }

    /// As libpq's password file calls the servers.
    fn server_name(&self) -> Option<ServerName> {
        let user = self.driver.get_user()?.to_owned();
        let database = self.driver.get_dbname().unwrap_or(&user).to_owned();
        let place = |(host, port): (String, u16)| {
            // The file calls this system's own socket folder "localhost".
            let is_own = ["/var/run/postgresql", "/tmp"].contains(&host.as_str());
            let host = if is_own { "localhost" } else { host.trim_matches(['[', ']']) };
            (host.to_owned(), port)
        };
        Some(ServerName { places: servers(&self.driver).map(place).collect(), database, user })
    }
}
