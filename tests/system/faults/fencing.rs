//! Who was an owner and is none any more changes nothing in PostgreSQL.

use std::sync::Arc;

use postrider::control::cursors::{CursorStore, OnPromotion};
use postrider::control::lease::{Lease, Terms};
use postrider::error::ErrorKind;
use postrider::event::Bucket;
use postrider::order::cursor::{Cursor, CursorGroup, GroupCursor};
use postrider::order::ledger::Finished;
use postrider::order::tick::{Observation, Tick};
use postrider::postgres::{Connection, DatabaseConfig, connect};

use crate::support::Fixture;

const BUCKET: Bucket = Bucket(0);

async fn session(fixture: &Fixture) -> Connection {
    let database = DatabaseConfig::parse(&fixture.database_url).expect("the URL is good");
    connect(&database, "test").await.expect("PostgreSQL answers")
}

async fn join(fixture: &Fixture, name: &str) -> Lease {
    Lease::join(session(fixture).await, name, 1, Terms::new(60)).await.expect("it may join")
}

fn page_done() -> Finished<GroupCursor> {
    let snapshot = "20:20:".parse().expect("a snapshot");
    let seen = Observation { floor: 5, snapshot, next: 20, ceiling: 9, storage: 1 };
    let tick = Arc::new(Tick::follow(&Tick::first(), seen).expect("it is later"));
    let mut cursor = Cursor::initial();
    cursor.enter(&tick);
    cursor.finish();
    Finished {
        place: GroupCursor { cursor_group: CursorGroup::from([BUCKET]), cursor },
        events: 1,
        parked: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_owner_saves_nothing() {
    let fixture = Fixture::new("former_owner").await;
    let (former, successor) = (join(&fixture, "former").await, join(&fixture, "successor").await);
    let store =
        CursorStore::open(session(&fixture).await, OnPromotion::Refuse).await.expect("a primary");
    let taken = former.take(&[(BUCKET, 0)]).await.expect("it is free");
    assert_eq!(taken.len(), 1);
    store.own(&taken);
    let taken = successor.take(&taken).await.expect("an answer");
    assert_eq!(taken.len(), 1, "it named the epoch");
    store.note(&page_done());
    let refused = store.save_all().await.expect_err("the bucket is another's");
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    let position = r#"select "position" from postrider.cursor where bucket = 0"#;
    let row = fixture.client().await.query_one(position, &[]).await.expect("the cursor is there");
    assert_eq!(row.get::<_, i64>(0), 0, "it was moved by a former owner");
    assert!(store.load(&[BUCKET]).await.is_err(), "nor is it handed out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_takers_one_gets_the_bucket() {
    let fixture = Fixture::new("two_takers").await;
    let (one, other) = (join(&fixture, "one").await, join(&fixture, "other").await);
    let free = [(BUCKET, 0)];
    let (first, second) = tokio::join!(one.take(&free), other.take(&free));
    let taken = first.expect("an answer").len() + second.expect("an answer").len();
    assert_eq!(taken, 1);
}
