//! Kafka's side: transactional ids, and for each bucket a partition of events and one of cursors.
//!
//! Promises: what a transaction appended is seen when it ends well, and taken out when it does not; whoever asks for
//! an id again ends its open transaction first. As brokers do for clients without KIP-890, the end of a transaction
//! carries the producer's epoch alone: a copy that is late ends whatever that producer has open by then.
//! Must not: know why anybody does anything. Fails: with a violation, as soon as `read_committed` shows it.

use super::Violation;

/// Transactional ids, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ids(u16);

impl Ids {
    /// All producers of a process.
    pub(super) fn of_process(process: usize, producers: u8) -> Self {
        (0..producers).fold(Self::default(), |ids, producer| ids.with(id(process, producer)))
    }

    #[must_use]
    pub(super) fn with(self, id: u8) -> Self {
        Self(self.0 | 1 << id)
    }

    #[must_use]
    pub(super) fn without(self, id: u8) -> Self {
        Self(self.0 & !(1 << id))
    }

    pub(super) fn has(self, id: u8) -> bool {
        self.0 & 1 << id != 0
    }

    pub(super) fn are_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u8> {
        (0..16).filter(move |id| self.has(*id))
    }
}

/// The transactional id of a process's producer; none is another's.
pub(super) fn id(process: usize, producer: u8) -> u8 {
    u8::try_from(process).expect("there are few processes") * 2 + producer
}

/// A record, and the id whose transaction has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    value: u8,
    by: Option<u8>,
}

/// What was appended, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Partition {
    /// The last of all that lies before the first record of an open transaction.
    stable: u8,
    rest: Vec<Entry>,
}

impl Partition {
    fn end(&mut self, id: u8, ending: Ending) {
        match ending {
            Ending::Commit => {
                for entry in self.rest.iter_mut().filter(|entry| entry.by == Some(id)) {
                    entry.by = None;
                }
            }
            Ending::Abort => self.rest.retain(|entry| entry.by != Some(id)),
        }
        let open = self.rest.iter().position(|entry| entry.by.is_some());
        let mut stable = self.rest.drain(..open.unwrap_or(self.rest.len()));
        self.stable = stable.next_back().map_or(self.stable, |entry| entry.value);
    }

    fn committed(&self) -> impl Iterator<Item = u8> {
        self.rest.iter().filter(|entry| entry.by.is_none()).map(|entry| entry.value)
    }
}

#[derive(Clone, Copy)]
enum Ending {
    Commit,
    Abort,
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Events,
    Cursors,
}

/// The broker says no, whatever the reason.
#[derive(Debug)]
pub(super) struct Refused;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Broker {
    events: Vec<Partition>,
    cursors: Vec<Partition>,
    /// Ids with an open transaction.
    open: Ids,
    /// Ids of which the process has the latest epoch.
    live: Ids,
    /// Ids for which a copy of a commit is still on its way, with the latest epoch.
    late: Ids,
}

impl Broker {
    pub(super) fn new(buckets: usize) -> Self {
        let (events, cursors) =
            (vec![Partition::default(); buckets], vec![Partition::default(); buckets]);
        let (open, live, late) = (Ids::default(), Ids::default(), Ids::default());
        Self { events, cursors, open, live, late }
    }

    pub(super) fn live(&self) -> Ids {
        self.live
    }

    pub(super) fn late(&self) -> Ids {
        self.late
    }

    pub(super) fn open(&self) -> Ids {
        self.open
    }

    /// A producer begins under this id, for the process that it belongs to or for one that fences.
    pub(super) fn init(&mut self, id: u8, is_owner: bool) {
        self.abort(id);
        self.live = if is_owner { self.live.with(id) } else { self.live.without(id) };
    }

    /// The process has dropped its producer; what is on its way may still arrive.
    pub(super) fn forget(&mut self, id: u8) {
        self.live = self.live.without(id);
    }

    /// The coordinator has waited for long enough: nobody has the latest epoch.
    pub(super) fn abort(&mut self, id: u8) {
        self.end(id, Ending::Abort);
        self.open = self.open.without(id);
        self.live = self.live.without(id);
        self.late = self.late.without(id);
    }

    /// Appends to an open transaction; where none is, one begins.
    pub(super) fn append(
        &mut self,
        id: u8,
        (topic, bucket): (Topic, usize),
        value: u8,
    ) -> Result<(), Refused> {
        if !self.live.has(id) {
            return Err(Refused);
        }
        self.open = self.open.with(id);
        self.partition(topic, bucket).rest.push(Entry { value, by: Some(id) });
        Ok(())
    }

    /// Appends outside of any transaction.
    pub(super) fn append_alone(&mut self, (topic, bucket): (Topic, usize), value: u8) {
        let partition = self.partition(topic, bucket);
        match partition.rest.is_empty() {
            true => partition.stable = value,
            false => partition.rest.push(Entry { value, by: None }),
        }
    }

    fn partition(&mut self, topic: Topic, bucket: usize) -> &mut Partition {
        match topic {
            Topic::Events => &mut self.events[bucket],
            Topic::Cursors => &mut self.cursors[bucket],
        }
    }

    /// Ends a transaction well.
    pub(super) fn commit(&mut self, id: u8) -> Result<Result<(), Violation>, Refused> {
        if !self.live.has(id) || !self.open.has(id) {
            return Err(Refused);
        }
        Ok(self.commit_open(id))
    }

    /// A copy of a commit is still on its way.
    pub(super) fn leave_copy(&mut self, id: u8) {
        if self.live.has(id) {
            self.late = self.late.with(id);
        }
    }

    /// The copy arrives.
    pub(super) fn arrive_late(&mut self, id: u8) -> Result<(), Violation> {
        self.late = self.late.without(id);
        if self.open.has(id) { self.commit_open(id) } else { Ok(()) }
    }

    fn commit_open(&mut self, id: u8) -> Result<(), Violation> {
        self.open = self.open.without(id);
        self.check_events_after(id)?;
        self.end(id, Ending::Commit);
        Ok(())
    }

    fn end(&mut self, id: u8, ending: Ending) {
        self.events.iter_mut().chain(&mut self.cursors).for_each(|all| all.end(id, ending));
    }

    /// Whether what is committed, with that of this id, is 1, 2, 3 and so on.
    fn check_events_after(&self, id: u8) -> Result<(), Violation> {
        for partition in &self.events {
            let is_seen = |entry: &&Entry| entry.by.is_none_or(|by| by == id);
            let mut last = partition.stable;
            for entry in partition.rest.iter().filter(is_seen) {
                match entry.value {
                    value if value <= last => return Err(Violation::Repeated),
                    value if value > last + 1 => return Err(Violation::Skipped),
                    value => last = value,
                }
            }
        }
        Ok(())
    }

    /// The last committed cursor before the last stable offset.
    pub(super) fn read(&self, bucket: usize) -> u8 {
        self.cursors[bucket].stable
    }

    /// How many events of the bucket are committed.
    pub(super) fn published(&self, bucket: usize) -> u8 {
        let partition = &self.events[bucket];
        partition.committed().last().unwrap_or(partition.stable)
    }
}
