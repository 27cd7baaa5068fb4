//! What became of the records that were sent apart on one way, and in whose company.
//!
//! Promises: one that a broker has named among others is told from those that were refused for its sake. Must not: send.

use hashbrown::HashMap;
use rdkafka::error::RDKafkaErrorCode;

use crate::publish::Company;
use crate::publish::kafka::verdict::CodeVerdict;

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordFate {
    /// It is in Kafka.
    Appended,
    /// It is not, or nobody knows: what was said, and whose trouble it is.
    Refused { words: String, verdict: CodeVerdict },
}

/// A record that was gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gathered {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) bytes: usize,
}

/// What became of all that was gathered for a way.
pub(super) struct WayFates {
    pub(super) fates: Vec<Option<RecordFate>>,
    pub(super) company: Company,
    /// What was said of each partition that refused anything, in a trial: of each it refuses one batch at most.
    pub(super) words: HashMap<(String, i32), String>,
}

impl WayFates {
    /// Whether another record of this one's batch is why it was refused.
    pub(super) fn is_beside(&self, number: usize) -> bool {
        let fate = self.fates[number].as_ref();
        matches!(fate, Some(RecordFate::Refused { verdict: CodeVerdict::Beside, .. }))
    }

    /// What became of one of them, and in whose company; whether its broker has named some of those that it refuses.
    pub(super) fn take(
        &mut self,
        number: usize,
        one: &Gathered,
        has_names: bool,
    ) -> (RecordFate, Company) {
        let fate = self.fates[number].take().expect("each record has one fate");
        let said = self.words.get(&(one.topic.clone(), one.partition)).filter(|_| has_names);
        match (fate, said) {
            (RecordFate::Refused { verdict: CodeVerdict::Record, words }, Some(said))
                if is_of_names(&words, said) =>
            {
                let (words, verdict) = (said.clone(), CodeVerdict::Record);
                (RecordFate::Refused { words, verdict }, Company::Named)
            }
            (fate, _) => (fate, self.company),
        }
    }
}

/// Whether a record is one of several that a broker has named. librdkafka calls them invalid, whatever the broker said
/// of their batch; where that is what it said, all records of a batch are called so.
fn is_of_names(words: &str, said_of_batch: &str) -> bool {
    let invalid = RDKafkaErrorCode::InvalidRecord.to_string();
    words == invalid && !invalid.ends_with(&format!("({said_of_batch})"))
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;

    use super::*;
    use crate::publish::kafka::verdict::words;

    /// Of several, librdkafka says that they are not valid; of one alone, and of all where no name is told, what the broker
    /// said of the batch.
    #[test]
    fn those_that_a_broker_names_are_told_from_those_that_were_with_them() {
        let gathered = Gathered { topic: "t".to_owned(), partition: 0, bytes: 1 };
        let refused = |code: RDKafkaErrorCode| RecordFate::Refused {
            words: words(&KafkaError::MessageProduction(code)),
            verdict: CodeVerdict::of(Some(code)),
        };
        let take = |code: RDKafkaErrorCode, said: &str, has_names| {
            let mut fates = WayFates {
                fates: vec![Some(refused(code))],
                company: Company::Others,
                words: HashMap::from([(("t".to_owned(), 0), said.to_owned())]),
            };
            fates.take(0, &gathered, has_names)
        };
        let (said, vague) =
            ("Broker: Invalid timestamp", "Broker: Broker failed to validate record");
        let (fate, company) = take(RDKafkaErrorCode::InvalidRecord, said, true);
        assert_eq!(company, Company::Named);
        assert!(matches!(fate, RecordFate::Refused { words, .. } if words == said));
        for (code, said, has_names) in [
            (RDKafkaErrorCode::InvalidRecord, said, false),
            (RDKafkaErrorCode::InvalidRecord, vague, true),
            (RDKafkaErrorCode::InvalidTimestamp, said, true),
            (RDKafkaErrorCode::InvalidDifferentRecord, said, true),
        ] {
            let (fate, company) = take(code, said, has_names);
            assert_eq!((fate, company), (refused(code), Company::Others), "{code} {said}");
        }
        assert!(
            RDKafkaErrorCode::InvalidRecord.to_string().contains(vague),
            "as librdkafka has it"
        );
    }
}
