//! Debezium Server with the outbox event router, as it comes and tuned.
//!
//! Promises: fetched once through Maven; a table, publication and slot of its own for each run, so
//! that it reads nobody else's rows; a heap of 1 GB. Must not: be started cold, for a JVM needs
//! some hundred thousand events to warm up. Fails: when Java, Maven or the WAL are missing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use postrider_testkit::servers::{Host, fetched_archive, newest_java};
use tokio_postgres::Client;

use super::cdc_table;
use super::endpoints::Endpoints;
use super::peer::Profile;
use crate::audit::topic::EventSink;
use crate::measure::process::command_line;

/// The release that is measured.
const VERSION: &str = "3.6.0.Final";

/// The server's classes are made for this Java.
const LEAST_JAVA: u32 = 21;

/// The slot that it reads.
const SLOT: &str = "postrider_load_debezium";

/// Events that it relays before it is measured.
pub(crate) const WARM_UP_EVENTS: u64 = 300_000;

const COMMON: &str = include_str!("../../peers/debezium/common.properties");
const LAB: &str = include_str!("../../peers/debezium/lab.properties");
const TUNED: &str = include_str!("../../peers/debezium/tuned.properties");

impl Profile {
    const fn properties(self) -> &'static str {
        match self {
            Self::Lab => LAB,
            Self::Tuned => TUNED,
        }
    }

    const fn java_flags(self) -> &'static [&'static str] {
        match self {
            Self::Lab => &["-Xmx1g"],
            Self::Tuned => &["-Xmx1g", "-XX:+UseParallelGC"],
        }
    }
}

/// Fetches the server when it is not there and gives the part of the command line that all runs
/// share, up to the flags of the profile.
///
/// # Errors
/// When Java or Maven is missing, or Maven refuses.
pub(crate) fn install() -> Result<DebeziumServer> {
    let host = Host::default();
    let java = newest_java(&host, LEAST_JAVA)?;
    let coordinates = format!("io.debezium:debezium-server-dist:{VERSION}:tar.gz");
    let home = fetched_archive(&host, &format!("debezium-server-{VERSION}"), &coordinates)?;
    Ok(DebeziumServer { java: text(&java)?, home: text(&home)? })
}

/// An installed server.
#[derive(Clone, Debug)]
pub(crate) struct DebeziumServer {
    java: String,
    home: String,
}

impl DebeziumServer {
    /// Makes table and slot, writes the configuration into `folder` and gives the command line.
    ///
    /// # Errors
    /// When the WAL cannot be decoded, or the role may not make these.
    pub(crate) async fn prepare(
        &self,
        profile: Profile,
        client: &Client,
        endpoints: &Endpoints,
        sink: &EventSink,
        folder: &Path,
    ) -> Result<String> {
        cdc_table::make(client, &[SLOT]).await?;
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        let folder = folder.canonicalize().context("the run's folder has no path")?;
        let folder = text(&folder)?;
        let file = format!("{folder}/application.properties");
        fs::write(&file, properties(profile, endpoints, sink, &folder)?)
            .with_context(|| format!("cannot write {file}"))?;
        let jar = format!("{}/debezium-server-dist-{VERSION}-runner.jar", self.home);
        let java = [self.java.as_str()].into_iter().chain(profile.java_flags().iter().copied());
        let (locations, classes) =
            (format!("-Dquarkus.config.locations={file}"), format!("{jar}:{}/lib/*", self.home));
        let server = [
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
            &locations,
            "-cp",
            &classes,
            "io.debezium.server.Main",
        ];
        command_line(&java.chain(server).collect::<Vec<_>>())
    }
}

/// Takes table, slot and role away.
///
/// # Errors
/// When the slot is still being read.
pub(crate) async fn clean_up(client: &Client) -> Result<()> {
    cdc_table::remove(client, &[SLOT]).await
}

fn properties(
    profile: Profile,
    endpoints: &Endpoints,
    sink: &EventSink,
    folder: &str,
) -> Result<String> {
    let host = endpoints.tcp_host.as_deref().context("Debezium needs PostgreSQL over TCP")?;
    let fields = [
        ("{host}", host),
        ("{port}", &endpoints.login.port),
        ("{database}", &endpoints.login.database),
        ("{user}", cdc_table::ROLE),
        ("{password}", cdc_table::PASSWORD),
        ("{table}", cdc_table::TABLE),
        ("{slot}", SLOT),
        ("{publication}", cdc_table::PUBLICATION),
        ("{folder}", folder),
        ("{topic}", &sink.topic),
        ("{brokers}", &sink.brokers),
    ];
    let mut text = format!("{COMMON}{}", profile.properties());
    for (word, value) in fields {
        text = text.replace(word, value);
    }
    Ok(text)
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::endpoints::ServerLogin;
    use super::*;

    #[test]
    fn every_word_of_the_configuration_is_filled_in() {
        let login = ServerLogin {
            port: "1".to_owned(),
            database: "d".to_owned(),
            user: "u".to_owned(),
            password: String::new(),
        };
        let endpoints = Endpoints { login, tcp_host: Some("h".to_owned()), socket_folder: None };
        let sink = EventSink { brokers: "b:1".to_owned(), topic: "t".to_owned(), partitions: 8 };
        for profile in [Profile::Lab, Profile::Tuned] {
            let text = properties(profile, &endpoints, &sink, "/f").expect("complete");
            assert!(!text.contains('{') && !text.contains('}'), "{text}");
            assert!(text.contains("hostname=h\n") && text.contains("linger.ms="));
        }
    }
}
