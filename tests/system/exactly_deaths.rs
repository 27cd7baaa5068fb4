//! Exactly once, however often something dies: a few times, or as often as a soak asks for (`just deaths 50`).
//!
//! In a soak it is measured for how long a consumer that reads committed records sees nothing, by what had died.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postrider_testkit::servers::{Kafka, KafkaOptions};
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::consumer::create_topic;
use crate::support::traffic::Load;
use crate::support::writer::AGGREGATE_TYPE;
use crate::support::{Capture, Fixture, History, RelayProcess, Traffic, start_kafka};

/// So many deaths where nobody asks for more.
const FEW: u32 = 3;
const SOAK: &str = "POSTRIDER_EXACTLY_DEATHS";

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Death {
    /// The only process; another one is started at once.
    Process,
    /// The only broker, and with it the coordinator of all transactions.
    Broker,
    /// Nobody: the owner stands still until another one has its buckets, and wakes.
    Sleep,
}

impl Death {
    /// Processes die in most rounds of a soak; elsewhere nothing else does.
    fn of(round: u32, kafka: Option<&Kafka>) -> Self {
        match round % 10 {
            _ if kafka.is_none() => Self::Process,
            4 => Self::Broker,
            8 => Self::Sleep,
            _ => Self::Process,
        }
    }
}

/// How many deaths there are to be.
fn deaths() -> u32 {
    std::env::var(SOAK).map_or(FEW, |count| count.parse().expect("the variable is a number"))
}

/// Looks for how long a consumer that reads committed records sees nothing.
struct Silence {
    longest_millis: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Silence {
    fn watch(brokers: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "silence")
            .set("isolation.level", "read_committed")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .expect("a consumer can be made");
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(topic, 0, Offset::Beginning).expect("it is a place");
        consumer.assign(&places).expect("the topic is there");
        let (longest_millis, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (longest, end) = (Arc::clone(&longest_millis), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut heard = Instant::now();
            while !end.load(Ordering::Relaxed) {
                if let Some(Ok(_)) = consumer.poll(Duration::from_millis(20)) {
                    let millis = u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX);
                    longest.fetch_max(millis, Ordering::Relaxed);
                    heard = Instant::now();
                }
            }
        });
        Self { longest_millis, ended, thread }
    }

    /// The longest since it was asked last.
    fn take(&self) -> u64 {
        self.longest_millis.swap(0, Ordering::Relaxed)
    }

    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic");
    }
}

/// Relays that die, and who stands in for them.
struct Mortals<'a> {
    fixture: &'a Fixture,
    capture: Capture,
    relay: RelayProcess,
    started: u32,
}

impl<'a> Mortals<'a> {
    async fn new(fixture: &'a Fixture, capture: Capture) -> Self {
        let relay = Self::start(fixture, capture, 1);
        relay.wait_until_it_says(capture.words()).await;
        Self { fixture, capture, relay, started: 1 }
    }

    /// Another number of shards each time.
    fn start(fixture: &Fixture, capture: Capture, number: u32) -> RelayProcess {
        let shards = (number % 3 + 1).to_string();
        RelayProcess::start(fixture, &["--capture", capture.name(), "--shards", &shards])
    }

    /// Starts the next one; the one before.
    fn succeed(&mut self) -> RelayProcess {
        self.started += 1;
        let next = Self::start(self.fixture, self.capture, self.started);
        std::mem::replace(&mut self.relay, next)
    }

    async fn die(&mut self, death: Death, kafka: Option<&Kafka>) {
        match death {
            Death::Process => {
                // Dead before the next one is there.
                self.relay.signal("KILL");
                self.succeed().kill();
                self.relay.wait_until_it_says(self.capture.words()).await;
            }
            Death::Broker => {
                let kafka = kafka.expect("it is ours");
                kafka.kill().expect("it is ours to kill");
                kafka.start_again().expect("it starts again");
            }
            Death::Sleep => {
                self.relay.signal("STOP");
                let sleeper = self.succeed();
                self.relay.wait_until_it_says(self.capture.words()).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                sleeper.signal("CONT");
                tokio::time::sleep(Duration::from_secs(1)).await;
                sleeper.kill();
            }
        }
    }
}

async fn deaths_repeat_nothing(name: &str, capture: Capture) {
    let deaths = deaths();
    let kafka = (deaths > FEW).then(|| start_kafka(KafkaOptions::default()));
    let mut fixture = Fixture::new(name).await.captured_by(capture);
    if let Some(kafka) = &kafka {
        fixture.brokers = kafka.brokers().to_owned();
    }
    fixture.deliver_exactly_once();
    let topic = fixture.topic(AGGREGATE_TYPE);
    create_topic(&fixture.brokers, &topic, 1).await;
    let history = History::default();
    let mut mortals = Mortals::new(&fixture, capture).await;
    let load = Load { writers: 2, pause: Duration::from_millis(2), ..Load::FULL };
    let traffic = Traffic::with(&fixture, &history, load).await;
    let silence = kafka.as_ref().map(|kafka| Silence::watch(kafka.brokers(), &topic));
    let mut longest: BTreeMap<Death, (u32, u64)> = BTreeMap::new();
    for round in 1..=deaths {
        let death = Death::of(round, kafka.as_ref());
        tokio::time::sleep(Duration::from_millis(u64::from(300 + round * 479 % 1_200))).await;
        silence.as_ref().map(Silence::take);
        mortals.die(death, kafka.as_ref()).await;
        traffic.commits_more(100).await;
        if let Some(silence) = &silence {
            tokio::time::sleep(Duration::from_millis(1_000)).await;
            let (count, most) = longest.entry(death).or_default();
            (*count, *most) = (*count + 1, silence.take().max(*most));
        }
    }
    if let Some(silence) = silence {
        silence.end();
    }
    for (death, (count, millis)) in longest {
        println!("{name}: {count} deaths of {death:?}: a consumer saw nothing for {millis} ms");
    }
    let relay = mortals.relay;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_while_the_table_is_polled_repeat_nothing() {
    deaths_repeat_nothing("exactly_poll", Capture::Poll).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_while_the_log_is_read_repeat_nothing() {
    deaths_repeat_nothing("exactly_wal", Capture::Wal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_while_messages_are_read_repeat_nothing() {
    deaths_repeat_nothing("exactly_message", Capture::Message).await;
}
