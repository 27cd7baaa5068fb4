//! An Apache Kafka broker of our own: broker and controller in one node (KRaft), alone or one of some.
//!
//! Promises: a client gets the broker in its metadata when `start` returns, and every partition on
//! the data has its leader; records survive `stop`,
//! `kill` and `start_again`, and are removed with the handle. Must not: listen beyond 127.0.0.1.
//! Fails: when Java or Kafka's jars are missing, or with the last lines of the broker's log.

use crate::servers::error::EmbeddedError;
use crate::servers::folder;
use crate::servers::host::Host;
use crate::servers::java::Java;
use crate::servers::kafka_files;
pub use crate::servers::kafka_files::Listener;
use crate::servers::kafka_files::{NodePlace, OWN_PROPERTIES};
use crate::servers::port::free_port;
use crate::servers::server::{Launch, Server, Signal, Workspace};
use rdkafka::ClientConfig;
use rdkafka::metadata::{MetadataBroker, MetadataPartition};
use rdkafka::producer::{BaseProducer, Producer as _};
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A port can be taken between the choice and the start.
const PORT_TRIES: usize = 3;
const FORMAT_DEADLINE: Duration = Duration::from_secs(60);

/// How the Java machine compiles the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum JavaCompiler {
    /// A fast start and little processor time: for tests and short runs.
    #[default]
    QuickStart,
    /// Full speed after a while, and the G1 collector: for measurements.
    FullSpeed,
}

/// Whether a topic comes into being when it is first asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TopicCreation {
    /// The broker makes it.
    #[default]
    Automatic,
    /// An admin client must make it first.
    Explicit,
}

/// The Java heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Size at the start.
    pub initial_megabytes: u32,
    /// Size at most.
    pub largest_megabytes: u32,
}

/// How to start a Kafka broker.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Where programs and folders are.
    pub host: Host,
    /// Partitions of a topic that is made without a number.
    pub partitions: u32,
    /// Whether unknown topics are made.
    pub topic_creation: TopicCreation,
    /// The port of a proxy: the broker listens on one port more, [`Kafka::proxied_port`], and tells the
    /// clients that come to it that it is to be reached at this one.
    pub proxy_port: Option<u16>,
    /// Further listeners; what protects them is said by properties.
    pub listeners: Vec<Listener>,
    /// Users who come in by SCRAM-SHA-256 and SCRAM-SHA-512, with their passwords.
    pub scram_users: Vec<(String, String)>,
    /// Broker properties, after ours: the last one wins.
    pub properties: Vec<(String, String)>,
    /// The Java heap.
    pub heap: Heap,
    /// How Java compiles.
    pub compiler: JavaCompiler,
    /// The archive from which Java takes the classes, which [`kafka_classes`](crate::servers::kafka_classes) makes;
    /// else from Kafka's jars, as a deployed broker does.
    pub class_archive: Option<PathBuf>,
    /// More options for Java.
    pub java_options: Vec<String>,
    /// How long a start may take.
    pub start_deadline: Duration,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            host: Host::default(),
            partitions: 8,
            topic_creation: TopicCreation::default(),
            proxy_port: None,
            listeners: Vec::new(),
            scram_users: Vec::new(),
            properties: Vec::new(),
            heap: Heap { initial_megabytes: 256, largest_megabytes: 512 },
            compiler: JavaCompiler::default(),
            class_archive: None,
            java_options: Vec::new(),
            start_deadline: Duration::from_secs(90),
        }
    }
}

/// A Kafka broker; dropped, it is gone with its folder.
#[derive(Debug)]
pub struct Kafka {
    server: Server,
    options: KafkaOptions,
    java: Java,
    class_path: OsString,
    brokers: String,
    place: NodePlace,
}

impl Kafka {
    /// Formats a new storage and starts a broker on it.
    ///
    /// # Errors
    /// When Java 17 or Kafka's jars are neither there nor fetched, a property is refused, or the
    /// broker does not start.
    pub fn start(options: KafkaOptions, progress: &dyn Fn(&str)) -> Result<Self, EmbeddedError> {
        let begin = Instant::now();
        let mut kafka = Self::prepare(options, progress)?;
        let controller = free_port()?;
        kafka.settle(1, vec![(1, controller)])?;
        kafka.format(&new_identity())?;
        kafka.start_somewhere()?;
        progress(&format!(
            "Apache Kafka {} (Java {}) ready on port {} in {:.1} s",
            kafka.version(),
            kafka.java.version,
            kafka.place.broker,
            begin.elapsed().as_secs_f64()
        ));
        Ok(kafka)
    }

    /// A broker that is not formatted, and has no place yet.
    pub(super) fn prepare(
        options: KafkaOptions,
        progress: &dyn Fn(&str),
    ) -> Result<Self, EmbeddedError> {
        check_properties(&options.properties)?;
        let java = Java::find(&options.host)?;
        let jars = kafka_files::jars(&options.host, progress)?;
        let class_path = kafka_files::class_path(&jars)?;
        let workspace = Workspace::create(&options.host, "kafka")?;
        folder::make(&temporary_folder(workspace.folder()), 0o700, workspace.run_as())?;
        let name = format!("Kafka {}", kafka_files::version(&options.host));
        let server = Server::new(workspace, name);
        let (brokers, place) = (String::new(), NodePlace::default());
        Ok(Self { server, options, java, class_path, brokers, place })
    }

    /// Starts the stopped or killed broker on the same data and port. After a kill this takes about
    /// four seconds: the broker's old session must end first. Other calls wait until it is done.
    ///
    /// # Errors
    /// `AlreadyRunning`, or when it does not start.
    pub fn start_again(&self) -> Result<(), EmbeddedError> {
        let client: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?;
        let arguments = ["kafka.Kafka".into(), self.properties_file().into()];
        self.server.start(&self.launch("Kafka", arguments), self.options.start_deadline, |_| {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.place.broker)).is_ok()
                && answers(&client, &self.place)
        })
    }

    /// Stops the broker in an orderly way; one that is down already stays so.
    ///
    /// # Errors
    /// `TooSlow` when it did not stop within a minute (it was then killed).
    pub fn stop(&self) -> Result<(), EmbeddedError> {
        const DEADLINE: Duration = Duration::from_secs(60);
        self.server.stop(Signal::Terminate, DEADLINE)
    }

    /// Kills the broker (`kill -9`).
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&self) -> Result<(), EmbeddedError> {
        self.server.kill()
    }

    /// Halts the broker where it is (SIGSTOP): its connections stay open and nothing answers.
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn freeze(&self) -> Result<(), EmbeddedError> {
        self.server.signal_family(Signal::Stop)
    }

    /// Lets a frozen broker go on. After more than three seconds it has lost its session: for about
    /// half a second its partitions have no leader, and clients must try again.
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn thaw(&self) -> Result<(), EmbeddedError> {
        self.server.signal_family(Signal::Continue)
    }

    /// The bootstrap servers, as `127.0.0.1:port`.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The broker's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.place.broker
    }

    /// The port behind the proxy that [`KafkaOptions::proxy_port`] names.
    #[must_use]
    pub fn proxied_port(&self) -> Option<u16> {
        self.place.proxied.map(|(port, _)| port)
    }

    /// Where clients find one of [`KafkaOptions::listeners`].
    #[must_use]
    pub fn brokers_at(&self, listener: &str) -> Option<String> {
        let found = self.place.more.iter().find(|(more, _)| more.name == listener);
        found.map(|(_, port)| format!("localhost:{port}"))
    }

    /// The broker's version.
    #[must_use]
    pub fn version(&self) -> &str {
        kafka_files::version(&self.options.host)
    }

    /// The folder of all that is this broker's.
    pub(super) fn folder(&self) -> &Path {
        self.server.workspace.folder()
    }

    /// The broker's log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// The folder of the broker's records.
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The number of the broker's process, while it runs.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn process_id(&self) -> Result<Option<u32>, EmbeddedError> {
        self.server.process_id()
    }

    /// Chooses ports, for a node of the cluster with these controllers.
    pub(super) fn settle(
        &mut self,
        node: u32,
        controllers: Vec<(u32, u16)>,
    ) -> Result<(), EmbeddedError> {
        let mut taken: Vec<u16> = controllers.iter().map(|(_, port)| *port).collect();
        let broker = port_besides(&mut taken)?;
        let proxied = match self.options.proxy_port {
            None => None,
            Some(proxy) => Some((port_besides(&mut taken)?, proxy)),
        };
        let mut more = Vec::with_capacity(self.options.listeners.len());
        for listener in &self.options.listeners {
            more.push((listener.clone(), port_besides(&mut taken)?));
        }
        self.place = NodePlace { node, broker, controllers, proxied, more };
        self.brokers = format!("127.0.0.1:{broker}");
        let text = kafka_files::properties(
            &self.data_folder(),
            &self.place,
            self.options.partitions,
            self.options.topic_creation == TopicCreation::Automatic,
            &self.options.properties,
        );
        folder::write(&self.properties_file(), &text, self.server.workspace.run_as())
    }

    /// Writes the cluster's identity and first metadata, as a new cluster needs.
    pub(super) fn format(&self, identity: &str) -> Result<(), EmbeddedError> {
        let arguments = ["kafka.tools.StorageTool", "format", "--cluster-id", identity, "--config"]
            .map(OsString::from)
            .into_iter()
            .chain([self.properties_file().into()])
            .chain(self.options.scram_users.iter().flat_map(scram_user));
        let launch = self.launch("formatting Kafka's storage", arguments);
        self.server.workspace.run(&launch, FORMAT_DEADLINE)
    }

    fn start_somewhere(&mut self) -> Result<(), EmbeddedError> {
        let mut tries = 1;
        while let Err(error) = self.start_again() {
            if tries == PORT_TRIES || !is_port_taken(&error) {
                return Err(error);
            }
            tries += 1;
            let controller = free_port()?;
            self.settle(1, vec![(1, controller)])?;
        }
        Ok(())
    }

    fn properties_file(&self) -> PathBuf {
        self.folder().join("server.properties")
    }

    fn launch(&self, name: &str, arguments: impl IntoIterator<Item = OsString>) -> Launch {
        let mut all = java_options(&self.options, self.folder());
        all.extend(["-classpath".into(), self.class_path.clone()]);
        all.extend(arguments);
        Launch {
            name: name.to_owned(),
            program: self.java.program.clone(),
            arguments: all,
            environment: Vec::new(),
            log: self.log_file(),
            // The data is removed next, so nothing is lost by a hard end.
            end: Signal::Kill,
            run_as: self.server.workspace.run_as().clone(),
        }
    }
}

/// How the storage is told of a user before the broker's first start.
fn scram_user((name, password): &(String, String)) -> Vec<OsString> {
    let one = |mechanism: &str| {
        let credential = format!("{mechanism}=[name={name},password={password}]");
        ["--add-scram".into(), credential.into()]
    };
    ["SCRAM-SHA-256", "SCRAM-SHA-512"].into_iter().flat_map(one).collect()
}

fn java_options(options: &KafkaOptions, folder: &Path) -> Vec<OsString> {
    let heap = options.heap;
    let mut all = vec![
        format!("-Xms{}m", heap.initial_megabytes),
        format!("-Xmx{}m", heap.largest_megabytes),
        // Otherwise a killed Java leaves a file in the system's temporary folder.
        "-XX:+PerfDisableSharedMem".to_owned(),
        "-Djava.awt.headless=true".to_owned(),
        // Compression libraries are unpacked here.
        format!("-Djava.io.tmpdir={}", temporary_folder(folder).display()),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".to_owned(),
    ];
    let compiler: &[&str] = match options.compiler {
        JavaCompiler::QuickStart => &["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"],
        JavaCompiler::FullSpeed => &["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"],
    };
    all.extend(compiler.iter().map(|option| (*option).to_owned()));
    let archive = options.class_archive.iter();
    all.extend(archive.map(|file| format!("-XX:SharedArchiveFile={}", file.display())));
    all.extend(options.java_options.iter().cloned());
    all.into_iter().map(Into::into).collect()
}

fn temporary_folder(folder: &Path) -> PathBuf {
    folder.join("tmp")
}

fn check_properties(properties: &[(String, String)]) -> Result<(), EmbeddedError> {
    match properties.iter().find(|(name, _)| OWN_PROPERTIES.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(EmbeddedError::Setting {
            name: "Kafka",
            setting: name.clone(),
            reason: "the embedded broker chooses it itself",
        }),
    }
}

/// A free port that is none of those that were chosen before.
fn port_besides(taken: &mut Vec<u16>) -> Result<u16, EmbeddedError> {
    loop {
        let port = free_port()?;
        if !taken.contains(&port) {
            taken.push(port);
            return Ok(port);
        }
    }
}

/// The identity of a new cluster.
pub(super) fn new_identity() -> String {
    cluster_identity(uuid::Uuid::new_v4().as_u128())
}

/// Kafka writes a cluster's number as 16 bytes in URL-safe base64 without padding: 22 characters.
/// The first bit is dropped: a first character `-` would be read as an option.
fn cluster_identity(number: u128) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = number >> 1;
    // 22 characters hold 132 bits: the number's 128 and four zeros at the end.
    let digit = |place: u32| {
        let bits = if place == 21 { number << 4 } else { number >> (122 - 6 * place) };
        char::from(ALPHABET[(bits & 63) as usize])
    };
    (0..22).map(digit).collect()
}

/// True when the broker has registered itself, so that a client finds it in the metadata, and every
/// partition that it had before has a leader: each one is asked, because the metadata is a little
/// ahead. In a cluster the other nodes may be away, and their partitions with them.
fn answers(client: &BaseProducer, place: &NodePlace) -> bool {
    const WAIT: Duration = Duration::from_secs(1);
    let client = client.client();
    let Ok(metadata) = client.fetch_metadata(None, WAIT) else { return false };
    let registered = |broker: &MetadataBroker| u32::try_from(broker.id()) == Ok(place.node);
    let leads = |topic: &str, partition: &MetadataPartition| {
        partition.leader() >= 0 && client.fetch_watermarks(topic, partition.id(), WAIT).is_ok()
    };
    metadata.brokers().iter().any(registered)
        && (place.controllers.len() > 1
            || metadata.topics().iter().all(|topic| {
                topic.partitions().iter().all(|partition| leads(topic.name(), partition))
            }))
}

fn is_port_taken(error: &EmbeddedError) -> bool {
    matches!(error, EmbeddedError::Failed { log, .. } if log.contains("Address already in use"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_identity_is_a_kafka_uuid() {
        assert_eq!(cluster_identity(0), "A".repeat(22));
        assert_eq!(cluster_identity(u128::MAX), format!("f{}w", "_".repeat(20)));
        assert_eq!(cluster_identity(2 << 4), format!("{}EA", "A".repeat(20)));
    }

    #[test]
    fn own_properties_are_refused() {
        let error = check_properties(&[("node.id".to_owned(), "2".to_owned())]).unwrap_err();
        assert!(error.to_string().contains("`node.id` cannot be given"), "{error}");
    }
}
