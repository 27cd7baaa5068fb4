//! Apache Kafka's jars, and the files that a broker starts from.
//!
//! Promises: one pinned version, fetched once, or the one that is asked for, which Maven alone compares; properties in
//! which the caller's come last.
//! Must not: fetch when the cache has the jars. Fails: as the cache and Maven do.

use crate::servers::cache;
use crate::servers::error::EmbeddedError;
use crate::servers::hashes::Hashes;
use crate::servers::host::Host;
use crate::servers::maven::Maven;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

const POM: &str = include_str!("kafka.pom.xml");
const HASHES: &str = include_str!("kafka.sha256");
/// The version that the `pom.xml` names.
const VERSION: &str = "4.4.0";
const NEEDED: &str = "it is needed once to fetch Kafka";

/// Properties that tell where the broker is; the handle must know them.
pub(super) const OWN_PROPERTIES: [&str; 8] = [
    "process.roles",
    "node.id",
    "listeners",
    "advertised.listeners",
    "controller.listener.names",
    "controller.quorum.voters",
    "listener.security.protocol.map",
    "log.dirs",
];

/// The version that this machine starts.
pub(super) fn version(host: &Host) -> &str {
    host.kafka_version.as_deref().unwrap_or(VERSION)
}

/// The folder with the jars.
pub(super) fn jars(host: &Host, progress: &dyn Fn(&str)) -> Result<PathBuf, EmbeddedError> {
    let version = version(host);
    cache::part(host, &format!("kafka-{version}"), |workspace, target| {
        let maven = Maven::find(host, NEEDED)?;
        progress(&format!("fetching Apache Kafka {version} through Maven (43 MB, once)"));
        let what = format!("Apache Kafka {version}");
        let hashes = (version == VERSION).then(|| Hashes::new(HASHES));
        if hashes.is_none() {
            progress("only Maven checks it: postrider has no SHA-256 of this version");
        }
        maven.copy_dependencies(workspace, &what, &pom(version), hashes.as_ref(), target)
    })
}

/// What Maven is asked for.
fn pom(version: &str) -> String {
    POM.replace(&format!("<version>{VERSION}</version>"), &format!("<version>{version}</version>"))
}

/// The class path: every jar by name and in order. A `*` would be shorter, but a shared archive of
/// classes needs the names.
pub(super) fn class_path(jars: &Path) -> Result<OsString, EmbeddedError> {
    let failed = |source| EmbeddedError::system("read folder", jars, source);
    let mut paths = Vec::new();
    for entry in fs::read_dir(jars).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jar") {
            paths.push(path);
        }
    }
    paths.sort();
    std::env::join_paths(paths).map_err(|error| EmbeddedError::System {
        action: format!("make a class path of {}", jars.display()),
        source: std::io::Error::other(error),
    })
}

/// Where a node and its cluster are.
#[derive(Clone, Debug, Default)]
pub(super) struct NodePlace {
    /// This node's number.
    pub(super) node: u32,
    /// The port for clients and other brokers.
    pub(super) broker: u16,
    /// Each node's number and the port of its controller.
    pub(super) controllers: Vec<(u32, u16)>,
    /// A second port for clients, and the port of the proxy by which they are told to reach it.
    pub(super) proxied: Option<(u16, u16)>,
    /// Further listeners with their ports.
    pub(super) more: Vec<(Listener, u16)>,
}

/// One more way for clients to come in. It is reached as `localhost`, so that a certificate can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in capitals; properties of its own begin with `listener.name.` and the name in small letters.
    pub name: String,
    /// How it is protected: `SSL`, `SASL_SSL` and the like.
    pub protocol: String,
}

impl NodePlace {
    fn listeners(&self) -> (String, String) {
        let (_, controller) = self
            .controllers
            .iter()
            .find(|(node, _)| *node == self.node)
            .expect("a node is one of its cluster");
        let own = format!("BROKER://127.0.0.1:{}", self.broker);
        let listeners = format!("listeners={own},CONTROLLER://127.0.0.1:{controller}");
        let advertised = format!("advertised.listeners={own}");
        let (mut listeners, mut advertised) = match self.proxied {
            None => (listeners, advertised),
            Some((listens, proxy)) => (
                format!("{listeners},PROXIED://127.0.0.1:{listens}"),
                format!("{advertised},PROXIED://127.0.0.1:{proxy}"),
            ),
        };
        for (Listener { name, .. }, port) in &self.more {
            listeners.push_str(&format!(",{name}://127.0.0.1:{port}"));
            advertised.push_str(&format!(",{name}://localhost:{port}"));
        }
        (listeners, advertised)
    }

    fn protocols(&self) -> String {
        let own = "listener.security.protocol.map=\
                   BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT";
        let more = self.more.iter().map(|(listener, _)| listener);
        more.fold(own.to_owned(), |map, Listener { name, protocol }| {
            format!("{map},{name}:{protocol}")
        })
    }

    fn voters(&self) -> String {
        let voter = |(node, port): &(u32, u16)| format!("{node}@127.0.0.1:{port}");
        self.controllers.iter().map(voter).collect::<Vec<_>>().join(",")
    }
}

/// `server.properties` of one node that is broker and controller.
pub(super) fn properties(
    data: &Path,
    place: &NodePlace,
    partitions: u32,
    creates_topics: bool,
    more: &[(String, String)],
) -> String {
    let (listeners, advertised_listeners) = place.listeners();
    // As many copies as there are nodes, and one of them may be away.
    let copies = place.controllers.len().min(3);
    let in_sync = copies.div_ceil(2);
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        format!("node.id={}", place.node),
        format!("controller.quorum.voters={}", place.voters()),
        listeners,
        advertised_listeners,
        "inter.broker.listener.name=BROKER".to_owned(),
        "controller.listener.names=CONTROLLER".to_owned(),
        place.protocols(),
        format!("log.dirs={}", data.display()),
        format!("num.partitions={partitions}"),
        format!("auto.create.topics.enable={creates_topics}"),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        format!("default.replication.factor={copies}"),
        format!("min.insync.replicas={in_sync}"),
        // So small a cluster needs few internal partitions.
        format!("offsets.topic.replication.factor={copies}"),
        "offsets.topic.num.partitions=4".to_owned(),
        format!("transaction.state.log.replication.factor={copies}"),
        format!("transaction.state.log.min.isr={in_sync}"),
        "transaction.state.log.num.partitions=4".to_owned(),
        format!("share.coordinator.state.topic.replication.factor={copies}"),
        format!("share.coordinator.state.topic.min.isr={in_sync}"),
        "share.coordinator.state.topic.num.partitions=4".to_owned(),
        // After a kill the broker may register again only when its old session is over: 9 s by
        // default. Much less would fence a broker that a busy machine holds up.
        "broker.session.timeout.ms=3000".to_owned(),
        "broker.heartbeat.interval.ms=500".to_owned(),
        // The default takes 128 MB of the heap at the start, for compacted topics of any size.
        "log.cleaner.dedupe.buffer.size=8388608".to_owned(),
        // Records may carry the time of their row; the broker removes by that time, not by log position.
        "log.retention.ms=-1".to_owned(),
    ];
    lines.extend(more.iter().map(|(name, value)| property(name, value)));
    lines.join("\n") + "\n"
}

/// A line of `java.util.Properties`: a backslash or a line end in a value would end or change it.
pub(super) fn property(name: &str, value: &str) -> String {
    format!("{name}={}", value.replace('\\', "\\\\").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_one_in_the_pom() {
        assert_eq!(POM.matches(&format!("<version>{VERSION}</version>")).count(), 1);
        assert_eq!(pom(VERSION), POM);
        assert!(
            pom("3.9.1").contains("<version>3.9.1</version>") && !pom("3.9.1").contains(VERSION)
        );
    }

    #[test]
    fn callers_properties_come_last() {
        let more = [("num.partitions".to_owned(), "3".to_owned())];
        let text = properties(Path::new("/data"), &alone(), 8, true, &more);
        assert!(text.rfind("num.partitions=3") > text.rfind("num.partitions=8"), "{text}");
    }

    fn alone() -> NodePlace {
        NodePlace { node: 1, broker: 1, controllers: vec![(1, 2)], proxied: None, more: Vec::new() }
    }

    #[test]
    fn clients_are_told_of_the_proxy() {
        let place = NodePlace { proxied: Some((3, 4)), ..alone() };
        let text = properties(Path::new("/data"), &place, 8, true, &[]);
        let listeners =
            "listeners=BROKER://127.0.0.1:1,CONTROLLER://127.0.0.1:2,PROXIED://127.0.0.1:3";
        assert!(text.lines().any(|line| line == listeners), "{text}");
        assert!(text.contains("advertised.listeners=BROKER://127.0.0.1:1,PROXIED://127.0.0.1:4"));
        assert!(text.contains("default.replication.factor=1\nmin.insync.replicas=1\n"), "{text}");
    }

    #[test]
    fn further_listeners_have_a_name_and_a_protocol() {
        let listener = Listener { name: "TLS".to_owned(), protocol: "SSL".to_owned() };
        let place = NodePlace { more: vec![(listener, 5)], ..alone() };
        let text = properties(Path::new("/data"), &place, 8, true, &[]);
        assert!(text.contains("CONTROLLER://127.0.0.1:2,TLS://127.0.0.1:5\n"), "{text}");
        assert!(text.contains("BROKER://127.0.0.1:1,TLS://localhost:5\n"), "{text}");
        assert!(text.contains("PROXIED:PLAINTEXT,TLS:SSL\n"), "{text}");
    }

    #[test]
    fn of_three_copies_two_must_be_there() {
        let place = NodePlace { controllers: vec![(1, 2), (2, 4), (3, 6)], node: 2, ..alone() };
        let text = properties(Path::new("/data"), &place, 8, true, &[]);
        assert!(text.contains("default.replication.factor=3\nmin.insync.replicas=2\n"), "{text}");
        assert!(
            text.contains("controller.quorum.voters=1@127.0.0.1:2,2@127.0.0.1:4,3@127.0.0.1:6")
        );
    }
}
