//! Many events at once, that the auditor knows.

use postrider_testkit::audit::Fate;
use uuid::Uuid;

use super::writer::{AGGREGATE_TYPE, Inserted};
use super::{Fixture, History};

/// Rows of one transaction.
const ROWS: i64 = 1_000;

/// Events of about 200 bytes, dealt to aggregates in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk {
    /// Begins the aggregates' names.
    pub(crate) name: &'static str,
    pub(crate) events: i64,
    pub(crate) aggregates: i64,
}

impl Bulk {
    /// Writes them in many transactions; a row's number rises with its seq.
    pub(crate) async fn write(self, fixture: &Fixture, history: &History) {
        let client = fixture.client().await;
        let insert = client
            .prepare(
                "insert into outbox (id, aggregatetype, aggregateid, type, payload)
                 select id, $1, $2 || (n % $3), 'Changed',
                     json_build_object('n', n, 'pad', repeat('x', 150))
                 from unnest($4::uuid[], $5::bigint[]) as given (id, n)",
            )
            .await
            .expect("the table is there");
        for first in (0..self.events).step_by(ROWS as usize) {
            let numbers: Vec<i64> = (first..(first + ROWS).min(self.events)).collect();
            let ids: Vec<Uuid> = numbers.iter().map(|_| Uuid::new_v4()).collect();
            client
                .execute(&insert, &[&AGGREGATE_TYPE, &self.name, &self.aggregates, &ids, &numbers])
                .await
                .expect("an insert never fails");
            let written = numbers.iter().zip(&ids).map(|(n, id)| Inserted {
                id: *id,
                aggregate: format!("{}{}", self.name, n % self.aggregates),
                number: n.cast_unsigned(),
            });
            history.ended(written.collect(), Fate::Committed);
        }
    }
}
