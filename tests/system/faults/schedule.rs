//! A random schedule of all faults, for as long as one likes.
//!
//! Promises: the same seed gives the same schedule, read in the same way; after each step everything
//! that was written until then is published or parked in time, and now and then what is parked is set
//! right, in order; nothing comes twice where events are delivered exactly once. Must not: let a relay that ended
//! for no good reason go unnoticed. Fails: with the seed, the step, and the relays' logs.
//!
//! `POSTRIDER_SOAK_SECONDS`, `POSTRIDER_SEED`, `POSTRIDER_SOAK_CAPTURE` and `POSTRIDER_SOAK_RATE`
//! are told of in the README of this folder; `just soak` sets them.

use std::time::{Duration, Instant};

use postrider_testkit::audit::Fate;
use postrider_testkit::servers::{Kafka, KafkaOptions, Postgres, StopMode};
use tokio_postgres::Client;

use super::poison::Poison;
use crate::support::fixture::Options;
use crate::support::writer::{Inserted, write_event};
use crate::support::{
    Capture, Delivery, Ending, Fixture, History, Load, Mode, Proxy, Random, RelayProcess, Traffic,
    start_postgres, start_proxied_kafka,
};

const SECONDS_DEFAULT: u64 = 25;
const SEED_DEFAULT: u64 = 1;
/// In the everyday run of exactly-once delivery: a few steps, and another schedule.
const SECONDS_EXACTLY: u64 = 8;
const SEED_EXACTLY: u64 = 3;
/// Transactions per second of all writers: faults and not the processor shall be what counts.
const RATE_DEFAULT: u64 = 1_000;
/// Of a second's transactions so many cannot be published.
const FLAWED_PER_SECOND: u64 = 2;
/// After so many steps what is parked is set right.
const STEPS_UNMENDED: u64 = 2;
const INSTANCES: usize = 3;
const FAULT_LEAST: Duration = Duration::from_millis(200);
/// Longer than a lease of the tests.
const FAULT_MOST: Duration = Duration::from_secs(7);
/// PostgreSQL or Kafka was away.
const ENDED_AT_THE_START: [i32; 2] = [4, 5];
/// Or what was in flight could not land in time.
const ENDED_IN_A_FAULT: [i32; 3] = [1, 4, 5];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillRelay,
    StopRelay,
    FreezeRelay,
    CutSessions,
    KillPostgres,
    StopPostgres,
    FreezePostgres,
    KillKafka,
    FreezeKafka,
    PostgresNetwork(Mode),
    KafkaNetwork(Mode),
    ResetPostgres,
    ResetKafka,
    HoldLocks,
}

const SLOW: Mode = Mode::Slow { pause: Duration::from_millis(10), piece_bytes: 1_000 };

const FAULTS: &[Fault] = &[
    Fault::KillRelay,
    Fault::KillRelay,
    Fault::StopRelay,
    Fault::FreezeRelay,
    Fault::CutSessions,
    Fault::KillPostgres,
    Fault::StopPostgres,
    Fault::FreezePostgres,
    Fault::KillKafka,
    Fault::FreezeKafka,
    Fault::PostgresNetwork(Mode::Stall),
    Fault::PostgresNetwork(Mode::HalfOpen),
    Fault::PostgresNetwork(Mode::Refuse),
    Fault::PostgresNetwork(SLOW),
    Fault::KafkaNetwork(Mode::Stall),
    Fault::KafkaNetwork(Mode::HalfOpen),
    Fault::KafkaNetwork(Mode::Refuse),
    Fault::KafkaNetwork(SLOW),
    Fault::ResetPostgres,
    Fault::ResetKafka,
    Fault::HoldLocks,
];

/// What a fault takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Relay,
    Postgres,
    Kafka,
    PostgresNetwork,
    KafkaNetwork,
}

impl Fault {
    fn target(self) -> Target {
        match self {
            Self::KillRelay | Self::StopRelay | Self::FreezeRelay => Target::Relay,
            Self::CutSessions
            | Self::KillPostgres
            | Self::StopPostgres
            | Self::FreezePostgres
            | Self::HoldLocks => Target::Postgres,
            Self::KillKafka | Self::FreezeKafka => Target::Kafka,
            Self::PostgresNetwork(_) | Self::ResetPostgres => Target::PostgresNetwork,
            Self::KafkaNetwork(_) | Self::ResetKafka => Target::KafkaNetwork,
        }
    }
}

/// Everything that can be broken.
struct World {
    fixture: Fixture,
    relayed: Fixture,
    postgres: Postgres,
    kafka: Kafka,
    postgres_proxy: Proxy,
    kafka_proxy: Proxy,
    relays: Vec<RelayProcess>,
    /// What comes next; nothing else draws from it, so that the seed tells the schedule.
    schedule: Random,
    /// Whom it meets.
    random: Random,
    /// Asked to stop, and not gone yet.
    leaving: Vec<RelayProcess>,
    locks: Option<Client>,
    frozen: Option<usize>,
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

/// What is asked for, or what the seed says.
fn capture(seed: u64) -> Capture {
    let all = [Capture::Poll, Capture::Wal, Capture::Message];
    match std::env::var("POSTRIDER_SOAK_CAPTURE") {
        Ok(name) if !name.is_empty() => {
            all.into_iter().find(|capture| capture.name() == name).unwrap_or_else(|| {
                panic!("POSTRIDER_SOAK_CAPTURE is poll, wal or message, not {name}")
            })
        }
        _ => all[(seed % 3) as usize],
    }
}

fn load(rate: u64) -> Load {
    let writers = Load::BROKEN.writers;
    let pause = Duration::from_secs(writers.into()) / u32::try_from(rate).expect("a rate");
    // The commit itself takes about a millisecond; at a high rate there is no pause.
    let pause = pause.saturating_sub(Duration::from_millis(1));
    // Each writer has its share of the flaws as of the transactions.
    let flawed_every = u32::try_from(rate / FLAWED_PER_SECOND).expect("a rate").max(1);
    Load { pause, flawed_every: Some(flawed_every), ..Load::BROKEN }
}

/// What is asked for, or what an everyday run does.
struct Asked {
    seconds: u64,
    seed: u64,
    capture: Capture,
    rate: u64,
    delivery: Delivery,
}

impl Asked {
    fn of(delivery: Delivery, (everyday_seconds, everyday_seed): (u64, u64)) -> Self {
        let seconds = setting("POSTRIDER_SOAK_SECONDS", everyday_seconds);
        // Everyday runs are alike, so that a failure is the change's; a soak looks for what is not known.
        let drawn = if seconds == everyday_seconds {
            everyday_seed
        } else {
            u64::from(uuid::Uuid::new_v4().as_u128() as u32)
        };
        let seed = setting("POSTRIDER_SEED", drawn);
        let (capture, rate) = (capture(seed), setting("POSTRIDER_SOAK_RATE", RATE_DEFAULT));
        println!(
            "{}: POSTRIDER_SEED={seed} POSTRIDER_SOAK_SECONDS={seconds} POSTRIDER_SOAK_CAPTURE={} \
             POSTRIDER_SOAK_RATE={rate} repeats this schedule",
            delivery.name(),
            capture.name()
        );
        Self { seconds, seed, capture, rate, delivery }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_schedule_of_faults() {
    let asked = Asked::of(Delivery::asked(), (SECONDS_DEFAULT, SEED_DEFAULT));
    pass_through_faults(&asked).await;
}

/// GIVEN exactly-once delivery WHEN all of this happens at random THEN whoever reads committed records sees each event
/// once and in order, parked ones too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_schedule_of_faults_repeats_nothing_where_events_come_once() {
    let asked = Asked::of(Delivery::ExactlyOnce, (SECONDS_EXACTLY, SEED_EXACTLY));
    pass_through_faults(&asked).await;
}

async fn pass_through_faults(asked: &Asked) {
    let Asked { seconds, seed, capture, rate, delivery } = *asked;
    let mut world = World::new(asked).await;
    let history = History::default();
    let fixture = world.fixture.clone();
    let poison = Poison(&fixture);
    poison.make_topic().await;
    world.start_relays().await;
    let traffic = Traffic::with(&fixture, &history, load(rate)).await;
    let mut held = Held::open(&fixture, 1).await;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut step = 0;
    while Instant::now() < deadline {
        step += 1;
        let (first, second) = world.draw();
        let lasts = world.schedule.time(FAULT_LEAST, FAULT_MOST);
        println!("seed {seed}, step {step}: {first:?} and {second:?} for {lasts:?}");
        world.begin(first).await;
        world.begin(second).await;
        tokio::time::sleep(lasts).await;
        world.end(second);
        world.end(first);
        world.supervise().await;
        held = held.renew(&fixture, &history).await;
        traffic.commits_more(30).await;
        poison.settle().await;
        if step % STEPS_UNMENDED == 0 {
            poison.mend().await;
        }
    }
    traffic.stop().await;
    held.end(&history).await;
    poison.settle().await;
    poison.mend().await;
    poison.settle().await;
    for relay in std::mem::take(&mut world.relays) {
        relay.stop_well().await;
    }
    let verdict = history.audit(&fixture);
    println!("seed {seed}, {}, {}: {verdict}", capture.name(), delivery.name());
    assert!(verdict.holds(), "seed {seed}: {verdict}");
    let bears_repeats = delivery == Delivery::AtLeastOnce;
    assert!(bears_repeats || verdict.repeats == 0, "seed {seed}: {verdict}");
}

impl World {
    async fn new(asked: &Asked) -> Self {
        let Asked { seed, capture, delivery, .. } = *asked;
        let postgres = start_postgres(&[]);
        let (kafka, kafka_proxy) = start_proxied_kafka(KafkaOptions::default());
        let postgres_proxy = Proxy::before(postgres.port());
        let options = Options { generation_seconds: 5, ..Options::default() };
        let (name, admin) = (format!("schedule_{}", delivery.name()), postgres.url("postgres"));
        let url = postgres.url(&name);
        let fixture = Fixture::made(&name, &admin, url, kafka.brokers(), &options).await;
        let fixture = fixture.captured_by(capture);
        if delivery == Delivery::ExactlyOnce {
            fixture.deliver_exactly_once();
        }
        let brokers = format!("127.0.0.1:{}", kafka_proxy.port());
        let relayed = fixture.through(&postgres_proxy).with_brokers(brokers);
        Self {
            fixture,
            relayed,
            postgres,
            kafka,
            postgres_proxy,
            kafka_proxy,
            relays: Vec::new(),
            schedule: Random::new(seed),
            random: Random::new(!seed),
            leaving: Vec::new(),
            locks: None,
            frozen: None,
        }
    }

    /// The first one says how all read.
    async fn start_relays(&mut self) {
        let capture = self.fixture.capture;
        let first = self.start_relay_with(&["--capture", capture.name()]);
        first.wait_until_it_says(capture.words()).await;
        self.relays.push(first);
        for _ in 1..INSTANCES {
            let relay = self.start_relay();
            self.relays.push(relay);
        }
    }

    fn start_relay(&mut self) -> RelayProcess {
        self.start_relay_with(&[])
    }

    fn start_relay_with(&mut self, more: &[&str]) -> RelayProcess {
        let shards = (1 + self.random.below(4)).to_string();
        let arguments = ["--replay-window", "0s", "-X", "socket.timeout.ms=5000", "--shards"];
        RelayProcess::start(&self.relayed, &[&arguments[..], &[&shards], more].concat())
    }

    /// Two faults that do not speak to the same server.
    fn draw(&mut self) -> (Fault, Fault) {
        let first = FAULTS[self.schedule.index(FAULTS.len())];
        loop {
            let second = FAULTS[self.schedule.index(FAULTS.len())];
            if second.target() != first.target() {
                return (first, second);
            }
        }
    }

    async fn begin(&mut self, fault: Fault) {
        let ours = "it is ours";
        match fault {
            Fault::KillRelay => self.replace_relay(true),
            Fault::StopRelay => self.replace_relay(false),
            Fault::FreezeRelay => {
                let index = self.random.index(INSTANCES);
                if self.relays[index].ended().is_none() {
                    self.relays[index].signal("STOP");
                    self.frozen = Some(index);
                }
            }
            Fault::CutSessions => self.cut_sessions().await,
            Fault::KillPostgres => self.postgres.kill().expect(ours),
            Fault::StopPostgres => self.postgres.stop(StopMode::Immediate).expect(ours),
            Fault::FreezePostgres => self.postgres.freeze().expect(ours),
            Fault::KillKafka => self.kafka.kill().expect(ours),
            Fault::FreezeKafka => self.kafka.freeze().expect(ours),
            Fault::PostgresNetwork(mode) => self.postgres_proxy.set(mode),
            Fault::KafkaNetwork(mode) => self.kafka_proxy.set(mode),
            Fault::ResetPostgres => self.postgres_proxy.cut(Ending::Reset),
            Fault::ResetKafka => self.kafka_proxy.cut(Ending::Reset),
            Fault::HoldLocks => self.hold_locks().await,
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::FreezeRelay => {
                if let Some(index) = self.frozen.take() {
                    self.relays[index].signal("CONT");
                }
            }
            Fault::KillPostgres | Fault::StopPostgres => {
                self.postgres.start_again().expect("it recovers");
            }
            Fault::FreezePostgres => self.postgres.thaw().expect("it is ours"),
            Fault::KillKafka => self.kafka.start_again().expect("it starts again"),
            Fault::FreezeKafka => self.kafka.thaw().expect("it is ours"),
            Fault::PostgresNetwork(_) => self.postgres_proxy.set(Mode::Pass),
            Fault::KafkaNetwork(_) => self.kafka_proxy.set(Mode::Pass),
            Fault::HoldLocks => self.locks = None,
            Fault::KillRelay
            | Fault::StopRelay
            | Fault::CutSessions
            | Fault::ResetPostgres
            | Fault::ResetKafka => {}
        }
    }

    fn replace_relay(&mut self, kills: bool) {
        let index = self.random.index(INSTANCES);
        let fresh = self.start_relay();
        let mut old = std::mem::replace(&mut self.relays[index], fresh);
        if kills {
            old.kill();
        } else if old.ended().is_none() {
            old.signal("TERM");
            // It may be unable to let its records land: then it ends when the fault has passed.
            self.leaving.push(old);
        }
    }

    async fn cut_sessions(&self) {
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name like 'postrider%'";
        self.fixture.client().await.batch_execute(cut).await.expect("the superuser may");
    }

    /// A reader that is in the way of clean-up.
    async fn hold_locks(&mut self) {
        let client = self.fixture.client().await;
        let lock = "begin; lock table outbox in access share mode";
        client.batch_execute(lock).await.expect("nothing is in the way of a reader");
        self.locks = Some(client);
    }

    /// What a supervisor does: starts again what ended because a server was away at its start.
    async fn supervise(&mut self) {
        for relay in std::mem::take(&mut self.leaving) {
            let said = relay.said();
            let ended = relay.wait(Duration::from_secs(60)).await;
            let code = ended.code().expect("nobody killed it");
            assert!(code == 0 || ENDED_IN_A_FAULT.contains(&code), "exit code {code}:\n{said}");
        }
        for index in 0..INSTANCES {
            let Some(ended) = self.relays[index].ended() else { continue };
            let code = ended.code().expect("nobody killed it");
            let said = self.relays[index].said();
            assert!(ENDED_AT_THE_START.contains(&code), "exit code {code}:\n{said}");
            self.relays[index] = self.start_relay();
        }
    }
}

/// A transaction that stays open for as long as PostgreSQL lets it.
struct Held {
    client: Client,
    event: Inserted,
}

impl Held {
    async fn open(fixture: &Fixture, number: u64) -> Self {
        let client = fixture.client().await;
        client.batch_execute("begin").await.expect("the session lives");
        let event = write_event(&client, fixture.capture, "held", number).await;
        Self { client, event }
    }

    /// Commits if it still can.
    async fn end(self, history: &History) {
        let committed = self.client.batch_execute("commit").await.is_ok();
        let fate = if committed { Fate::Committed } else { Fate::RolledBack };
        history.ended(vec![self.event], fate);
    }

    /// Another one if PostgreSQL took this one back.
    async fn renew(self, fixture: &Fixture, history: &History) -> Self {
        if !self.client.is_closed() {
            return self;
        }
        let number = self.event.number + 1;
        history.ended(vec![self.event], Fate::RolledBack);
        Self::open(fixture, number).await
    }
}
