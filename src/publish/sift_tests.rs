//! Culprits among events, in the hands of a producer that refuses a partition's records together.

use std::collections::HashSet as StdHashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;
use crate::encode::{Encoder, Record};
use crate::event::{EventId, OwnedEvent};
use crate::hold::Reason;
use crate::ledger::BatchNumber;
use crate::publish::permit::Permit;
use crate::publish::{Offer, OnPoison};

/// Key and type of each record that went through.
type Sent = Arc<Mutex<Vec<(String, String)>>>;

/// Why culprits are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It is theirs alone.
    Theirs,
    /// It may be Kafka's.
    Unsure,
}

/// Refuses all that goes with a culprit to one of two partitions.
struct Refusing {
    sent: Sent,
    cause: Cause,
    gathered: Vec<(String, String, bool)>,
    appended: u64,
    /// The largest number of records that were sent together.
    together: Arc<AtomicU32>,
}

impl Produce for Refusing {
    fn produce(&mut self, record: &Record<'_>, _: &Arc<InFlightBatch>) -> Result<Offer> {
        let (_, kind) = record.headers().nth(1).expect("it has a type");
        let kind = String::from_utf8(kind.expect("a value").to_vec()).expect("text");
        self.gathered.push((record.key.to_owned(), kind, record.value == Some(b"bad")));
        Ok(Offer::Gathered)
    }

    fn confirm(&mut self, _: &Arc<InFlightBatch>) -> Result<Vec<Answer>> {
        let gathered = std::mem::take(&mut self.gathered);
        let keys: StdHashSet<&String> = gathered.iter().map(|(key, ..)| key).collect();
        assert_eq!(keys.len(), gathered.len(), "one of an aggregate at most");
        let count = u32::try_from(gathered.len()).expect("a few");
        self.together.fetch_max(count, std::sync::atomic::Ordering::Relaxed);
        let partition = |key: &str| key.len() % 2;
        let is_refused = |key: &str| {
            gathered.iter().any(|(other, _, is_bad)| *is_bad && partition(other) == partition(key))
        };
        let answers = gathered.iter().map(|(key, kind, _)| {
            if is_refused(key) {
                return self.refuse();
            }
            self.appended += 1;
            self.sent.lock().expect("nobody panicked").push((key.clone(), kind.clone()));
            Answer::Appended
        });
        Ok(answers.collect())
    }
}

impl Refusing {
    fn refuse(&self) -> Answer {
        let topic = Some("t".to_owned());
        let refusal = Refusal { reason: Reason::Refused, detail: "because".to_owned(), topic };
        match self.cause {
            Cause::Theirs => Answer::Refused { refusal, tries: 1, witnesses: None },
            Cause::Unsure => Answer::Refused { refusal, tries: 3, witnesses: Some(self.appended) },
        }
    }
}

fn desk(cause: Cause) -> (Desk<Refusing>, Sent, Arc<AtomicU32>) {
    let (sent, together) = (Sent::default(), Arc::new(AtomicU32::new(0)));
    let producer = Refusing {
        sent: Arc::clone(&sent),
        cause,
        gathered: Vec::new(),
        appended: 0,
        together: Arc::clone(&together),
    };
    let encoder = Encoder::new("t".parse().expect("a topic"));
    let permit = Arc::new(Permit::endless());
    (Desk::new(encoder, OnPoison::Park, producer, Arc::default(), permit), sent, together)
}

fn event(seq: usize, aggregate: usize, is_bad: bool) -> OwnedEvent {
    OwnedEvent {
        seq: i64::try_from(seq).expect("a small number"),
        id: EventId([0; 16]),
        aggregate_type: "t".to_owned(),
        // Of both partitions there are some.
        aggregate_id: format!("{aggregate}{}", "x".repeat(aggregate % 2)),
        kind: seq.to_string(),
        payload: Some(if is_bad { b"bad".to_vec() } else { b"good".to_vec() }),
        headers: None,
        created_at_micros: 0,
    }
}

fn publish(desk: &mut Desk<Refusing>, events: Vec<OwnedEvent>) -> Result<Vec<(String, Reason)>> {
    let waiting = AtomicU32::new(u32::MAX);
    let batch = Arc::new(InFlightBatch { number: BatchNumber(0), waiting });
    let set_aside = desk.publish(events, &batch)?;
    Ok(set_aside.into_iter().map(|one| (one.row.kind, one.refusal.reason)).collect())
}

proptest! {
    #[test]
    fn each_culprit_is_found_and_everything_else_is_sent_once(
        given in proptest::collection::vec((0_usize..40, proptest::bool::weighted(0.1)), 1..120),
    ) {
        let (mut desk, sent, _) = desk(Cause::Theirs);
        let events: Vec<OwnedEvent> = given
            .iter()
            .enumerate()
            .map(|(seq, (aggregate, is_bad))| event(seq, *aggregate, *is_bad))
            .collect();
        let found = publish(&mut desk, events.clone()).expect("it works");
        let (mut held, mut aside, mut expected) = (StdHashSet::new(), Vec::new(), Vec::new());
        for (event, (_, is_bad)) in events.iter().zip(&given) {
            if held.contains(&event.aggregate_id) {
                aside.push((event.kind.clone(), Reason::Follows));
            } else if *is_bad {
                held.insert(event.aggregate_id.clone());
                aside.push((event.kind.clone(), Reason::Refused));
            } else {
                expected.push((event.aggregate_id.clone(), event.kind.clone()));
            }
        }
        prop_assert_eq!(found, aside, "in the order in which they came");
        let mut sent = sent.lock().expect("nobody panicked").clone();
        // Each aggregate is in order; between them there is none.
        sent.sort_by(|one, other| one.0.cmp(&other.0));
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        prop_assert_eq!(sent, expected);
    }
}

#[test]
fn different_aggregates_are_sent_together() {
    let (mut desk, sent, together) = desk(Cause::Theirs);
    let events = (0..64).map(|number| event(number, number, false)).collect();
    assert!(publish(&mut desk, events).expect("it works").is_empty());
    assert_eq!(sent.lock().expect("nobody panicked").len(), 64);
    assert_eq!(together.load(std::sync::atomic::Ordering::Relaxed), 64);
}

#[test]
fn a_record_without_an_answer_is_given_up_only_when_another_one_gets_through() {
    let (mut with_company, _, _) = desk(Cause::Unsure);
    let events = vec![event(1, 1, true), event(2, 3, false), event(3, 2, false)];
    let found = publish(&mut with_company, events).expect("it works");
    assert_eq!(found, [("1".to_owned(), Reason::Refused)]);

    let (mut alone, _, _) = desk(Cause::Unsure);
    let error = publish(&mut alone, vec![event(1, 1, true)]).expect_err("nobody knows why");
    assert_eq!(error.kind(), ErrorKind::DeliveryUncertain, "{error}");
}
