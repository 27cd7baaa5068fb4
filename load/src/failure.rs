//! From an error to the exit code of the process.
//!
//! Promises: one table. Must not: print.

use anyhow::Error;
use rdkafka::error::KafkaError;

/// A measurement that was made and is not good enough.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The exit code for an error; 0 and 2 are clap's.
pub(crate) fn exit_code(error: &Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Broken>() {
            return 7;
        }
        if cause.is::<tokio_postgres::Error>() {
            return 4;
        }
        if cause.is::<KafkaError>() {
            return 5;
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_its_code() {
        let kafka = Error::new(KafkaError::Canceled).context("the topic cannot be read");
        assert_eq!(exit_code(&kafka), 5);
        assert_eq!(exit_code(&Error::new(Broken("p99 too high".to_owned()))), 7);
        assert_eq!(exit_code(&Error::msg("anything else")), 1);
    }
}
