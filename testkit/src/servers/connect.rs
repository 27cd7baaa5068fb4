//! Kafka Connect with Debezium's PostgreSQL connector, as one standalone worker.
//!
//! Promises: fetched once through Maven; the worker runs when `start` returns, and its connectors are
//! being started; `stop` lets them send what they have read and save their offsets.
//! Must not: listen beyond 127.0.0.1, or keep offsets outside its folder.
//! Fails: when Java, Maven or the jars are missing, or with the last lines of the worker's log.

use crate::servers::cache;
use crate::servers::error::EmbeddedError;
use crate::servers::folder;
use crate::servers::hashes::Hashes;
use crate::servers::host::Host;
use crate::servers::java::Java;
use crate::servers::kafka_files::{class_path, property};
use crate::servers::maven::Maven;
use crate::servers::port::free_port;
use crate::servers::server::{Launch, Server, Signal, Workspace};
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const POM: &str = include_str!("connect.pom.xml");
const HASHES: &str = include_str!("connect.sha256");
/// The version of Debezium that the `pom.xml` names.
const VERSION: &str = "3.6.0.Final";
const NEEDED: &str = "it is needed once to fetch Kafka Connect and Debezium";
const CONNECTOR: &str = "io.debezium.connector.postgresql.PostgresConnector";

/// One connector.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Its name; a file's name, too.
    pub name: String,
    /// Its properties, but for name and class.
    pub properties: Vec<(String, String)>,
}

/// How to start the worker.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where programs and folders are.
    pub host: Host,
    /// The bootstrap servers.
    pub brokers: String,
    /// What the worker runs.
    pub connectors: Vec<Connector>,
    /// How long a start may take.
    pub start_deadline: Duration,
}

impl ConnectOptions {
    /// These connectors on this machine.
    #[must_use]
    pub fn new(brokers: &str, connectors: Vec<Connector>) -> Self {
        Self {
            host: Host::default(),
            brokers: brokers.to_owned(),
            connectors,
            start_deadline: Duration::from_secs(90),
        }
    }
}

/// A worker of Kafka Connect; dropped, it is gone with its folder.
#[derive(Debug)]
pub struct Connect {
    server: Server,
}

impl Connect {
    /// Starts a worker with its connectors.
    ///
    /// # Errors
    /// When Java 17 or the jars are neither there nor fetched, or the worker does not start.
    pub fn start(options: &ConnectOptions, progress: &dyn Fn(&str)) -> Result<Self, EmbeddedError> {
        let begin = Instant::now();
        let java = Java::find(&options.host)?;
        let jars =
            cache::part(&options.host, &format!("connect-{VERSION}"), |workspace, target| {
                let maven = Maven::find(&options.host, NEEDED)?;
                progress(&format!("fetching Debezium {VERSION} through Maven (39 MB, once)"));
                let what = format!("Debezium {VERSION}");
                maven.copy_dependencies(workspace, &what, POM, Some(&Hashes::new(HASHES)), target)
            })?;
        let workspace = Workspace::create(&options.host, "connect")?;
        let port = free_port()?;
        let mut arguments = java_options(&workspace);
        arguments.extend(["-classpath".into(), class_path(&jars)?]);
        arguments.push("org.apache.kafka.connect.cli.ConnectStandalone".into());
        arguments.extend(write_files(&workspace, options, port)?);
        let launch = Launch {
            name: "Kafka Connect".to_owned(),
            program: java.program.clone(),
            arguments,
            environment: Vec::new(),
            log: log_file(&workspace),
            end: Signal::Kill,
            run_as: workspace.run_as().clone(),
        };
        let server = Server::new(workspace, "Kafka Connect".to_owned());
        server.start(&launch, options.start_deadline, |_| {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        })?;
        progress(&format!(
            "Debezium {VERSION} (Java {}) started in {:.1} s",
            java.version,
            begin.elapsed().as_secs_f64()
        ));
        Ok(Self { server })
    }

    /// Stops the worker in an orderly way; one that is down already stays so.
    ///
    /// # Errors
    /// `TooSlow` when it did not stop within a minute (it was then killed).
    pub fn stop(&self) -> Result<(), EmbeddedError> {
        const DEADLINE: Duration = Duration::from_secs(60);
        self.server.stop(Signal::Terminate, DEADLINE)
    }

    /// The worker's log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        log_file(&self.server.workspace)
    }
}

fn log_file(workspace: &Workspace) -> PathBuf {
    workspace.folder().join("log")
}

fn java_options(workspace: &Workspace) -> Vec<OsString> {
    let mut temporary = OsString::from("-Djava.io.tmpdir=");
    temporary.push(workspace.folder());
    ["-Xmx384m", "-XX:+PerfDisableSharedMem", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        .into_iter()
        .chain(["-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"])
        .map(Into::into)
        .chain([temporary])
        .collect()
}

/// Writes the worker's file and one of each connector; gives their paths.
fn write_files(
    workspace: &Workspace,
    options: &ConnectOptions,
    port: u16,
) -> Result<Vec<OsString>, EmbeddedError> {
    let text = |lines: &[(&str, &str)]| {
        lines.iter().map(|(name, value)| property(name, value) + "\n").collect::<String>()
    };
    let offsets = workspace.folder().join("offsets");
    let worker = text(&[
        ("bootstrap.servers", &options.brokers),
        ("key.converter", "org.apache.kafka.connect.storage.StringConverter"),
        ("value.converter", "org.apache.kafka.connect.storage.StringConverter"),
        ("listeners", &format!("http://127.0.0.1:{port}")),
        ("offset.storage.file.filename", &offsets.to_string_lossy()),
        ("offset.flush.interval.ms", "1000"),
        // Everything lies in the class path; to look into each class takes seconds.
        ("plugin.discovery", "service_load"),
    ]);
    let mut files = vec![("worker".to_owned(), worker)];
    for Connector { name, properties } in &options.connectors {
        let mut lines = vec![("name", name.as_str()), ("connector.class", CONNECTOR)];
        lines.extend(properties.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        files.push((format!("connector-{name}"), text(&lines)));
    }
    let mut paths = Vec::with_capacity(files.len());
    for (name, text) in files {
        let path = workspace.folder().join(format!("{name}.properties"));
        folder::write(&path, &text, workspace.run_as())?;
        paths.push(path.into());
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_one_in_the_pom() {
        assert!(POM.contains(&format!("<version>{VERSION}</version>")));
    }
}
