//! Some Kafka brokers that form one cluster.
//!
//! Promises: every broker is registered when `start` returns; a topic has a copy on each of up to
//! three brokers, and takes records while most of them are there. Must not: start a broker again by
//! itself. Fails: as one broker does.

use crate::servers::error::EmbeddedError;
use crate::servers::kafka::{Kafka, KafkaOptions, new_identity};
use crate::servers::port::free_port;

/// Brokers of one cluster; dropped, all are gone.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<Kafka>,
    brokers: String,
}

impl KafkaCluster {
    /// Starts so many brokers, all in the same way.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    ///
    /// # Panics
    /// When `count` is zero.
    pub fn start(
        count: u32,
        options: &KafkaOptions,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, EmbeddedError> {
        assert!(count > 0, "a cluster has a broker");
        let mut controllers = Vec::new();
        for node in 1..=count {
            controllers.push((node, free_port()?));
        }
        let identity = new_identity();
        let mut nodes = Vec::new();
        for node in 1..=count {
            let mut kafka = Kafka::prepare(options.clone(), progress)?;
            kafka.settle(node, controllers.clone())?;
            kafka.format(&identity)?;
            nodes.push(kafka);
        }
        start_all(&nodes)?;
        progress(&format!("{count} brokers of one cluster are ready"));
        let brokers = nodes.iter().map(Kafka::brokers).collect::<Vec<_>>().join(",");
        Ok(Self { nodes, brokers })
    }

    /// The brokers, the first being node 1.
    #[must_use]
    pub fn nodes(&self) -> &[Kafka] {
        &self.nodes
    }

    /// The bootstrap servers.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Starts those again that are down, all at once: most of them must be there before any is ready.
    ///
    /// # Errors
    /// As [`Kafka::start_again`].
    pub fn start_again(&self) -> Result<(), EmbeddedError> {
        let mut down = Vec::new();
        for node in &self.nodes {
            if node.process_id()?.is_none() {
                down.push(node);
            }
        }
        start_all(down)
    }
}

fn start_all<'a>(nodes: impl IntoIterator<Item = &'a Kafka>) -> Result<(), EmbeddedError> {
    std::thread::scope(|scope| {
        let starts: Vec<_> =
            nodes.into_iter().map(|node| scope.spawn(|| node.start_again())).collect();
        starts.into_iter().try_for_each(|start| start.join().expect("starting does not panic"))
    })
}
