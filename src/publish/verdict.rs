//! What a code of Kafka means for the record that it came with: the one place that says so.
//!
//! Promises: every code has a verdict; one that nobody knows is the record's, as far as can be told before
//! it was sent alone. Must not: decide what follows. Fails: never.

use rdkafka::error::RDKafkaErrorCode;

/// Whose trouble a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The record, or the batch that it travelled with, is too large.
    Size,
    /// The topic's: it is not there, or this user may not write to it.
    Topic,
    /// Kafka's: it has no leader now, too few copies, no time, or no connection.
    Away,
    /// The producer's own course was broken off; the record says nothing of it.
    Course,
    /// What the brokers have noted of the producer, or something that they cannot name: another try may
    /// go well.
    Unclear,
    /// The record's.
    Record,
}

impl Verdict {
    pub(super) fn of(code: Option<RDKafkaErrorCode>) -> Self {
        use RDKafkaErrorCode as Code;
        let Some(code) = code else { return Self::Record };
        match code {
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => Self::Size,
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
            | Code::GaplessGuarantee => Self::Course,
            Code::OutOfOrderSequenceNumber
            | Code::DuplicateSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::ProducerFenced
            | Code::Fenced
            | Code::Unknown => Self::Unclear,
            _ => Self::Record,
        }
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
            Self::Away | Self::Course | Self::Unclear => 3,
        }
    }
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
            assert_eq!(Verdict::of(Some(code)), Verdict::Record, "{code}");
            assert!(Verdict::is_told(Some(code)), "{code}");
        }
        assert_eq!(Verdict::of(None), Verdict::Record);
    }

    #[test]
    fn kafka_that_is_away_and_a_purge_are_nobodys_fault() {
        use RDKafkaErrorCode as Code;
        for code in [Code::BrokerTransportFailure, Code::NotEnoughReplicas, Code::PurgeInflight] {
            let verdict = Verdict::of(Some(code));
            assert!(matches!(verdict, Verdict::Away | Verdict::Course), "{code}");
        }
        assert!(!Verdict::is_told(Some(Code::BrokerTransportFailure)));
        assert!(Verdict::is_told(Some(Code::Unknown)));
    }
}
