//! Sends records apart from all others, to find the one that a broker refuses.
//!
//! Promises: what is gathered is sent together, and each record's fate is known, one way or the other, before
//! anything else is sent; a refusal costs no more than itself. Must not: keep an order among what is gathered:
//! the caller gathers one record of an aggregate at most, and nothing of the topic is in flight elsewhere.
//! Fails: when the client cannot be made, or the shard has gone.
//!
//! Why clients of its own: after a refusal a gapless producer is no longer usable, and everything that it had
//! in flight is sent again. These promise no order, need none, and go on. They try a few times and not
//! for ever, so that a record that brokers never answer is told from a broker that never answers. Each topic has one to
//! itself as long as there are enough: what waits for an answer holds up all that goes the same way.

use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use rdkafka::metadata::{MetadataBroker, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use crate::error::Result;
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::config::BROKERS;
use crate::publish::kafka::poll_thread;
use crate::publish::kafka::side_client::{Answers, SideClient, WayName, beside};
use crate::publish::kafka::verdict::CodeVerdict;
use crate::publish::kafka::way_fates::WayFates;
pub(super) use crate::publish::kafka::way_fates::{Gathered, RecordFate};
use crate::publish::{Company, Haste, WAYS_MAX};

/// Waiting for answers goes in steps, shared by all ways.
const STEP: Duration = Duration::from_millis(10);
const STEP_MIN: Duration = Duration::from_millis(2);
/// One question to the leader of a partition.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// In which partitions brokers have named those that they refuse, by the way that they went.
fn partitions_with_names(
    gathered: &[(Gathered, Place)],
    answered: &[WayFates],
) -> HashSet<(usize, String, i32)> {
    let is_beside = |(_, place): &&(Gathered, Place)| answered[place.way].is_beside(place.number);
    let named = gathered.iter().filter(is_beside);
    named.map(|(one, place)| (place.way, one.topic.clone(), one.partition)).collect()
}

/// A record of the producer with the number that it has here.
pub(super) type ApartRecord<'a> = BaseRecord<'a, str, [u8], usize>;

/// Sends apart; each way is made when the first record needs it.
pub(super) struct Apart {
    config: ProducerConfig,
    /// How its transactional ids begin, where it only tries what is to be sent by another.
    id: Option<String>,
    ways: Vec<SideClient>,
    /// Which way a topic went last.
    homes: HashMap<String, usize>,
    gathered: Vec<(Gathered, Place)>,
    /// How many records went through, by partition.
    appended: HashMap<(String, i32), u64>,
    /// How many of these did with what was sent last.
    appended_last: HashMap<(String, i32), u64>,
    /// How long it took to know the fate of what was sent last.
    last_took: Duration,
}

/// Where a record goes: its way, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    way: usize,
    pub(super) number: usize,
}

impl Apart {
    /// Sends with the connection settings of another producer.
    pub(super) fn new(config: &ProducerConfig) -> Self {
        let (config, id) = beside(config);
        Self {
            config,
            id,
            ways: Vec::new(),
            homes: HashMap::new(),
            gathered: Vec::new(),
            appended: HashMap::new(),
            appended_last: HashMap::new(),
            last_took: Duration::ZERO,
        }
    }

    /// How many records are gathered.
    pub(super) fn count(&self) -> usize {
        self.gathered.len()
    }

    /// The place of the next record for this topic. As long as there are ways that nobody goes, it has one of
    /// its own.
    pub(super) fn place(&mut self, topic: &str, haste: Haste) -> Result<Place> {
        let way = self.choose(topic, haste);
        if way == self.ways.len() {
            let name = WayName::new(self.free_number());
            self.ways.push(SideClient::new(&self.config, self.id.as_ref(), name, (topic, haste))?);
        } else if self.ways[way].is_to_be_replaced(haste) {
            let name = self.ways[way].name.next();
            self.ways[way] = SideClient::new(&self.config, self.id.as_ref(), name, (topic, haste))?;
        }
        self.homes.insert(topic.to_owned(), way);
        let chosen = &mut self.ways[way];
        chosen.open()?;
        if !chosen.topics.iter().any(|known| known == topic) {
            chosen.topics.push(topic.to_owned());
        }
        chosen.count += 1;
        Ok(Place { way, number: chosen.count - 1 })
    }

    /// Ways go, and others keep their numbers.
    fn free_number(&self) -> usize {
        let is_free = |number: &usize| self.ways.iter().all(|way| way.name.number != *number);
        (0..=self.ways.len()).find(is_free).expect("there are more numbers than ways")
    }

    /// The one that the topic goes already, or went before, or one that nobody goes; of these one that waits as long.
    fn choose(&self, topic: &str, haste: Haste) -> usize {
        let home = self.homes.get(topic).and_then(|home| Some((*home, self.ways.get(*home)?)));
        if let Some((home, way)) = home
            && (way.topics.iter().any(|at| at == topic) || way.is_free_for(haste))
        {
            return home;
        }
        let like = self.ways.iter().position(|way| way.is_free_for(haste));
        like.unwrap_or_else(|| {
            if self.ways.len() < WAYS_MAX {
                return self.ways.len();
            }
            let free = self.ways.iter().position(|way| way.count == 0);
            free.unwrap_or(self.gathered.len() % WAYS_MAX)
        })
    }

    /// Takes a record over; `record` has its number as its opaque.
    pub(super) fn gather(&mut self, one: Gathered, place: Place, record: ApartRecord<'_>) {
        let client = &self.ways[place.way].client;
        self.gathered.push((one, place));
        client.context().expect_one_more();
        if let Err((cause, _)) = client.send(record) {
            client.context().answer(place.number, Some(&cause));
        }
    }

    /// Sends what was gathered, and waits until the fate of each record is known, in their order.
    pub(super) fn confirm(
        &mut self,
        check_alive: impl Fn() -> Result<()>,
    ) -> Result<Vec<(Gathered, RecordFate, Company)>> {
        let (gathered, began) = (std::mem::take(&mut self.gathered), Instant::now());
        self.wait_for_answers(&gathered, check_alive)?;
        self.last_took = began.elapsed();
        let mut answered = Vec::with_capacity(self.ways.len());
        for way in &mut self.ways {
            answered.push(way.take_fates()?);
        }
        let named = partitions_with_names(&gathered, &answered);
        let told: Vec<(Gathered, RecordFate, Company)> = gathered
            .into_iter()
            .map(|(one, place)| {
                let is_named = named.contains(&(place.way, one.topic.clone(), one.partition));
                let (fate, company) = answered[place.way].take(place.number, &one, is_named);
                (one, fate, company)
            })
            .collect();
        self.take_note(&told);
        Ok(told)
    }

    fn wait_for_answers(
        &self,
        gathered: &[(Gathered, Place)],
        check_alive: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let used: Vec<(usize, &SideClient)> =
            self.ways.iter().enumerate().filter(|(_, way)| way.count > 0).collect();
        let mut broken_off = HashMap::new();
        let Ok(many) = u32::try_from(used.len().max(1)) else { unreachable!("ways are few") };
        let step = (STEP / many).max(STEP_MIN);
        loop {
            let mut is_any_open = false;
            for (number, way) in &used {
                if way.client.flush(step).is_ok() {
                    continue;
                }
                is_any_open = true;
                if way.is_broken_off() {
                    let since = *broken_off.entry(*number).or_insert_with(Instant::now);
                    way.give_up_refused(since.elapsed());
                }
                let here = gathered.iter().filter(|(_, place)| place.way == *number);
                if way.client.context().are_all_refused(here.map(|(one, _)| one), way.haste) {
                    // What is on the wire is waited for.
                    way.client.purge(PurgeConfig::default().queue());
                }
            }
            if !is_any_open {
                return Ok(());
            }
            check_alive()?;
        }
    }

    /// How long it took to know the fate of what was sent last.
    pub(super) fn last_took(&self) -> Duration {
        self.last_took
    }

    fn take_note(&mut self, told: &[(Gathered, RecordFate, Company)]) {
        let mut denied = HashSet::new();
        self.appended_last.clear();
        for (one, fate, _) in told {
            match fate {
                RecordFate::Appended => {
                    let place = (one.topic.clone(), one.partition);
                    *self.appended_last.entry(place.clone()).or_default() += 1;
                    *self.appended.entry(place).or_default() += 1;
                }
                RecordFate::Refused { verdict: CodeVerdict::Topic, .. } => {
                    denied.extend(self.homes.remove(&one.topic));
                }
                RecordFate::Refused { .. } => {}
            }
        }
        // librdkafka lets nothing pass to a topic of which it was told so, whatever the record.
        if !denied.is_empty() {
            self.homes.clear();
            let mut number = 0;
            self.ways.retain(|_| {
                number += 1;
                !denied.contains(&(number - 1))
            });
        }
    }

    /// How many records went through to this partition.
    pub(super) fn appended(&self, topic: &str, partition: i32) -> u64 {
        self.appended.get(&(topic.to_owned(), partition)).copied().unwrap_or_default()
    }

    /// The same, before what was sent last.
    pub(super) fn appended_before(&self, topic: &str, partition: i32) -> u64 {
        let last = self.appended_last.get(&(topic.to_owned(), partition)).copied();
        self.appended(topic, partition) - last.unwrap_or_default()
    }

    /// Whether the partition's leader answers.
    pub(super) fn leader_answers(&self, topic: &str, partition: i32) -> bool {
        let client = self.client_for(topic).map(|client| client.client());
        client.is_some_and(|client| client.fetch_watermarks(topic, partition, ASK_TIMEOUT).is_ok())
    }

    fn client_for(&self, topic: &str) -> Option<&BaseProducer<Answers>> {
        let home = self.homes.get(topic).and_then(|home| self.ways.get(*home));
        home.or_else(|| self.ways.first()).map(|way| &*way.client)
    }

    /// Whether no broker is away that the topic needs: all its copies are in step, and each broker that has
    /// one answers by itself. What one of them says of the others may be old.
    pub(super) fn is_whole(&self, topic: &str) -> bool {
        let Some(client) = self.client_for(topic).map(|client| client.client()) else {
            return false;
        };
        client.fetch_metadata(Some(topic), ASK_TIMEOUT).is_ok_and(|metadata| {
            let topics = metadata.topics().iter().filter(|found| found.name() == topic);
            let partitions: Vec<_> = topics.flat_map(MetadataTopic::partitions).collect();
            let ids = partitions.iter().flat_map(|found| found.replicas().iter().copied());
            let needed: HashSet<i32> = ids.collect();
            let broker = |id: &i32| metadata.brokers().iter().find(|broker| broker.id() == *id);
            !needed.is_empty()
                && partitions.iter().all(|found| found.isr().len() == found.replicas().len())
                && needed.iter().all(|id| broker(id).is_some_and(|one| self.answers(one)))
        })
    }

    fn answers(&self, broker: &MetadataBroker) -> bool {
        let host = broker.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut config = self.config.clone();
        config.set(BROKERS, format!("{host}:{}", broker.port()));
        poll_thread::others_have_brokers(&config)
    }

    /// Nothing is to be sent apart for now.
    pub(super) fn rest(&mut self) {
        self.ways.clear();
        self.homes.clear();
        self.appended.clear();
        self.appended_last.clear();
    }
}
