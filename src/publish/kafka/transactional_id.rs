//! The id by which brokers know a producer for ever.
//!
//! Promises: what was open under an id has ended when it is taken, and whoever had it is refused. Must not: begin a
//! transaction. Fails: when no broker answers in time, or none lets us.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ProducerContext};

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::errors::unavailable;

/// The property that names a producer to the brokers.
pub(super) const TRANSACTIONAL_ID: &str = "transactional.id";
/// Between two tries of a request.
pub(super) const RETRY_BACKOFF: Duration = Duration::from_millis(250);
/// Until a coordinator is found and has ended what was open.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// One try of it.
const INIT_STEP: Duration = Duration::from_secs(5);

/// A transaction without an end is ended by its coordinator after this, at the earliest.
const TIMEOUT_MIN: Duration = Duration::from_secs(20);
/// The same, by the leases that it has to outlast.
const LEASES: u32 = 2;

/// After so long without an end the coordinator ends a transaction of whoever has such a lease.
#[must_use]
pub fn transaction_timeout(lease: Duration) -> Duration {
    TIMEOUT_MIN.max(lease * LEASES)
}

/// The configuration of a producer under an id.
#[must_use]
pub fn transactional(config: &ProducerConfig, id: &str, timeout: Duration) -> ProducerConfig {
    let mut config = config.clone();
    let millis = timeout.as_millis();
    config.set(TRANSACTIONAL_ID, id);
    config.set("transaction.timeout.ms", millis.to_string());
    config.set("socket.timeout.ms", millis.min(60_000).to_string());
    config.set("retry.backoff.ms", RETRY_BACKOFF.as_millis().to_string());
    config
}

/// Asks for the id: what was open under it has ended when this returns, and whoever had it is refused.
///
/// # Errors
/// When no broker answers in time, or none lets us.
pub(super) fn take_id<P: Producer<C>, C: ProducerContext>(producer: &P, id: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        match producer.init_transactions(INIT_STEP) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(cause))
                if cause.is_retriable() && begin.elapsed() < INIT_TIMEOUT => {}
            Err(KafkaError::Transaction(cause)) if is_refusal(cause.code()) => {
                return Err(Error::new(
                    ErrorKind::KafkaRefused,
                    format!("the transactional id {id} cannot be taken: {cause}"),
                )
                .with_remedy(
                    "grant Write and Describe on the transactional ids that begin with postrider-; \
                     transaction.max.timeout.ms of the brokers must not be below twice --lease-seconds",
                ));
            }
            // As where another one has taken it meanwhile.
            Err(KafkaError::Transaction(cause)) if !cause.is_retriable() => {
                let cause = format!("the transactional id {id} was not taken: {cause}");
                return Err(Error::new(ErrorKind::KafkaUnavailable, cause)
                    .with_remedy("wait: it is tried again; if it lasts, look at the brokers"));
            }
            Err(cause) => return Err(unavailable(&cause, None)),
        }
    }
}

/// Whether another try meets the same answer, until somebody changes what brokers allow.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TransactionalIdAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedFeature
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_brokers_do_not_allow_is_a_refusal() {
        use RDKafkaErrorCode as Code;
        for code in [Code::TransactionalIdAuthorizationFailed, Code::InvalidTransactionTimeout] {
            assert!(is_refusal(code), "{code}");
        }
        for code in [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch, Code::Fatal] {
            assert!(!is_refusal(code), "{code}");
        }
    }
}
