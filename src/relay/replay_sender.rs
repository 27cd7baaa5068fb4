//! The way of a replay's events to Kafka.
//!
//! Promises: events of an aggregate are sent in their order; a page counts as sent when each of its events is
//! acknowledged, or can never be a record. Must not: park, hold, or read.
//! Fails: with the producer's error; what was sent of the page is sent again then.

use crate::capture::replay::OpenReplay;
use crate::capture::replay::reader::ReplayPage;
use crate::capture::table::claim::ClaimedRow;
use crate::error::{Error, ErrorKind, Result};
use crate::event::LendEvent;
use crate::order::holds::{AggregateKey, Reason, Refusal, SetAside};
use crate::order::ledger::BatchNumber;
use crate::publish::{Batch, Publisher, Report};
use crate::relay::publishers::Publishers;

/// What became of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SentPage {
    /// Everything of it that can be sent.
    Sent {
        /// Events that are acknowledged.
        sent: i64,
        /// Events that can never be records.
        left_out: i64,
    },
    /// A topic takes nothing now, in these words.
    Waits(String),
}

/// A producer of its own for one replay.
#[derive(Debug)]
pub(super) struct ReplaySender {
    publisher: Publisher<ClaimedRow>,
    replay: i64,
    batches: u64,
}

impl ReplaySender {
    /// A producer with the topics and the mark of the replay.
    ///
    /// # Errors
    /// When the replay names no topic, or the producer cannot be made.
    pub(super) fn start(publishers: &Publishers, replay: &OpenReplay) -> Result<Self> {
        let to_topic = replay.way.to_topic.as_deref().map(str::parse).transpose();
        let to_topic = to_topic.map_err(|cause| {
            Error::new(ErrorKind::Config, format!("replay {}: {cause}", replay.replay))
                .with_remedy(format!("run `postrider replay cancel {}`", replay.replay))
        })?;
        let publisher = publishers.start_replay(replay.replay, to_topic)?;
        Ok(Self { publisher, replay: replay.replay, batches: 0 })
    }

    /// Sends a page, and waits until it is known what became of it.
    ///
    /// # Errors
    /// As the producer.
    pub(super) async fn send(&mut self, page: ReplayPage) -> Result<SentPage> {
        let (mut sent, mut left_out) = (0, page.unreadable);
        let mut rows = page.rows;
        while !rows.is_empty() {
            let count = rows.len();
            let set_aside = self.send_batch(rows).await?;
            sent += (count - set_aside.len()) as i64;
            match sort(set_aside) {
                Sorted::Waits(refusal) => return Ok(SentPage::Waits(refusal.detail)),
                Sorted::Rest { refused, follows } => {
                    left_out += refused.len() as i64;
                    self.let_go(&refused);
                    rows = follows;
                }
            }
        }
        Ok(SentPage::Sent { sent, left_out })
    }

    /// The thread holds whose event it could not send: here that one is left out, and what follows it goes.
    fn let_go(&self, refused: &[SetAside<ClaimedRow>]) {
        for SetAside { row, refusal } in refused {
            let event = row.event();
            tracing::debug!(replay = self.replay, event = %event.id, cause = refusal.detail, "left out");
        }
        let keys = refused.iter().map(|one| AggregateKey::of(&one.row.event())).collect();
        self.publisher.resume(Vec::new(), keys);
    }

    /// Those that were not sent, in their order.
    async fn send_batch(&mut self, rows: Vec<ClaimedRow>) -> Result<Vec<SetAside<ClaimedRow>>> {
        self.batches += 1;
        let number = BatchNumber(self.batches);
        self.publisher.send(Batch { number, rows });
        loop {
            self.publisher.reported().await;
            while let Some(report) = self.publisher.next_report()? {
                match report {
                    Report::Failed(error) => return Err(error),
                    Report::Delivered(delivered) if delivered == number => {
                        let aside = std::iter::from_fn(|| self.publisher.next_set_aside());
                        return Ok(aside.flat_map(|(_, events)| events).collect());
                    }
                    // A replay is sent in no transaction.
                    Report::Delivered(_) | Report::Ended => {}
                }
            }
        }
    }

    /// Takes the producer down, where it may block.
    pub(super) async fn close(self) -> Result<()> {
        tokio::task::spawn_blocking(move || drop(self.publisher))
            .await
            .map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))
    }
}

/// What was not sent, by what is to be done about it.
enum Sorted<R> {
    /// A topic cannot be used now.
    Waits(Refusal),
    Rest {
        /// They can never be records.
        refused: Vec<SetAside<R>>,
        /// They only follow one of these.
        follows: Vec<R>,
    },
}

fn sort<R>(set_aside: Vec<SetAside<R>>) -> Sorted<R> {
    let (mut refused, mut follows) = (Vec::new(), Vec::new());
    for one in set_aside {
        match one.refusal.reason {
            Reason::TopicUnavailable => return Sorted::Waits(one.refusal),
            Reason::Follows => follows.push(one.row),
            _ => refused.push(one),
        }
    }
    Sorted::Rest { refused, follows }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside(row: u8, reason: Reason) -> SetAside<u8> {
        let refusal = Refusal { reason, detail: format!("event {row}"), topic: None };
        SetAside { row, refusal }
    }

    #[test]
    fn what_follows_a_refused_event_goes_and_a_topic_is_waited_for() {
        let one =
            vec![aside(1, Reason::TooLarge), aside(2, Reason::Follows), aside(3, Reason::Follows)];
        let Sorted::Rest { refused, follows } = sort(one) else { panic!("no topic is away") };
        assert_eq!((refused.len(), follows), (1, vec![2, 3]));
        let one = vec![aside(1, Reason::BadHeaders), aside(2, Reason::TopicUnavailable)];
        let Sorted::Waits(refusal) = sort(one) else { panic!("a topic is away") };
        assert_eq!(refusal.detail, "event 2");
    }
}
