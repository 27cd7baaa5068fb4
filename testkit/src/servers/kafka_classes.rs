//! Kafka's classes as Java has them in memory, in a file that later starts read in place of the jars.
//!
//! Promises: made once for each pair of Kafka and Java on this machine, by a broker that is started for it; a Java
//! that does not take the file loads the jars. Must not: be needed for a start. Fails: as a broker's start does.
//!
//! Source: <https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html>, dynamic archives.

use crate::servers::cache;
use crate::servers::error::EmbeddedError;
use crate::servers::host::Host;
use crate::servers::java::Java;
use crate::servers::kafka::{Kafka, KafkaOptions};
use crate::servers::kafka_files;
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "classes.jsa";

/// The archive of Kafka's classes, for [`KafkaOptions::class_archive`]. The first call on a machine takes some ten
/// seconds; each start with it takes half the processor time of one without. For tests, which start many.
///
/// # Errors
/// As [`Kafka::start`], or when the cache cannot be written.
pub fn kafka_classes(host: &Host, progress: &dyn Fn(&str)) -> Result<PathBuf, EmbeddedError> {
    let (kafka, java) = (kafka_files::version(host), Java::find(host)?.full_version);
    let name = format!("kafka-{kafka}-classes-java-{java}");
    Ok(cache::part(host, &name, |_, target| make(host, target, progress))?.join(FILE))
}

fn make(host: &Host, target: &Path, progress: &dyn Fn(&str)) -> Result<(), EmbeddedError> {
    progress("keeping Kafka's classes as Java has them in memory (once)");
    let options = KafkaOptions {
        host: host.clone(),
        // Java writes it as it ends, into the folder in which it runs.
        java_options: vec![format!("-XX:ArchiveClassesAtExit={FILE}")],
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options, progress)?;
    kafka.stop()?;
    let (written, kept) = (kafka.folder().join(FILE), target.join(FILE));
    fs::copy(&written, &kept)
        .map(drop)
        .map_err(|source| EmbeddedError::system("copy Kafka's classes to", &kept, source))
}
