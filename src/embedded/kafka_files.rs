//! Apache Kafka's jars, and the files that a broker starts from.
//!
//! Promises: one pinned version, fetched once; properties in which the caller's come last.
//! Must not: fetch when the cache has the jars. Fails: as the cache and Maven do.

use super::cache;
use super::error::EmbeddedError;
use super::host::Host;
use super::maven::Maven;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

const POM: &str = include_str!("kafka.pom.xml");
/// The version that the `pom.xml` names.
pub(super) const VERSION: &str = "4.4.0";
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

/// The folder with the jars.
pub(super) fn jars(host: &Host, progress: &dyn Fn(&str)) -> Result<PathBuf, EmbeddedError> {
    cache::part(host, &format!("kafka-{VERSION}"), |workspace, target| {
        let maven = Maven::find(host, NEEDED)?;
        progress(&format!("fetching Apache Kafka {VERSION} through Maven (43 MB, once)"));
        maven.copy_dependencies(workspace, &format!("Apache Kafka {VERSION}"), POM, target)
    })
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

/// `server.properties` of one node that is broker and controller.
pub(super) fn properties(
    data: &Path,
    ports: (u16, u16),
    partitions: u32,
    creates_topics: bool,
    more: &[(String, String)],
) -> String {
    let (broker, controller) = ports;
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
        format!("listeners=BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners=BROKER://127.0.0.1:{broker}"),
        "inter.broker.listener.name=BROKER".to_owned(),
        "controller.listener.names=CONTROLLER".to_owned(),
        "listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        format!("log.dirs={}", data.display()),
        format!("num.partitions={partitions}"),
        format!("auto.create.topics.enable={creates_topics}"),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        // One broker has one copy of everything, and needs few internal partitions.
        "offsets.topic.replication.factor=1".to_owned(),
        "offsets.topic.num.partitions=4".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "transaction.state.log.num.partitions=4".to_owned(),
        "share.coordinator.state.topic.replication.factor=1".to_owned(),
        "share.coordinator.state.topic.min.isr=1".to_owned(),
        "share.coordinator.state.topic.num.partitions=4".to_owned(),
        // After a kill the broker may register again only when its old session is over: 9 s by
        // default. Much less would fence a broker that a busy machine holds up.
        "broker.session.timeout.ms=3000".to_owned(),
        "broker.heartbeat.interval.ms=500".to_owned(),
        // The default takes 128 MB of the heap at the start, for compacted topics of any size.
        "log.cleaner.dedupe.buffer.size=8388608".to_owned(),
    ];
    lines.extend(more.iter().map(|(name, value)| format!("{name}={}", escape(value))));
    lines.join("\n") + "\n"
}

/// `java.util.Properties`: a backslash or a line end in a value would end or change it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_one_in_the_pom() {
        assert!(POM.contains(&format!("<version>{VERSION}</version>")));
    }

    #[test]
    fn callers_properties_come_last() {
        let more = [("num.partitions".to_owned(), "3".to_owned())];
        let text = properties(Path::new("/data"), (1, 2), 8, true, &more);
        assert!(text.rfind("num.partitions=3") > text.rfind("num.partitions=8"), "{text}");
    }
}
