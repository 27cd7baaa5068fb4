use super::*;

const MIB: u64 = 1 << 20;

/// A relay with one shard that is well and has nothing to do.
struct Relay {
    health: Health,
    readings: Readings,
}

impl Relay {
    fn new() -> Self {
        let beat = |name: &str, number| Beat { name: name.to_owned(), number, beats: 0 };
        let readings = Readings {
            session: SessionState::Working,
            lease_left_millis: Some(6_100),
            lease_millis: 10_000,
            shards: vec![ShardReading::default()],
            threads: vec![beat("publish-0", 0), beat("poll-0", 1)],
            tasks: vec![beat("ticker", 0)],
            ..Readings::default()
        };
        let mut relay = Self { health: Health::default(), readings };
        relay.health.look(relay.readings.clone());
        relay
    }

    /// Looks twice a second, while everybody beats; `change` says what happens meanwhile.
    fn pass(&mut self, seconds: u64, mut change: impl FnMut(&mut Readings)) -> &mut Self {
        for _ in 0..2 * seconds {
            self.readings.now_millis += 500;
            let Readings { threads, tasks, .. } = &mut self.readings;
            threads.iter_mut().chain(tasks).for_each(|beat| beat.beats += 1);
            change(&mut self.readings);
            self.health.look(self.readings.clone());
        }
        self
    }

    /// What is not well, as it is written.
    fn ill(&self) -> Vec<String> {
        let checks = self.health.ready().into_iter().chain(self.health.live(0));
        checks.filter(|check| !check.is_well()).map(|check| check.to_string()).collect()
    }

    fn shard(&mut self) -> &mut ShardReading {
        &mut self.readings.shards[0]
    }
}

fn still(_: &mut Readings) {}

fn get_on(readings: &mut Readings) {
    let shard = &mut readings.shards[0];
    shard.acknowledged += 1;
    shard.advanced += 1;
}

#[test]
fn an_idle_hour_is_well() {
    let mut relay = Relay::new();
    assert_eq!(relay.pass(3_600, still).ill(), [""; 0]);
    let lines: Vec<String> = relay.health.ready().iter().map(HealthCheck::to_string).collect();
    let wanted =
        ["[+]postgres ok", "[+]lease 6.1s left", "[+]kafka ok", "[+]shards ok, nothing waits"];
    assert_eq!(lines, wanted);
    // The hour does not count against the first event behind it.
    *relay.shard() =
        ShardReading { has_work: true, in_flight_bytes: MIB, ..ShardReading::default() };
    assert_eq!(relay.pass(7, still).ill(), [""; 0]);
}

#[test]
fn who_gets_on_is_well() {
    let mut relay = Relay::new();
    *relay.shard() =
        ShardReading { has_work: true, in_flight_bytes: MIB, ..ShardReading::default() };
    assert_eq!(relay.pass(600, get_on).ill(), [""; 0]);
}

#[test]
fn while_kafka_is_away_it_is_told_how_much_waits() {
    let mut relay = Relay::new();
    relay.pass(5, get_on);
    *relay.shard() = ShardReading { has_work: true, in_flight_bytes: 6 * MIB, ..*relay.shard() };
    assert_eq!(relay.pass(7, still).ill(), [""; 0]);
    assert_eq!(relay.health.silence().map(|silence| silence.millis), Some(7_000));
    // Within ten seconds, however long a lease is.
    relay.readings.lease_millis = 60_000;
    let ill = relay.pass(2, still).ill();
    assert_eq!(ill, ["[-]kafka nothing acknowledged for 9.0s, 6.0 MiB in flight"]);
    let ill = relay.pass(25, still).ill();
    assert_eq!(ill, ["[-]kafka nothing acknowledged for 34s, 6.0 MiB in flight"]);
    // The producer is replaced, which helps nothing; for a moment nothing is in flight.
    relay.shard().in_flight_bytes = 0;
    relay.shard().begun_anew += 1;
    relay.pass(2, still);
    relay.shard().in_flight_bytes = 6 * MIB;
    let ill = relay.pass(1, still).ill();
    assert_eq!(ill, ["[-]kafka nothing acknowledged for 35s, 6.0 MiB in flight"]);
    assert_eq!(relay.pass(1, get_on).ill(), [""; 0], "it is back");
}

#[test]
fn a_transaction_that_takes_too_long_is_the_cause_until_one_has_ended() {
    let mut relay = Relay::new();
    let overlong = Some(OverlongTransaction { bytes: 6 * MIB, seconds: 20 });
    *relay.shard() = ShardReading { has_work: true, overlong, ..*relay.shard() };
    let cause =
        "transactions take longer than their time-out: Kafka takes less than 6.0 MiB in 20 s";
    assert_eq!(relay.pass(2, get_on).ill(), [format!("[-]kafka {cause}")]);
    assert_eq!(relay.pass(20, still).ill()[0], format!("[-]kafka {cause}"), "not its silence");
    relay.shard().overlong = None;
    assert_eq!(relay.pass(1, get_on).ill(), [""; 0]);
}

#[test]
fn what_waits_for_postgresql_alone_is_no_silence_of_kafka() {
    let mut relay = Relay::new();
    *relay.shard() =
        ShardReading { has_work: true, in_flight_bytes: MIB, ..ShardReading::default() };
    relay.shard().is_answered = true;
    let ill = relay.pass(12, still).ill();
    assert_eq!(ill, ["[-]shards shard 0 has work and did not get on for 12s"]);
    relay.shard().is_answered = false;
    relay.shard().advanced += 1;
    assert_eq!(relay.pass(7, still).ill(), [""; 0], "what was answered does not count");
    assert_eq!(relay.pass(3, still).ill().len(), 1);
}

#[test]
fn one_muted_producer_among_others_is_seen() {
    let mut relay = Relay::new();
    let muted = ShardReading { has_work: true, in_flight_bytes: MIB, ..ShardReading::default() };
    relay.readings.shards.push(muted);
    relay.shard().has_work = true;
    let ill = relay.pass(12, get_on).ill();
    assert_eq!(ill, ["[-]kafka nothing acknowledged for 11s, 1.0 MiB in flight"]);
}

#[test]
fn a_shard_that_sends_the_same_again_and_again_is_seen() {
    let mut relay = Relay::new();
    relay.shard().has_work = true;
    let again = |readings: &mut Readings| {
        let shard = &mut readings.shards[0];
        shard.in_flight_bytes = MIB;
        // Acknowledged, but never more than before.
        shard.acknowledged += 1;
    };
    assert_eq!(relay.pass(7, again).ill(), [""; 0]);
    let ill = relay.pass(2, again).ill();
    assert_eq!(ill, ["[-]shards shard 0 has work and did not get on for 9.0s"]);
    let ill = relay.pass(5, again).ill();
    assert_eq!(ill, ["[-]shards shard 0 has work and did not get on for 14s"]);
}

#[test]
fn a_shard_whose_producer_fails_again_and_again_is_seen() {
    let mut relay = Relay::new();
    relay.shard().has_work = true;
    let mut looks = 0;
    let fails = |readings: &mut Readings| {
        // Another of its buckets has something new each time.
        get_on(readings);
        looks += 1;
        readings.shards[0].begun_anew += u64::from(looks % 10 == 0);
    };
    let ill = relay.pass(30, fails).ill();
    assert_eq!(ill, ["[-]shards shard 0 began anew 6 times within a minute"]);
    assert_eq!(relay.pass(62, get_on).ill(), [""; 0], "it is over");
}

#[test]
fn a_shard_that_waits_for_postgres_is_seen() {
    let mut relay = Relay::new();
    // A claim that waits for a lock: the lease is renewed all the time.
    relay.shard().has_work = true;
    let ill = relay.pass(9, still).ill();
    assert_eq!(ill, ["[-]shards shard 0 has work and did not get on for 9.0s"]);
}

#[test]
fn a_frozen_postgres_is_seen() {
    let mut relay = Relay::new();
    relay.pass(6, |readings| {
        readings.lease_left_millis = readings.lease_left_millis.map(|left| left - 500);
    });
    assert_eq!(relay.ill(), [""; 0]);
    relay.pass(1, |readings| {
        readings.lease_left_millis = readings.lease_left_millis.map(|left| left - 500);
    });
    assert_eq!(relay.ill(), ["[-]lease ran out 0.9s ago"]);
    relay.readings.session =
        SessionState::Between(Some(SessionEnd::of("PostgreSQL did not answer")));
    relay.readings.lease_left_millis = None;
    let ill = relay.pass(12, still).ill();
    assert_eq!(ill[0], "[-]postgres no session for 11s: PostgreSQL did not answer");
}

#[test]
fn a_ticker_without_an_answer_is_seen_though_the_lease_is_renewed() {
    let mut relay = Relay::new();
    relay.pass(3, still).pass(11, |readings| readings.tasks[0].beats = 1);
    assert_eq!(relay.ill(), ["[-]postgres the ticker has had no answer for 10s"]);
    assert_eq!(relay.health.unanswered_millis(), 10_500);
    // Who is in the way is named, with what helps.
    relay.readings.lock = Some(LockInTheWay {
        words: "a lock on outbox behind session 55 of role shop".to_owned(),
        remedy: "end it".to_owned(),
    });
    relay.pass(1, |readings| readings.tasks[0].beats = 1);
    let check = relay.health.ready().swap_remove(0);
    let words = "the ticker has had no answer for 11s, it waits for a lock on outbox behind session 55 of role shop";
    assert_eq!((check.words.as_str(), check.remedy.as_deref()), (words, Some("end it")));
    // It has ended with its session, and the next one begins.
    relay.readings.tasks = vec![Beat { name: "ticker".to_owned(), number: 7, beats: 0 }];
    assert_eq!(relay.pass(1, still).ill(), [""; 0]);
}

#[test]
fn a_lock_that_is_seen_is_told_at_once() {
    let mut relay = Relay::new();
    let silent = |readings: &mut Readings| readings.tasks[0].beats = 1;
    relay.pass(1, silent).pass(5, silent);
    assert_eq!(relay.ill(), [""; 0], "it may be slow");
    relay.readings.lock = Some(LockInTheWay {
        words: "a lock on outbox behind session 55 of role shop".to_owned(),
        remedy: "end it".to_owned(),
    });
    let ill = relay.pass(1, silent).ill();
    let words =
        "[-]postgres the ticker has had no answer for 6.5s, it waits for a lock on outbox behind";
    assert!(ill[0].starts_with(words), "{ill:?}");
    // What is known of it is older than the answer.
    relay.readings.tasks[0].beats = 2;
    assert_eq!(relay.pass(1, still).ill(), [""; 0]);
}

#[test]
fn a_longer_lease_leaves_more_time() {
    let mut relay = Relay::new();
    relay.readings.lease_millis = 60_000;
    relay.shard().has_work = true;
    assert_eq!(relay.pass(47, still).ill(), [""; 0], "four fifths of it");
    assert_eq!(
        relay.pass(1, still).ill(),
        ["[-]shards shard 0 has work and did not get on for 48s"]
    );
}

#[test]
fn rows_that_wait_to_be_copied_are_no_nothing() {
    let mut relay = Relay::new();
    let cause = "they are copied later".to_owned();
    relay.readings.log_refusal = Some(super::LogRefusal::Copy(cause));
    assert_eq!(relay.pass(1, still).ill(), [""; 0]);
    let shards = relay.health.ready().pop().expect("there are checks").to_string();
    assert_eq!(shards, "[+]shards ok, but rows of adopted tables wait: they are copied later");
}

#[test]
fn whoever_was_never_let_in_is_not_ready() {
    let mut relay = Relay::new();
    relay.readings.session = SessionState::Between(None);
    relay.readings.lease_left_millis = None;
    let ill = relay.pass(4, still).ill();
    assert_eq!(ill, ["[-]postgres no session for 3.5s", "[-]lease none without a session"]);
    let shards = relay.health.ready().pop().expect("there are checks").to_string();
    assert!(!shards.contains("nothing waits"), "that is not known: {shards}");
}

#[test]
fn standing_by_is_well_unless_a_stranger_has_the_lock() {
    let mut relay = Relay::new();
    relay.readings.session = SessionState::StandingBy;
    relay.readings.lease_left_millis = None;
    relay.readings.tasks.clear();
    assert_eq!(relay.pass(3_600, still).ill(), [""; 0]);
    relay.readings.session = SessionState::Obstructed;
    let ill = relay.pass(5, still).ill();
    assert_eq!(ill.len(), 1);
    assert!(ill[0].starts_with("[-]postgres for 4.5s a session that is no instance"), "{ill:?}");
}

#[test]
fn a_pause_is_well_however_long_and_says_why() {
    let mut relay = Relay::new();
    // What was in flight when it began counts for nothing.
    *relay.shard() =
        ShardReading { has_work: true, in_flight_bytes: MIB, ..ShardReading::default() };
    relay.pass(9, still);
    relay.readings.session = SessionState::Paused { reason: "Kafka is moved".to_owned() };
    relay.readings.lease_left_millis = None;
    relay.readings.tasks.clear();
    relay.pass(1, still);
    assert_eq!(relay.health.silence(), None, "nobody is warned");
    assert_eq!(relay.pass(3_600, still).ill(), [""; 0]);
    let lines: Vec<String> = relay.health.ready().iter().map(HealthCheck::to_string).collect();
    let wanted = [
        "[+]postgres ok, publishing is paused: Kafka is moved",
        "[+]lease none is needed while paused",
        "[+]kafka ok",
        "[+]shards ok, nothing waits",
    ];
    assert_eq!(lines, wanted);
    // The pause does not count against what is sent behind it.
    relay.readings.session = SessionState::Working;
    assert_eq!(relay.pass(7, still).ill(), [""; 0]);
    assert_eq!(relay.pass(3, still).ill().len(), 1, "but what hangs then is seen");
}

#[test]
fn a_session_that_is_lost_in_a_pause_is_seen() {
    let mut relay = Relay::new();
    relay.readings.session = SessionState::Paused { reason: String::new() };
    relay.pass(60, still);
    relay.readings.session = SessionState::Between(Some(SessionEnd::of("PostgreSQL is away")));
    let ill = relay.pass(4, still).ill();
    assert_eq!(ill[0], "[-]postgres no session for 3.5s: PostgreSQL is away");
}

#[test]
fn draining_is_well_as_long_as_something_lands() {
    let mut relay = Relay::new();
    relay.readings.is_stopping = true;
    *relay.shard() =
        ShardReading { has_work: true, in_flight_bytes: MIB, ..ShardReading::default() };
    assert_eq!(relay.pass(20, get_on).ill(), [""; 0]);
    let said = relay.health.ready().pop().expect("there are checks").to_string();
    assert_eq!(said, "[+]shards ok, stopping: what is in flight lands");
    assert_eq!(relay.pass(10, still).ill().len(), 1, "nothing lands any more");
}

#[test]
fn a_silent_thread_is_dead_after_half_a_minute() {
    let mut relay = Relay::new();
    let mute = |readings: &mut Readings| readings.threads[0].beats = 0;
    assert_eq!(relay.pass(29, mute).ill(), [""; 0]);
    assert_eq!(relay.pass(12, mute).ill(), ["[-]publish-0 silent for 41s"]);
    // Another of the same name takes its place.
    relay.readings.threads[0].number = 9;
    assert_eq!(relay.pass(1, still).ill(), [""; 0]);
}

#[test]
fn who_was_stopped_is_not_blamed_for_it() {
    let mut relay = Relay::new();
    relay.shard().has_work = true;
    relay.shard().in_flight_bytes = MIB;
    relay.pass(1, still);
    relay.readings.now_millis += 600_000;
    relay.health.look(relay.readings.clone());
    assert_eq!(relay.ill(), [""; 0], "ten minutes passed, and nobody looked");
    assert_eq!(relay.pass(12, still).ill().len(), 1);
}

#[test]
fn the_time_to_empty_is_that_of_the_slowest_shard() {
    let mut relay = Relay::new();
    relay.readings.shards.push(ShardReading::default());
    relay.readings.shards[1].remaining = 100_000;
    relay.pass(10, |readings| {
        let shard = &mut readings.shards[1];
        shard.position += 1_000;
        shard.remaining -= 1_000;
    });
    let seconds = relay.health.time_to_empty_seconds().expect("it works");
    assert!((seconds - 40.0).abs() < 1.0, "{seconds}");
    relay.readings.session = SessionState::Between(None);
    relay.pass(1, still);
    assert_eq!(relay.health.time_to_empty_seconds(), None);
}

/// GIVEN a shard that has claimed all there is, WHEN nothing of it is acknowledged, THEN that is never, and not at once.
#[test]
fn what_is_in_flight_and_not_acknowledged_never_lands() {
    let mut relay = Relay::new();
    *relay.shard() =
        ShardReading { has_work: true, in_flight_bytes: MIB, ..ShardReading::default() };
    relay.pass(2, still);
    let seconds = relay.health.time_to_empty_seconds().expect("it works");
    assert!((1.0..=3.0).contains(&seconds), "as long as it has waited: {seconds}");
    relay.pass(3, still);
    assert_eq!(relay.health.time_to_empty_seconds(), Some(f64::INFINITY));
    relay.pass(1, get_on);
    assert_eq!(relay.health.time_to_empty_seconds(), Some(0.0), "it lands again");
    // The same where the claims were fast lately.
    relay.shard().remaining = 1_000;
    relay.shard().position = 9_000;
    relay.pass(4, still);
    assert_eq!(relay.health.time_to_empty_seconds(), Some(f64::INFINITY));
    *relay.shard() = ShardReading { position: 10_000, ..ShardReading::default() };
    relay.pass(1, still);
    assert_eq!(relay.health.time_to_empty_seconds(), Some(0.0), "nothing waits");
}

#[test]
fn whoever_gets_no_bucket_is_not_ready() {
    let mut relay = Relay::new();
    let untaken = |readings: &mut Readings| readings.buckets_untaken = 4;
    relay.pass(7, untaken);
    assert_eq!(relay.ill(), Vec::<String>::new(), "another instance may be quicker");
    let words = relay.health.ready().pop().expect("a check").to_string();
    assert_eq!(
        words, "[+]shards ok, buckets are being taken",
        "nobody knows whether anything waits"
    );
    relay.pass(2, untaken);
    assert_eq!(relay.ill(), ["[-]shards free buckets cannot be taken for 9.0s: 4"]);
    relay.pass(1, |readings| readings.buckets_untaken = 0);
    assert_eq!(relay.ill(), Vec::<String>::new());
    relay.pass(15, |readings| {
        readings.buckets_untaken = 4;
        readings.session = SessionState::StandingBy;
    });
    assert_eq!(relay.ill(), Vec::<String>::new(), "it wants none");
}
