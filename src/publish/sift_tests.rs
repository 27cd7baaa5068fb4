//! Culprits among events, in the hands of a producer that refuses a partition's records together.

use std::collections::HashSet as StdHashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use crate::event::{Event, EventId, OwnedEvent};
use crate::order::holds::{AggregateKey, Holds, Reason};
use crate::order::ledger::BatchNumber;
use crate::publish::send_deadline::SendDeadline;
use crate::publish::sift::*;
use crate::publish::{Company, Haste, Offer, OnPoison};
use crate::record::encode::{Encoder, Record};

/// Key and type of each record that went through.
type Sent = Arc<Mutex<Vec<(String, String)>>>;

/// Why culprits are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It is theirs alone.
    Theirs,
    /// It may be somebody else's.
    Unsure(Suspect),
}

/// Refuses all that goes with a culprit to one of two partitions.
struct Refusing {
    sent: Sent,
    cause: Cause,
    haste: Haste,
    gathered: Vec<(String, String, bool)>,
    appended: u64,
    seen: Arc<Seen>,
    is_topic_blamed: bool,
    is_topic_in_doubt: bool,
    names: Names,
    known: StdHashSet<EventId>,
}

/// Whether the broker says which ones it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Untold,
    Told,
}

/// What a test asks of a producer afterwards.
#[derive(Default)]
struct Seen {
    /// The largest number of records that were sent together.
    together: AtomicU32,
    /// How often any were sent.
    confirms: AtomicU32,
}

impl Produce for Refusing {
    fn produce(&mut self, record: &Record<'_>, _: &Arc<InFlightBatch>) -> Result<Offer> {
        if self.is_topic_blamed || self.is_topic_in_doubt {
            return Ok(Offer::Refused(topic_unavailable()));
        }
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
        self.seen.together.fetch_max(count, Relaxed);
        self.seen.confirms.fetch_add(u32::from(count > 0), Relaxed);
        let partition = |key: &str| key.len() % 2;
        let is_refused = |key: &str| {
            gathered.iter().any(|(other, _, is_bad)| *is_bad && partition(other) == partition(key))
        };
        let answers = gathered.iter().map(|(key, kind, is_bad)| {
            if is_refused(key) {
                return self.refuse(match self.names {
                    _ if count == 1 => Company::Alone,
                    Names::Told if *is_bad => Company::Named,
                    Names::Told | Names::Untold => Company::Others,
                });
            }
            self.appended += 1;
            self.sent.lock().expect("nobody panicked").push((key.clone(), kind.clone()));
            Answer::Appended
        });
        Ok(answers.collect())
    }

    fn known_refusal(&self, event: EventId) -> Option<Refusal> {
        let refusal = Refusal { reason: Reason::Refused, ..topic_unavailable() };
        self.known.contains(&event).then_some(refusal)
    }

    fn note_culprit(&mut self, event: &Event<'_>, refusal: &Refusal) {
        assert_eq!(refusal.reason, Reason::Refused);
        self.known.insert(event.id);
    }

    fn forget_culprits(&mut self, _: &[AggregateKey]) {
        self.known.clear();
    }

    fn blame_topic(&mut self, _: Refusal, _: EventId) -> Result<Refusal> {
        self.is_topic_blamed = true;
        Ok(topic_unavailable())
    }

    fn doubt_topic(&mut self, _: Refusal) -> Result<Refusal> {
        self.is_topic_in_doubt = true;
        Ok(topic_unavailable())
    }
}

fn topic_unavailable() -> Refusal {
    let topic = Some("t".to_owned());
    Refusal { reason: Reason::TopicUnavailable, detail: "because".to_owned(), topic }
}

impl Refusing {
    fn refuse(&self, company: Company) -> Answer {
        let topic = Some("t".to_owned());
        let refusal = Refusal { reason: Reason::Refused, detail: "because".to_owned(), topic };
        match self.cause {
            Cause::Theirs => Answer::Refused(refusal, Proof::Alone { tries: 1 }, company),
            Cause::Unsure(suspect) => {
                let (others, haste) = (self.appended, self.haste);
                let proof = Proof::Witness { tries: 3, others, suspect, haste };
                Answer::Refused(refusal, proof, company)
            }
        }
    }
}

fn dispatcher(cause: Cause) -> (Dispatcher<Refusing>, Sent, Arc<Seen>) {
    let (sent, seen) = (Sent::default(), Arc::<Seen>::default());
    let producer = Refusing {
        sent: Arc::clone(&sent),
        cause,
        haste: Haste::Calm,
        gathered: Vec::new(),
        appended: 0,
        seen: Arc::clone(&seen),
        is_topic_blamed: false,
        is_topic_in_doubt: false,
        names: Names::Untold,
        known: StdHashSet::new(),
    };
    let encoder = Encoder::new("t".parse().expect("a topic"));
    let send_deadline = Arc::new(SendDeadline::endless());
    (Dispatcher::new(encoder, OnPoison::Park, producer, Arc::default(), send_deadline), sent, seen)
}

fn event(seq: usize, aggregate: usize, is_bad: bool) -> OwnedEvent {
    OwnedEvent {
        seq: i64::try_from(seq).expect("a small number"),
        id: EventId([u8::try_from(seq % 256).expect("a byte"); 16]),
        aggregate_type: "t".to_owned(),
        // Of both partitions there are some.
        aggregate_id: format!("{aggregate}{}", "x".repeat(aggregate % 2)),
        kind: seq.to_string(),
        payload: Some(if is_bad { b"bad".to_vec() } else { b"good".to_vec() }),
        headers: None,
        created_at_micros: 0,
    }
}

fn publish(
    dispatcher: &mut Dispatcher<Refusing>,
    events: Vec<OwnedEvent>,
) -> Result<Vec<(String, Reason)>> {
    let batch = Arc::new(InFlightBatch::new(BatchNumber(0), u32::MAX, Instant::now()));
    let set_aside = dispatcher.publish(events, &batch)?;
    Ok(set_aside.into_iter().map(|one| (one.row.kind, one.refusal.reason)).collect())
}

proptest! {
    #[test]
    fn each_culprit_is_found_and_everything_else_is_sent_once(
        given in proptest::collection::vec((0_usize..40, proptest::bool::weighted(0.1)), 1..120),
    ) {
        let (mut dispatcher, sent, _) = dispatcher(Cause::Theirs);
        let events: Vec<OwnedEvent> = given
            .iter()
            .enumerate()
            .map(|(seq, (aggregate, is_bad))| event(seq, *aggregate, *is_bad))
            .collect();
        let found = publish(&mut dispatcher, events.clone()).expect("it works");
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
    let (mut dispatcher, sent, seen) = dispatcher(Cause::Theirs);
    let events = (0..64).map(|number| event(number, number, false)).collect();
    assert!(publish(&mut dispatcher, events).expect("it works").is_empty());
    assert_eq!(sent.lock().expect("nobody panicked").len(), 64);
    assert_eq!(seen.together.load(Relaxed), 64);
}

/// Refused alone so often, each time with what was found.
fn findings(proofs: &[(u64, Suspect)], company: Option<u64>) -> Vec<TrialFinding> {
    let mut trial = Trial::default();
    let haste = Haste::Calm;
    let proof = |others, suspect| Proof::Witness { tries: 3, others, suspect, haste };
    if let Some(others) = company {
        trial.note_in_company(proof(others, Suspect::Topic));
    }
    proofs.iter().map(|(others, suspect)| trial.note(proof(*others, *suspect))).collect()
}

#[test]
fn one_that_goes_through_meanwhile_tells_that_it_is_the_record() {
    use Suspect::{Kafka, Record, Topic};
    use TrialFinding::{Culprit, InDoubt, OfTopic, Open};
    let told = findings(&[(4, Topic), (5, Topic), (5, Topic)], None);
    assert_eq!(told, [Open, Open, Culprit(Ground::Others)]);
    let before = findings(&[(5, Topic); 6], Some(4));
    assert_eq!(before[..5], [Open; 5], "it went through earlier, and Kafka may have gone since");
    assert_eq!(before[5], Culprit(Ground::Others));
    assert_eq!(findings(&[(4, Topic); 6], Some(4))[5], OfTopic);
    assert_eq!(findings(&[(4, Record); 3], Some(4)), [Open, Open, Culprit(Ground::Cut)]);
    let mixed = [(4, Record), (4, Topic), (4, Record)];
    assert_eq!(findings(&mixed, Some(4)), [Open; 3], "once it was told something else");
    let mut silent = [(4, Record); 3];
    silent[1].1 = Kafka;
    assert_eq!(findings(&silent, None)[2], InDoubt, "the leader was away itself");
    assert_eq!(findings(&[(0, Kafka), (7, Topic), (7, Topic)], None), [Open; 3], "no one since");
}

#[test]
fn a_record_without_an_answer_is_given_up_when_another_one_gets_through() {
    let (mut with_company, _, _) = dispatcher(Cause::Unsure(Suspect::Topic));
    let events = vec![event(1, 1, true), event(2, 3, false), event(3, 2, false)];
    let found = publish(&mut with_company, events).expect("it works");
    assert_eq!(found, [("1".to_owned(), Reason::Refused)]);
}

#[test]
fn alone_it_is_given_up_where_its_connection_ends_each_time_or_with_its_topic() {
    let (mut cut, _, _) = dispatcher(Cause::Unsure(Suspect::Record));
    let found = publish(&mut cut, vec![event(1, 1, true)]).expect("it works");
    assert_eq!(found, [("1".to_owned(), Reason::Refused)]);

    let (mut unanswered, _, _) = dispatcher(Cause::Unsure(Suspect::Topic));
    let found = publish(&mut unanswered, vec![event(1, 1, true)]).expect("it works");
    assert_eq!(found, [("1".to_owned(), Reason::TopicUnavailable)]);

    let (mut away, _, _) = dispatcher(Cause::Unsure(Suspect::Kafka));
    let found = publish(&mut away, vec![event(1, 1, true)]).expect("others may tell");
    assert_eq!(found, [("1".to_owned(), Reason::TopicUnavailable)]);
    assert!(away.producer.is_topic_in_doubt && !away.producer.is_topic_blamed);
}

#[test]
fn a_topic_may_be_in_doubt_after_a_few_that_are_refused_alone() {
    let (mut dispatcher, _, seen) = dispatcher(Cause::Unsure(Suspect::Kafka));
    let events = (0..100).map(|number| event(number, number, true)).collect();
    let found = publish(&mut dispatcher, events).expect("others may tell");
    assert!(found.len() == 100 && dispatcher.producer.is_topic_in_doubt);
    assert_eq!(seen.confirms.load(Relaxed), 4, "all, one, a half, one, and nobody else");
}

#[test]
fn a_topic_that_takes_nothing_is_given_up_after_a_few() {
    let (mut dispatcher, sent, seen) = dispatcher(Cause::Unsure(Suspect::Topic));
    let events = (0..100).map(|number| event(number, number, true)).collect();
    let found = publish(&mut dispatcher, events).expect("it works");
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|(_, reason)| *reason == Reason::TopicUnavailable), "{found:?}");
    assert_eq!(seen.confirms.load(Relaxed), 4, "all, one, a half, one, and nobody else");
    assert!(sent.lock().expect("nobody panicked").is_empty());
}

#[test]
fn a_topic_that_was_long_overdue_or_given_up_before_is_not_tried_for_long() {
    for (haste, confirms) in [(Haste::Again, 1), (Haste::Overdue, 2), (Haste::Calm, 6)] {
        let (mut dispatcher, _, seen) = dispatcher(Cause::Unsure(Suspect::Topic));
        dispatcher.producer.haste = haste;
        let found = publish(&mut dispatcher, vec![event(1, 1, true)]).expect("it works");
        assert_eq!(found, [("1".to_owned(), Reason::TopicUnavailable)]);
        assert_eq!(seen.confirms.load(Relaxed), confirms, "{haste:?}");
    }
    let (mut dispatcher, _, _) = dispatcher(Cause::Unsure(Suspect::Record));
    dispatcher.producer.haste = Haste::Again;
    let found = publish(&mut dispatcher, vec![event(1, 1, true)]).expect("it works");
    assert_eq!(found, [("1".to_owned(), Reason::Refused)], "whose connection ends is found yet");
}

/// A group of so many events of a topic, each refused so often before.
fn group(topic: &str, tries: u32) -> TrialGroup<OwnedEvent> {
    let trial = Trial { tries, ..Trial::default() };
    TrialGroup::new(topic.to_owned(), vec![Candidate { row: (0, event(1, 1, true)), trial }])
}

#[test]
fn topics_are_tried_side_by_side_and_the_groups_of_each_in_turn() {
    let mut sifting = Sifting::new(Instant::now());
    for topic in ["a", "a", "b"] {
        sifting.groups.push_back(group(topic, 0));
    }
    sifting.again.extend([group("a", 1), group("c", 1)]);
    let later = Instant::now() + Duration::from_secs(60);
    sifting.again.push_back(TrialGroup { not_before: Some(later), ..group("d", 1) });
    let mut round = || -> Vec<(String, u32)> {
        let round = sifting.next_round();
        round.iter().map(|one| (one.topic.clone(), one.candidates[0].trial.tries)).collect()
    };
    let named = |names: &[(&str, u32)]| -> Vec<(String, u32)> {
        names.iter().map(|(name, tries)| ((*name).to_owned(), *tries)).collect()
    };
    assert_eq!(round(), named(&[("a", 0), ("b", 0), ("c", 1)]));
    assert_eq!(round(), named(&[("a", 0)]), "what was refused alone comes last");
    assert_eq!(round(), named(&[("a", 1)]), "the other one is not due");
    assert_eq!(round(), named(&[("d", 1)]), "nothing else is left");
    assert!(round().is_empty());
    let many = 2 * WAYS_MAX;
    sifting.groups.extend((0..many).map(|number| group(&number.to_string(), 0)));
    assert_eq!(sifting.next_round().len(), WAYS_MAX);
}

/// So many events of which each fifth is refused.
fn each_fifth_is_bad(count: usize) -> Vec<OwnedEvent> {
    (0..count).map(|number| event(number, number, number % 5 == 0)).collect()
}

#[test]
fn those_that_the_broker_has_named_are_no_more_tried_nor_are_the_others_in_halves() {
    let (mut dispatcher, sent, seen) = dispatcher(Cause::Theirs);
    dispatcher.producer.names = Names::Told;
    let found = publish(&mut dispatcher, each_fifth_is_bad(60)).expect("it works");
    assert_eq!(found.len(), 12);
    assert!(found.iter().all(|(_, reason)| *reason == Reason::Refused), "{found:?}");
    assert_eq!(sent.lock().expect("nobody panicked").len(), 48);
    assert_eq!(seen.confirms.load(Relaxed), 2, "all, and all others");
}

#[test]
fn what_was_found_out_is_not_tried_again_until_its_aggregate_is() {
    let (mut dispatcher, _, seen) = dispatcher(Cause::Theirs);
    let first = publish(&mut dispatcher, each_fifth_is_bad(60)).expect("it works");
    let tries = seen.confirms.swap(0, Relaxed);
    assert!(tries > 20, "{tries}");
    // The transaction was not committed: the same page comes again, and nothing is held yet.
    dispatcher.renew(Holds::default(), Vec::new()).expect("nothing is watched");
    let again = publish(&mut dispatcher, each_fifth_is_bad(60)).expect("it works");
    assert_eq!((again, seen.confirms.swap(0, Relaxed)), (first.clone(), 1));
    dispatcher.renew(Holds::default(), Vec::new()).expect("nothing is watched");
    dispatcher.resume(&[], &[AggregateKey::of(&each_fifth_is_bad(1)[0].event())]);
    let afresh = publish(&mut dispatcher, each_fifth_is_bad(60)).expect("it works");
    assert_eq!((afresh, seen.confirms.load(Relaxed)), (first, tries));
}

#[test]
fn the_first_of_each_aggregate_are_found_out_before_what_follows_them() {
    let (mut dispatcher, sent, seen) = dispatcher(Cause::Theirs);
    let events = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)];
    let events = events.map(|(seq, aggregate)| event(seq, aggregate, false)).to_vec();
    assert!(publish(&mut dispatcher, events).expect("it works").is_empty());
    let sent = sent.lock().expect("nobody panicked").clone();
    let kinds: Vec<&str> = sent.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds, ["1", "3", "5", "2", "4"]);
    assert_eq!(seen.confirms.load(Relaxed), 2);
}
