//! Prints where PostgreSQL's programs, Java and Kafka's jars are, fetched where they are missing: a
//! line `name=value` each, for scripts.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use postrider_testkit::servers::{EmbeddedError, Host, Parts};

fn main() -> Result<(), EmbeddedError> {
    let parts = Parts::find(&Host::from_environment(), &|line| eprintln!("{line}"))?;
    println!("postgres_folder={}", parts.postgres_folder.display());
    println!("java={}", parts.java.display());
    println!("kafka_class_path={}", parts.kafka_class_path.display());
    Ok(())
}
