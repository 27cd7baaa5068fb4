//! Rows that gather for one batch.
//!
//! Promises: a batch is bounded in rows and in bytes; one larger event travels alone.
//! Must not: know where rows come from or where they go.

use crate::capture::log::decode::LoggedEvent;
use crate::capture::table::claim::{ClaimedRow, WithheldRow};
use crate::control::parked::ParkedEvent;
use crate::event::{Event, LendEvent, OrderingKey, SeqSource, Whereabouts};
use crate::order::holds::Refusal;
use crate::outbox::InTable;

/// Rows that travel to the publishing thread in one piece, at most.
const BATCH_ROWS: usize = 512;
/// Bytes that travel to the publishing thread in one piece; one larger event travels alone.
pub(super) const BATCH_BYTES: usize = 256 * 1024;
/// What an event costs besides its bytes, while it is in flight: librdkafka's record and headers.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// What a shard sends.
#[derive(Debug)]
pub enum OutgoingRow {
    /// A row of the outbox.
    Claimed(ClaimedRow),
    /// A row of the outbox that was not read whole.
    Withheld(Box<WithheldRow>),
    /// An event of the log, and by what it is compared with others.
    Logged(LoggedEvent, OrderingKey),
    /// A parked event that is tried again.
    Parked(Box<ParkedEvent>),
}

impl OutgoingRow {
    /// Its place in the order of writing.
    pub(super) fn seq(&self) -> i64 {
        match self {
            Self::Claimed(row) => row.seq(),
            Self::Withheld(row) => row.event().seq,
            Self::Logged(event, _) => event.seq(),
            Self::Parked(parked) => parked.event.seq,
        }
    }

    /// The key of one that is parked.
    pub(super) fn turn(&self) -> Option<i64> {
        match self {
            Self::Claimed(_) | Self::Withheld(_) | Self::Logged(..) => None,
            Self::Parked(parked) => Some(parked.turn),
        }
    }

    /// Where the whole is, if this is a part that the log brought.
    pub(super) fn whole(&self) -> Option<InTable> {
        match self {
            Self::Logged(LoggedEvent::Flawed(flawed), _) => flawed.whole(),
            Self::Claimed(_) | Self::Withheld(_) | Self::Logged(..) | Self::Parked(_) => None,
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Claimed(row) => row.size_bytes(),
            Self::Withheld(row) => row.size_bytes(),
            Self::Logged(event, _) => event.size_bytes(),
            Self::Parked(parked) => parked.event.size_bytes(),
        }
    }
}

impl LendEvent for OutgoingRow {
    fn event(&self) -> Event<'_> {
        match self {
            Self::Claimed(row) => row.event(),
            Self::Withheld(row) => row.event(),
            Self::Logged(event, _) => event.event(),
            Self::Parked(parked) => parked.event(),
        }
    }

    fn ordering_key(&self) -> OrderingKey {
        match self {
            Self::Claimed(row) => row.ordering_key(),
            Self::Withheld(row) => row.ordering_key(),
            Self::Logged(_, ordering_key) => *ordering_key,
            Self::Parked(parked) => parked.ordering_key(),
        }
    }

    fn seq_source(&self) -> SeqSource {
        match self {
            Self::Claimed(_) | Self::Withheld(_) => SeqSource::Table,
            Self::Logged(event, _) => event.seq_source(),
            Self::Parked(parked) => parked.seq_source(),
        }
    }

    fn whereabouts(&self) -> Whereabouts {
        match self {
            Self::Claimed(_) | Self::Logged(..) => Whereabouts::Lent,
            Self::Withheld(row) => row.whereabouts(),
            Self::Parked(parked) => parked.whereabouts(),
        }
    }

    fn flaw(&self) -> Option<&Refusal> {
        match self {
            Self::Claimed(_) => None,
            Self::Withheld(row) => row.flaw(),
            Self::Logged(event, _) => event.flaw(),
            Self::Parked(parked) => parked.flaw(),
        }
    }
}

/// Rows that gather for one batch.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) rows: Vec<OutgoingRow>,
    bytes: usize,
}

impl Outgoing {
    /// Takes a row; true when the batch is full, with so many bytes at most.
    pub(super) fn push(&mut self, row: OutgoingRow, bytes_max: usize) -> bool {
        self.bytes += row.size_bytes() + EVENT_OVERHEAD_BYTES;
        self.rows.push(row);
        self.rows.len() >= BATCH_ROWS || self.bytes >= bytes_max
    }

    /// Takes rows of this `seq` back that came last.
    pub(super) fn take_back(&mut self, seq: i64) {
        while let Some(row) = self.rows.pop_if(|row| row.seq() == seq) {
            self.bytes -= row.size_bytes() + EVENT_OVERHEAD_BYTES;
        }
    }

    pub(super) fn take(&mut self) -> (Vec<OutgoingRow>, usize) {
        let capacity = self.rows.len();
        let rows = std::mem::replace(&mut self.rows, Vec::with_capacity(capacity));
        (rows, std::mem::take(&mut self.bytes))
    }
}
