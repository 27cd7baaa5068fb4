//! What people are told of rows that somebody changes after they were written.

use tokio_postgres::Client;

use crate::support::{Fixture, Patience, RelayProcess};

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect("the statement is sound");
}

/// Runs a command; its exit code and all that it said.
fn run(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn check(fixture: &Fixture) -> (Option<i32>, String) {
    run(fixture, &["check"])
}

/// What was published and is changed or rewritten in its place lies where it lay, and nobody is told to write it again;
/// of what comes into another bucket nobody knows, and nobody says that it is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_rows_are_not_taken_for_lost_nor_for_published() {
    let fixture = Fixture::new("changed_rows").await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    for floor in [40, 80, 120, 160] {
        let write = "insert into outbox (aggregatetype, aggregateid, type)
             select 'thing', (n % 8)::text, 'T' from generate_series(1, 40) as n";
        execute(&client, write).await;
        let patience = Patience::until("a tick is remembered");
        let remembered = format!("select from postrider.past_tick where floor >= {floor}");
        while client.query(&remembered, &[]).await.expect("it answers").is_empty() {
            patience.pause().await;
        }
    }
    fixture.wait_published().await;
    for change in [
        "update outbox set headers = '{\"scrubbed\": true}'",
        "alter table outbox add column made_up uuid default gen_random_uuid()",
        "alter table outbox add column sum bigint generated always as (seq * 2) stored",
        "update outbox set generation = (generation + 1) % 3 where aggregateid = '3'",
    ] {
        execute(&client, change).await;
        let (code, said) = check(&fixture);
        assert!(code == Some(0) && said.contains("no row lies where no cursor looks"), "{said}");
        assert!(!said.contains("into other buckets"), "{change}: {said}");
    }
    let (_, said) = run(&fixture, &["status"]);
    assert!(said.contains("nothing waits"), "{said}");
    // Other tests' transactions may have been open beside these: by ticks of that time nobody knows who wrote what.
    let patience = Patience::until("a tick is remembered that came after all of them");
    let after_all =
        "select from postrider.past_tick where oldest > all (select txid::xid8 from outbox)";
    while client.query(after_all, &[]).await.expect("it answers").is_empty() {
        patience.pause().await;
    }
    let keys = "'0', '1', '2', '4', '5'";
    execute(
        &client,
        &format!("update outbox set aggregateid = 'moved' where aggregateid in ({keys})"),
    )
    .await;
    // The server's counts come with the next transaction that ends a second later.
    let patience = Patience::until("the change is told");
    loop {
        let (code, said) = check(&fixture);
        if said.contains("into other buckets") {
            assert!(
                code == Some(0) && said.contains("one that was published comes again"),
                "{said}"
            );
            break;
        }
        execute(&client, "select").await;
        patience.pause().await;
    }
    let (_, said) = run(&fixture, &["status"]);
    assert!(
        said.contains("not known whether anything waits") && said.contains("cannot be told"),
        "{said}"
    );
    relay.stop_well().await;
}
