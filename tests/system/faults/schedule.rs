//! A random schedule of all faults, for as long as one likes.
//!
//! Promises: the same seed gives the same schedule; after each step everything that was written until
//! then is published in time. Must not: let a relay that ended for no good reason go unnoticed.
//! Fails: with the seed, the step, and the relays' logs.
//!
//! `POSTRIDER_SOAK_SECONDS` and `POSTRIDER_SEED` set time and seed; `just soak` does both.

use std::time::{Duration, Instant};

use postrider::audit::Fate;
use postrider::embedded::{Kafka, KafkaOptions, Postgres, StopMode};
use tokio_postgres::Client;

use crate::support::fixture::Options;
use crate::support::writer::{Inserted, insert_event};
use crate::support::{
    Ending, Fixture, History, Load, Mode, Proxy, Random, RelayProcess, Traffic, start_postgres,
    start_proxied_kafka,
};

const SECONDS_DEFAULT: u64 = 40;
const SEED_DEFAULT: u64 = 1;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_schedule_of_faults() {
    let seconds = setting("POSTRIDER_SOAK_SECONDS", SECONDS_DEFAULT);
    // Everyday runs are alike, so that a failure is the change's; a soak looks for what is not known.
    let drawn = match seconds {
        SECONDS_DEFAULT => SEED_DEFAULT,
        _ => u64::from(uuid::Uuid::new_v4().as_u128() as u32),
    };
    let seed = setting("POSTRIDER_SEED", drawn);
    println!("POSTRIDER_SEED={seed} POSTRIDER_SOAK_SECONDS={seconds} repeats this schedule");
    let mut world = World::new(seed).await;
    let history = History::default();
    let traffic = Traffic::with(&world.fixture, &history, Load::BROKEN).await;
    let mut held = Held::open(&world.fixture, 1).await;
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
        held = held.renew(&world.fixture, &history).await;
        traffic.commits_more(30).await;
        world.fixture.wait_published_upto(world.fixture.drawn().await).await;
    }
    held.end(&history).await;
    let World { fixture, relays, .. } = &mut world;
    let verdict = traffic.finish(std::mem::take(relays), fixture, &history).await;
    assert!(verdict.holds(), "seed {seed}: {verdict}");
}

impl World {
    async fn new(seed: u64) -> Self {
        let postgres = start_postgres(&[]);
        let (kafka, kafka_proxy) = start_proxied_kafka(KafkaOptions::default());
        let postgres_proxy = Proxy::before(postgres.port());
        let options = Options { generation_seconds: 5, ..Options::default() };
        let url = postgres.url("schedule");
        let admin = postgres.url("postgres");
        let fixture = Fixture::made("schedule", &admin, url, kafka.brokers(), &options).await;
        let brokers = format!("127.0.0.1:{}", kafka_proxy.port());
        let relayed = fixture.through(&postgres_proxy).with_brokers(brokers);
        let mut world = Self {
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
        };
        for _ in 0..INSTANCES {
            let relay = world.start_relay();
            world.relays.push(relay);
        }
        world
    }

    fn start_relay(&mut self) -> RelayProcess {
        let shards = 1 + self.random.below(4);
        let arguments = ["--replay-window", "0s", "-X", "socket.timeout.ms=5000", "--shards"];
        RelayProcess::start(&self.relayed, &[&arguments[..], &[&shards.to_string()]].concat())
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
        let event = insert_event(&client, "held", number).await;
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
