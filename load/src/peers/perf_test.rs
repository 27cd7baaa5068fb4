//! Kafka's own `kafka-producer-perf-test`, without its script.
//!
//! Promises: these payloads, after a warm-up that is not counted. Must not: be compared with records
//! that have keys and headers without saying so: the program sends none. Fails: when Java or Maven
//! are missing, or the program ends badly.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use postrider_testkit::servers::{Host, fetched_jars, newest_java};

/// Kafka's clients run from this Java on.
const LEAST_JAVA: u32 = 17;

const RECORDS: u32 = 700_000;

const WARM_UP_RECORDS: u32 = 200_000;

const POM: &str = include_str!("../../peers/kafka-tools.pom.xml");

/// The program, with the Java that runs it.
#[derive(Clone, Debug)]
pub(crate) struct PerfTest {
    java: PathBuf,
    jars: PathBuf,
}

impl PerfTest {
    /// Fetches it (25 MB) when it is not there.
    ///
    /// # Errors
    /// As the module says.
    pub(crate) fn install() -> Result<Self> {
        let host = Host::default();
        let (java, jars) =
            (newest_java(&host, LEAST_JAVA)?, fetched_jars(&host, "kafka-tools-4.4.0", POM)?);
        Ok(Self { java, jars })
    }

    /// Records per second after the warm-up, of payloads that are picked from the lines of a file.
    ///
    /// # Errors
    /// As the module says.
    pub(crate) fn run(&self, brokers: &str, topic: &str, payloads: &Path) -> Result<f64> {
        let output = Command::new(&self.java)
            .args(["-Xmx1g", "-cp", &format!("{}/*", self.jars.display())])
            .args(["org.apache.kafka.tools.ProducerPerformance", "--throughput", "-1"])
            .args(["--bootstrap-server", brokers, "--topic", topic])
            .args(["--num-records", &RECORDS.to_string()])
            .args(["--warmup-records", &WARM_UP_RECORDS.to_string(), "--payload-file"])
            .arg(payloads)
            .args(["--command-property", "acks=all", "enable.idempotence=true"])
            .args(["compression.type=lz4", "linger.ms=5", "batch.size=131072"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .context("Java cannot be started")?;
        ensure!(output.status.success(), "kafka-producer-perf-test ended with {}", output.status);
        let told = String::from_utf8_lossy(&output.stdout);
        steady_rate(&told).context("kafka-producer-perf-test does not say its rate")
    }
}

/// The rate in `500000 steady state records sent, 560538.1 records/sec (61.42 MB/sec), ...`.
fn steady_rate(told: &str) -> Option<f64> {
    let line = told.lines().rfind(|line| line.contains("steady state records sent"))?;
    line.split(", ").nth(1)?.strip_suffix("/sec)")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_after_the_warm_up_is_read() {
        let told = "700000 records sent, 346020.7 records/sec (37.91 MB/sec), 37.02 ms avg\n\
                    500000 steady state records sent, 560538.1 records/sec (61.42 MB/sec), 28 ms\n";
        assert_eq!(steady_rate(told), Some(560_538.1));
        assert_eq!(steady_rate("nothing"), None);
    }
}
