//! What the dispatcher does with poison, in the hands of a producer that keeps a list.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;

use crate::event::{Bucket, EventId, OwnedEvent};
use crate::order::holds::{IdHead, Reason};
use crate::order::ledger::BatchNumber;
use crate::publish::dispatch::*;
use crate::record::encode::Record;

/// Topic, key and type of each record.
type Sent = Arc<Mutex<Vec<(String, String, String)>>>;

/// Takes all but records for the refused topics, and those whose value is too long.
struct List {
    sent: Sent,
    limit: usize,
}

impl Produce for List {
    fn produce(&mut self, record: &Record<'_>, _: &Arc<InFlightBatch>) -> Result<Offer> {
        let topic = record.topic.to_owned();
        if topic == "x.gone" {
            let detail = format!("{topic} is not there");
            let reason = Reason::TopicUnavailable;
            return Ok(Offer::Refused(Refusal { reason, detail, topic: Some(topic) }));
        }
        if record.value.is_some_and(|value| value.len() > self.limit) || topic == "x.full" {
            let detail = format!("{topic} is full");
            let topic = Some(topic);
            return Ok(Offer::Refused(Refusal { reason: Reason::TooLarge, detail, topic }));
        }
        let (_, kind) = record.headers().nth(1).unwrap();
        let kind = String::from_utf8(kind.unwrap().to_vec()).unwrap();
        self.sent.lock().unwrap().push((topic, record.key.to_owned(), kind));
        Ok(Offer::Taken)
    }
}

fn dispatcher(on_poison: OnPoison) -> (Dispatcher<List>, Sent) {
    let (sent, held) = (Sent::default(), Arc::default());
    let producer = List { sent: Arc::clone(&sent), limit: 3 };
    (
        Dispatcher::new(
            Encoder::new("x.{aggregatetype}".parse().unwrap()),
            on_poison,
            producer,
            held,
            Arc::new(SendDeadline::endless()),
        ),
        sent,
    )
}

fn event(seq: i64, aggregate_id: &str, payload: &str) -> OwnedEvent {
    OwnedEvent {
        seq,
        id: EventId([0; 16]),
        aggregate_type: "t".to_owned(),
        aggregate_id: aggregate_id.to_owned(),
        kind: seq.to_string(),
        payload: Some(payload.as_bytes().to_vec()),
        headers: None,
        created_at_micros: 0,
    }
}

fn batch() -> Arc<InFlightBatch> {
    Arc::new(InFlightBatch::new(BatchNumber(0), 99, Instant::now()))
}

fn publish(dispatcher: &mut Dispatcher<List>, events: &[OwnedEvent]) -> Vec<(i64, Reason)> {
    let set_aside = dispatcher.publish(events.to_vec(), &batch()).unwrap();
    set_aside.iter().map(|one| (one.row.seq, one.refusal.reason)).collect()
}

fn kinds(sent: &Sent, topic: &str) -> Vec<String> {
    let sent = sent.lock().unwrap();
    sent.iter().filter(|(found, ..)| found == topic).map(|(.., kind)| kind.clone()).collect()
}

#[test]
fn poison_holds_its_aggregate_and_nobody_else() {
    let (mut dispatcher, sent) = dispatcher(OnPoison::Park);
    let events = [event(1, "a", "1"), event(2, "a", "long"), event(3, "b", "1")];
    assert_eq!(publish(&mut dispatcher, &events), [(2, Reason::TooLarge)]);
    let later = [event(4, "a", "1"), event(5, "b", "1"), event(0, "a", "1")];
    assert_eq!(publish(&mut dispatcher, &later), [(4, Reason::Follows)]);
    assert_eq!(kinds(&sent, "x.t"), ["1", "3", "5", "0"]);
    assert_eq!(dispatcher.held.load(Ordering::Relaxed), 1);
    dispatcher.resume(&[], &[AggregateKey::of(&events[0].event())]);
    assert_eq!(publish(&mut dispatcher, &later), []);
    assert_eq!(dispatcher.held.load(Ordering::Relaxed), 0);
}

#[test]
fn a_bad_event_is_poison_before_any_producer_sees_it() {
    let (mut dispatcher, sent) = dispatcher(OnPoison::Park);
    let headers = OwnedEvent { headers: Some("[]".to_owned()), ..event(1, "a", "1") };
    let topic = OwnedEvent { aggregate_type: "a b".to_owned(), ..event(2, "a", "1") };
    let expected = [(1, Reason::BadHeaders), (2, Reason::IllegalTopic)];
    assert_eq!(publish(&mut dispatcher, &[headers, topic]), expected);
    assert!(sent.lock().unwrap().is_empty());
}

#[test]
fn a_dead_letter_lets_its_aggregate_go_on() {
    let (mut dispatcher, sent) = dispatcher(OnPoison::DeadLetter("x.letters".to_owned()));
    let bad = OwnedEvent { headers: Some("[]".to_owned()), ..event(1, "a", "1") };
    assert_eq!(
        publish(&mut dispatcher, &[bad, event(2, "a", "1"), event(3, "a", "long")]),
        [(3, Reason::TooLarge)]
    );
    assert_eq!(kinds(&sent, "x.letters"), ["1"]);
    assert_eq!(kinds(&sent, "x.t"), ["2"]);
}

#[test]
fn what_is_no_dead_letter_either_is_parked_with_both_reasons() {
    let (mut dispatcher, _) = dispatcher(OnPoison::DeadLetter("x.full".to_owned()));
    let bad = OwnedEvent { headers: Some("[]".to_owned()), ..event(1, "a", "1") };
    let set_aside = dispatcher.publish(vec![bad], &batch()).unwrap();
    let refusal = &set_aside[0].refusal;
    assert_eq!(refusal.reason, Reason::BadHeaders);
    assert!(refusal.detail.ends_with("nor as a dead letter: x.full is full"), "{refusal:?}");
}

#[test]
fn what_waits_for_the_dead_letters_topic_is_tried_again_with_it() {
    let (mut dispatcher, _) = dispatcher(OnPoison::DeadLetter("x.gone".to_owned()));
    let bad = OwnedEvent { headers: Some("[]".to_owned()), ..event(1, "a", "1") };
    let set_aside = dispatcher.publish(vec![bad], &batch()).unwrap();
    let refusal = &set_aside[0].refusal;
    assert_eq!(refusal.reason, Reason::TopicUnavailable);
    assert_eq!(refusal.topic.as_deref(), Some("x.gone"));
    assert!(refusal.detail.contains("must be a JSON object"), "{refusal:?}");
}

#[test]
fn a_stop_names_the_event() {
    let (mut dispatcher, _) = dispatcher(OnPoison::Stop);
    let error = dispatcher.publish(vec![event(7, "a", "long")], &batch()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unpublishable);
    assert!(error.message().contains("seq 7") && error.remedy().is_some(), "{error}");
}

/// What happens to the dispatcher; the shard's steps, without a crash.
#[derive(Clone, Debug)]
enum Step {
    /// The next events, each of an aggregate, and whether it is poison.
    Send(Vec<(u8, bool)>),
    /// An aggregate's first parked events are tried again, in pieces of this size.
    Retry(u8, usize),
    /// The topic takes more from now on.
    Mend,
}

fn step() -> impl Strategy<Value = Step> {
    let event = (0..3_u8, prop::bool::weighted(0.2));
    prop_oneof![
        4 => prop::collection::vec(event, 1..6).prop_map(Step::Send),
        4 => (0..3_u8, 1..4_usize).prop_map(|(aggregate, piece)| Step::Retry(aggregate, piece)),
        1 => Just(Step::Mend),
    ]
}

/// The dispatcher, and what a shard would have parked.
struct Bench {
    dispatcher: Dispatcher<List>,
    sent: Sent,
    parked: BTreeMap<i64, OwnedEvent>,
    next_seq: i64,
}

impl Bench {
    fn publish(&mut self, events: Vec<OwnedEvent>) {
        for one in self.dispatcher.publish(events, &batch()).unwrap() {
            self.parked.insert(one.row.seq, one.row);
        }
    }

    fn send(&mut self, events: Vec<(u8, bool)>) {
        let number = |(aggregate, is_poison): (u8, bool)| {
            self.next_seq += 1;
            event(self.next_seq, &aggregate.to_string(), if is_poison { "long" } else { "1" })
        };
        let events = events.into_iter().map(number).collect();
        self.publish(events);
    }

    fn retry(&mut self, aggregate: u8, piece: usize) {
        let id = aggregate.to_string();
        let all: Vec<OwnedEvent> =
            self.parked.values().filter(|event| event.aggregate_id == id).cloned().collect();
        let (first, rest) = all.split_at(piece.min(all.len()));
        let Some(head) = first.first() else { return };
        let key = AggregateKey::of(&head.event());
        self.dispatcher.resume(&[], std::slice::from_ref(&key));
        first.iter().for_each(|event| {
            self.parked.remove(&event.seq);
        });
        self.publish(first.to_vec());
        if let Some(next) = rest.first() {
            self.dispatcher.hold(vec![Hold {
                key,
                head: IdHead::of(&id),
                from: HeldFrom::new(next.seq, OrderingKey::Written),
            }]);
        }
    }

    fn sent_by(&self, aggregate: u8) -> Vec<i64> {
        let (sent, id) = (self.sent.lock().unwrap(), aggregate.to_string());
        sent.iter()
            .filter(|(_, key, _)| *key == id)
            .map(|(.., kind)| kind.parse().unwrap())
            .collect()
    }
}

proptest! {
    #[test]
    fn each_aggregate_is_in_order_whatever_is_parked_and_tried_again(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (dispatcher, sent) = dispatcher(OnPoison::Park);
        let mut bench = Bench { dispatcher, sent, parked: BTreeMap::new(), next_seq: 0 };
        let retry_all = [Step::Mend, Step::Retry(0, 999), Step::Retry(1, 999), Step::Retry(2, 999)];
        for step in steps.into_iter().chain(retry_all) {
            match step {
                Step::Send(events) => bench.send(events),
                Step::Retry(aggregate, piece) => bench.retry(aggregate, piece),
                Step::Mend => bench.dispatcher.producer.limit = 9,
            }
            for aggregate in 0..3 {
                let sent = bench.sent_by(aggregate);
                prop_assert!(sent.is_sorted_by(|a, b| a < b), "{sent:?}");
            }
        }
        let sent: usize = (0..3).map(|aggregate| bench.sent_by(aggregate).len()).sum();
        prop_assert_eq!(sent as i64, bench.next_seq, "and nothing stays behind");
        prop_assert!(bench.dispatcher.holds.is_empty());
    }
}

/// An event of which the aggregate alone is known.
#[derive(Debug)]
struct Withheld(OwnedEvent, Refusal);

impl LendEvent for Withheld {
    fn event(&self) -> Event<'_> {
        self.0.event()
    }

    fn whereabouts(&self) -> Whereabouts {
        Whereabouts::Outbox(Bucket(0))
    }

    fn flaw(&self) -> Option<&Refusal> {
        Some(&self.1)
    }
}

#[test]
fn what_is_lent_without_its_values_is_sent_nowhere() {
    for on_poison in [OnPoison::Park, OnPoison::DeadLetter("letters".to_owned())] {
        let (mut dispatcher, sent) = dispatcher(on_poison);
        let withheld = |seq| Withheld(event(seq, "a", ""), Refusal::not_read(9, 8));
        let set_aside = dispatcher.publish(vec![withheld(1), withheld(2)], &batch()).unwrap();
        let reasons: Vec<Reason> = set_aside.iter().map(|one| one.refusal.reason).collect();
        assert_eq!(reasons, [Reason::TooLarge, Reason::Follows]);
        let later =
            dispatcher.publish(vec![event(3, "a", "x"), event(4, "b", "x")], &batch()).unwrap();
        assert_eq!(later.len(), 1, "its aggregate is held, and no other");
        assert_eq!(sent.lock().unwrap().len(), 1);
    }
    let (mut dispatcher, _) = dispatcher(OnPoison::Stop);
    let withheld = Withheld(event(1, "a", ""), Refusal::unreadable("missing chunk"));
    let stopped = dispatcher.publish(vec![withheld], &batch()).unwrap_err();
    assert!(stopped.message().contains("missing chunk"), "{stopped}");
}
