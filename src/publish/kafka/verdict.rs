//! What a code of Kafka means for the record that it came with: the one place that says so.
//!
//! Promises: every code has a verdict; one that nobody knows is the record's, as far as can be told before
//! it was sent alone. Must not: decide what follows.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

/// Whose trouble a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeVerdict {
    /// The record, or the batch that it travelled with, is too large.
    Size,
    /// The topic's: it is not there, or this user may not write to it.
    Topic,
    /// Kafka's: it has no leader now, too few copies, no time, or no connection.
    Away,
    /// The same, of one that was sent alone, and each time its connection ended without an answer.
    Cut,
    /// The same, of one that was sent alone: a broker said last that too few copies are in step.
    TooFew,
    /// The producer's own progress was broken off; the record says nothing of it.
    BrokenOff,
    /// What the brokers have noted of the producer, or something that they cannot name: another try may
    /// go well.
    Unclear,
    /// The record's.
    Record,
    /// That of another one of its batch, which the broker has named.
    Beside,
}

impl CodeVerdict {
    pub(super) fn of(code: Option<RDKafkaErrorCode>) -> Self {
        use RDKafkaErrorCode as Code;
        let Some(code) = code.filter(|code| is_known(*code)) else { return Self::Record };
        match code {
            Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
                Self::Size
            }
            Code::TopicAuthorizationFailed
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition => Self::Topic,
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::SSL
            | Code::Authentication
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::KafkaStorageError
            | Code::ThrottlingQuotaExceeded => Self::Away,
            Code::PurgeQueue
            | Code::PurgeInflight
            | Code::BrokerDestroy
            | Code::Fatal
            | Code::State
            | Code::GaplessGuarantee => Self::BrokenOff,
            Code::OutOfOrderSequenceNumber
            | Code::DuplicateSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::ProducerFenced
            | Code::Fenced
            | Code::Unknown => Self::Unclear,
            Code::InvalidDifferentRecord => Self::Beside,
            _ => Self::Record,
        }
    }

    /// Whether it says that a transaction is over, as another one has the id or its time was up: it says nothing of any
    /// topic then, whatever else is purged.
    pub(super) fn is_fence(code: Option<RDKafkaErrorCode>) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(
            code,
            Some(
                Code::Fenced
                    | Code::ProducerFenced
                    | Code::InvalidProducerEpoch
                    | Code::InvalidProducerIdMapping
                    | Code::InvalidTransactionalState
                    | Code::TransactionCoordinatorFenced
            )
        )
    }

    /// Whether the broker itself said so, or librdkafka on its own.
    pub(super) fn is_told(code: Option<RDKafkaErrorCode>) -> bool {
        // Codes of the protocol; librdkafka's own lie below.
        code.is_none_or(|code| code as i32 >= RDKafkaErrorCode::Unknown as i32)
    }

    /// So many times a record is refused alone until it is known to be its own fault.
    pub(super) fn tries(self) -> u32 {
        match self {
            Self::Size | Self::Record => 1,
            Self::Topic => 2,
            Self::Away
            | Self::Cut
            | Self::TooFew
            | Self::BrokenOff
            | Self::Unclear
            | Self::Beside => 3,
        }
    }
}

/// Whether a record that is called delivered is where its broker said, which is nowhere: the broker called it a repeat of
/// one that it has, and librdkafka believes that. The others of its batch come right behind it, and their offsets say
/// nothing. One that was acknowledged by what came later lies further below.
pub(super) fn is_called_a_repeat(offset: i64) -> bool {
    offset == -1
}

/// What was answered to such a record.
pub(super) fn called_a_repeat() -> KafkaError {
    KafkaError::MessageProduction(RDKafkaErrorCode::DuplicateSequenceNumber)
}

/// The client's table of codes ends where its librdkafka does: what a newer broker says comes as any number.
fn is_known(code: RDKafkaErrorCode) -> bool {
    RDKafkaRespErr::try_from(code as i32).is_ok_and(|code| code as i32 != 0)
}

/// What a code is called, and what it says.
pub(super) fn words(cause: &KafkaError) -> String {
    match cause.rdkafka_error_code() {
        Some(code) if is_known(code) => code.to_string(),
        Some(_) => "a code that librdkafka does not know".to_owned(),
        None => cause.to_string(),
    }
}

/// A code that librdkafka does not know, in its words.
pub(super) fn unknown(words: &str) -> Option<&str> {
    words.strip_prefix("Err-")?.strip_suffix('?')
}

/// The topic of which librdkafka says, before it ends a producer, that a code refused it that it does not
/// know. The report of such a record may carry any other code.
pub(super) fn refused_by_unknown(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once("ProduceRequest for ")?;
    let (topic, rest) = rest.split_once(" [")?;
    let (_, rest) = rest.split_once(" failed: ")?;
    let (words, _) = rest.split_once(" (broker")?;
    unknown(words).map(|_| topic)
}

/// What librdkafka logs of a partition that a coordinator keeps out of a transaction. All records of the transaction are
/// purged then, and no report names the topic that is why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptOut<'a> {
    pub(super) topic: &'a str,
    /// What the coordinator said.
    pub(super) words: &'a str,
    /// None for a code that says nothing of the topic's being usable.
    pub(super) code: Option<RDKafkaErrorCode>,
}

/// The topic that a line of librdkafka's log says was kept out, and not only for another one's sake.
pub(super) fn kept_out(line: &str) -> Option<KeptOut<'_>> {
    let (_, rest) = line.split_once("Failed to add partition \"")?;
    let (topic, rest) = rest.split_once("\" [")?;
    let (_, words) = rest.split_once("] to transaction: ")?;
    let says = |code: &RDKafkaErrorCode| words.trim_end().ends_with(&code.to_string());
    if says(&RDKafkaErrorCode::OperationNotAttempted) {
        return None;
    }
    let code = Some(RDKafkaErrorCode::TopicAuthorizationFailed).filter(says);
    Some(KeptOut { topic, words: words.trim_end(), code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_lists_is_the_records() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::InvalidTimestamp,
            Code::InvalidRecord,
            Code::InvalidTopic,
            Code::PolicyViolation,
            Code::InvalidMessage,
            Code::UnsupportedForMessageFormat,
            Code::InvalidRequiredAcks,
            Code::GroupAuthorizationFailed,
        ] {
            assert_eq!(CodeVerdict::of(Some(code)), CodeVerdict::Record, "{code}");
            assert!(CodeVerdict::is_told(Some(code)), "{code}");
        }
        assert_eq!(CodeVerdict::of(None), CodeVerdict::Record);
    }

    #[test]
    fn a_code_that_nobody_knows_is_found_in_the_words() {
        let reason = "ProduceRequest for shop.order [3] with 2 message(s) failed: Err-999? (broker 1 \
                      PID{Id:1,Epoch:0}, base seq 0): unable to satisfy gap-less guarantee";
        assert_eq!(refused_by_unknown(reason), Some("shop.order"));
        let known = reason.replace("Err-999?", "Broker: Invalid timestamp");
        assert_eq!(refused_by_unknown(&known), None);
        assert_eq!((unknown("Err-999?"), unknown("Broker: Policy violation")), (Some("999"), None));
    }

    #[test]
    fn a_topic_that_is_kept_out_of_a_transaction_is_found_in_the_words() {
        use RDKafkaErrorCode as Code;
        let line = |words: &str| {
            format!(
                "[thrd:TxnCoordinator]: TxnCoordinator/1: Failed to add partition \"shop.order\" [3] to \
                 transaction: {words}"
            )
        };
        let denied = line(&Code::TopicAuthorizationFailed.to_string());
        let code = Some(Code::TopicAuthorizationFailed);
        let words = &Code::TopicAuthorizationFailed.to_string();
        assert_eq!(kept_out(&denied), Some(KeptOut { topic: "shop.order", words, code }));
        let other = line(&Code::PolicyViolation.to_string());
        let words = &Code::PolicyViolation.to_string();
        assert_eq!(kept_out(&other), Some(KeptOut { topic: "shop.order", words, code: None }));
        let follows = line(&Code::OperationNotAttempted.to_string());
        assert_eq!(kept_out(&follows), None, "it is another one's fault");
        assert_eq!(kept_out("Current transaction failed in state InTransaction"), None);
    }

    #[test]
    fn kafka_that_is_away_and_a_purge_are_nobodys_fault() {
        use RDKafkaErrorCode as Code;
        for code in [Code::BrokerTransportFailure, Code::NotEnoughReplicas, Code::PurgeInflight] {
            let verdict = CodeVerdict::of(Some(code));
            assert!(matches!(verdict, CodeVerdict::Away | CodeVerdict::BrokenOff), "{code}");
        }
        assert!(!CodeVerdict::is_told(Some(Code::BrokerTransportFailure)));
        assert!(CodeVerdict::is_told(Some(Code::Unknown)));
    }
}
