//! What `check` finds that would disturb a relay later, each with its name, outcome and remedy.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::consumer::create_topic_with;
use crate::support::fixture::{Options, connect};
use crate::support::servers::postgres;
use crate::support::{Fixture, RelayProcess};
use crate::told::as_relay;

/// What transactions are found that stay open, by how long they are.
const WRITERS: &str = include_str!("../../sql/queries/check_writers.sql");

/// The same of sessions whose times a role may not see.
const HIDDEN_WRITERS: &str = include_str!("../../sql/queries/check_hidden_writers.sql");

/// What a check has found, and its exit code.
struct Checked {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Checked {
    fn by(fixture: &Fixture, arguments: &[&str]) -> Self {
        let output =
            fixture.command().args(["check", "--json", "--shards", "1"]).args(arguments).output();
        let output = output.expect("the binary runs");
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|cause| panic!("{cause}: {output:?}"));
        let findings = answer["checks"].as_array().expect("a list").clone();
        Self { code: output.status.code(), findings }
    }

    /// Asserts that one finding of this name has this outcome and these words, in what it says or what it advises.
    #[track_caller]
    fn has(&self, name: &str, outcome: &str, words: &[&str]) -> &Self {
        let fits = |found: &&Value| {
            let said = format!("{} {}", found["detail"], found["remedy"]);
            found["name"] == name
                && found["outcome"] == outcome
                && words.iter().all(|word| said.contains(word))
        };
        assert!(
            self.findings.iter().any(|found| fits(&found)),
            "{name} {words:?}: {:#?}",
            self.findings
        );
        self
    }

    #[track_caller]
    fn ends_with(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{:#?}", self.findings);
    }
}

async fn execute(fixture: &Fixture, sql: &str) {
    fixture.client().await.batch_execute(sql).await.expect("the statement is sound");
}

/// Each check has its name, and where nothing is wrong it says so; also where nothing may be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_has_its_name() {
    let fixture = Fixture::new("doctor_names").await;
    let checked = Checked::by(&fixture, &["--deny-warnings"]);
    for name in [
        "config",
        "kafka-auth",
        "postgres",
        "version",
        "clock",
        "timeouts",
        "primary",
        "connections",
        "tables",
        "index",
        "sequence",
        "ring",
        "autovacuum",
        "writers",
        "rights",
        "row-security",
        "capture",
        "events",
        "parked",
        "kafka",
        "topics",
    ] {
        checked.has(name, "passed", &[]);
    }
    checked.ends_with(0);
    let nowhere = Fixture {
        database_url: "postgres://nobody@127.0.0.1:1/none".to_owned(),
        brokers: "127.0.0.1:1".to_owned(),
        ..fixture
    };
    let checked = Checked::by(&nowhere, &["--offline", "--deny-warnings"]);
    checked.has("config", "passed", &[]).has("kafka-auth", "passed", &["PLAINTEXT, no login"]);
    checked.ends_with(0);
    let checked = Checked::by(&nowhere, &["--offline", "-X", "acks=1"]);
    checked.has("config", "failed", &["acks"]).ends_with(3);
    let checked = Checked::by(&nowhere, &["--offline", "--brokers", "kafka:99999"]);
    checked.has("config", "failed", &["kafka:99999", "from 1 to 65535"]).ends_with(3);
}

/// An outbox that is not where it was, and partitions that cannot be read in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_outbox_and_a_lost_index_are_found() {
    let fixture = Fixture::with("doctor_moved", Options { buckets: 2, ..Options::default() }).await;
    for (change, now, back) in [
        (
            "alter table outbox rename to events_box",
            "public.events_box",
            "alter table events_box rename to outbox",
        ),
        (
            "create schema app; alter table outbox set schema app",
            "app.outbox",
            "alter table app.outbox set schema public",
        ),
        (
            "alter table outbox_b01 rename to foo",
            "public.foo",
            "alter table foo rename to outbox_b01",
        ),
    ] {
        execute(&fixture, change).await;
        let checked = Checked::by(&fixture, &[]);
        checked
            .has("tables", "failed", &["moved or renamed", now, "run: alter table"])
            .ends_with(6);
        let run = fixture.command().arg("run").output().expect("the binary runs");
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(6), "{said}");
        assert!(said.contains(now), "{said}");
        execute(&fixture, back).await;
    }
    execute(&fixture, "alter table outbox_b01_g2 rename to attic").await;
    let checked = Checked::by(&fixture, &[]);
    let words = ["public.outbox_b01_g2", "renamed", "it is public.attic now", "run: alter table"];
    checked.has("index", "failed", &words);
    checked.has("ring", "passed", &["of 3 generations"]).ends_with(6);
    let status = fixture.command().arg("status").output().expect("the binary runs");
    assert!(status.status.success(), "a name says nothing of a generation: {status:?}");
    execute(&fixture, "alter table attic rename to outbox_b01_g2; drop index outbox_seq").await;
    let checked = Checked::by(&fixture, &[]);
    checked.has(
        "index",
        "failed",
        &["outbox_b00_g0", "nor have 5 more", "create index concurrently"],
    );
    checked.ends_with(6);
    // A part of the order is no order, and neither is an index of something else.
    execute(
        &fixture,
        "create index on outbox (seq) where seq > 5; create index on outbox (id, seq)",
    )
    .await;
    Checked::by(&fixture, &[]).has("index", "failed", &["outbox_b00_g0"]);
    execute(&fixture, "create index on outbox (seq)").await;
    Checked::by(&fixture, &[]).has("index", "passed", &["6 partitions"]).ends_with(0);
    for (change, outcome, words, code) in [
        ("as smallint", "warned", "ends at 32767", 0),
        ("cycle", "warned", "begins again behind 32767", 0),
        ("no cycle maxvalue 2", "failed", "2200H", 6),
        ("as bigint no maxvalue no cycle", "passed", "without an end", 0),
    ] {
        execute(
            &fixture,
            &format!("alter sequence outbox_seq_seq {change}; select setval('outbox_seq_seq', 2)"),
        )
        .await;
        Checked::by(&fixture, &[]).has("sequence", outcome, &[words]).ends_with(code);
    }
}

/// Whoever changes the outbox under a relay reads there what was changed, and not what a statement missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_under_a_relay_is_told_with_what_leads_back() {
    let fixture = Fixture::with("doctor_under", Options { buckets: 2, ..Options::default() }).await;
    for (change, words, back) in [
        (
            "alter table outbox_b01 rename to foo",
            [
                "public.outbox_b01 of the outbox was moved or renamed: it is public.foo now",
                "alter table",
            ],
            "alter table foo rename to outbox_b01",
        ),
        (
            "alter table outbox rename column headers to heads",
            ["public.outbox was changed: found", "restore the table"],
            "alter table outbox rename column heads to headers",
        ),
        (
            "alter table outbox alter column seq drop identity",
            ["the column seq has no sequence", "restore the table"],
            "select",
        ),
    ] {
        let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
        relay.wait_until_it_says("relaying").await;
        execute(&fixture, change).await;
        let write =
            "insert into outbox (seq, aggregatetype, aggregateid, type) overriding system value
             select n, 'a', n::text, 'Made' from generate_series(1000001, 1000008) as n";
        execute(&fixture, write).await;
        relay.wait_until_it_says(words[0]).await;
        let said = relay.said();
        assert_eq!(relay.wait(Duration::from_secs(30)).await.code(), Some(6), "{said}");
        assert!(said.contains(words[1]), "{said}");
        execute(&fixture, back).await;
    }
}

/// Who may not call what statements call is told, and `sql/roles.sql` helps; row security that hides nothing from a
/// relay is no trouble.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hardened_server_takes_away_is_found() {
    let fixture = Fixture::new("doctor_hardened").await;
    let client = fixture.client().await;
    let relays = as_relay(&fixture, &client).await;
    Checked::by(&relays, &[]).has("rights", "passed", &[]).ends_with(0);
    for function in [
        "pg_logical_emit_message(boolean, text, text)",
        "pg_current_xact_id()",
        "pg_control_system()",
        "pg_visible_in_snapshot(xid8, pg_snapshot)",
    ] {
        let revoke = format!("revoke execute on function {function} from public, postrider_relay");
        client.batch_execute(&revoke).await.expect("a superuser may");
        let checked = Checked::by(&relays, &[]);
        let name = function.split('(').next().expect("a name");
        checked.has("rights", "failed", &[name, "sql/roles.sql"]).ends_with(4);
        let roles = include_str!("../../sql/roles.sql");
        client.batch_execute(roles).await.expect("a superuser may");
        Checked::by(&relays, &[]).has("rights", "passed", &[]).ends_with(0);
    }
    for force in ["", "; alter table outbox force row level security"] {
        execute(&fixture, &format!("alter table outbox enable row level security{force}")).await;
        let checked = Checked::by(&relays, &[]);
        let role = "alter role doctor_hardened_relay bypassrls";
        checked.has("row-security", "warned", &[role]).ends_with(0);
        assert!(!checked.findings.iter().any(|found| found["outcome"] == "failed"));
    }
    let status = relays.command().arg("status").output().expect("the binary runs");
    assert!(status.status.success(), "{status:?}");
    execute(&fixture, "alter table outbox_b01_g0 enable row level security").await;
    client
        .batch_execute("alter table outbox_b01 enable row level security")
        .await
        .expect("an owner");
    Checked::by(&relays, &[]).has("row-security", "failed", &["outbox_b01"]).ends_with(4);
}

/// Nobody cleans up, the ring is full, a role has too few sessions and timeouts of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_disturbs_a_relay_later_is_found() {
    let options = Options { buckets: 1, generation_seconds: 2, ..Options::default() };
    let fixture = Fixture::with("doctor_later", options).await;
    execute(&fixture, "alter table postrider.cursor set (autovacuum_enabled = off)").await;
    let checked = Checked::by(&fixture, &[]);
    checked
        .has("autovacuum", "warned", &["postrider.cursor", "reset (autovacuum_enabled)"])
        .ends_with(0);
    Checked::by(&fixture, &["--deny-warnings"]).ends_with(1);
    execute(&fixture, "alter table postrider.cursor reset (autovacuum_enabled)").await;

    let fill = "insert into outbox (aggregatetype, aggregateid, type, payload, generation)
                select 'a', 'one', 'Made', '{}', n from generate_series(0, 1) as n";
    execute(&fixture, fill).await;
    Checked::by(&fixture, &[]).has("ring", "passed", &["2 of 3 generations"]);
    execute(&fixture, &fill.replace("(0, 1)", "(2, 2)")).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    // In the first part of a generation the former one may not be emptied yet.
    while !Checked::by(&fixture, &[])
        .findings
        .iter()
        .any(|found| found["name"] == "ring" && found["outcome"] == "warned")
    {
        assert!(Instant::now() < deadline, "all generations hold rows");
    }

    let (role, client) = ("doctor_later_relay", fixture.client().await);
    let made = format!(
        "create role {role} login superuser password 'secret';
         alter role {role} set statement_timeout = '7s'; alter role {role} set idle_session_timeout = '9s'"
    );
    client.batch_execute(&made).await.expect("a superuser");
    let (_, place) = fixture.database_url.rsplit_once('@').expect("a login");
    let limited =
        Fixture { database_url: format!("postgres://{role}:secret@{place}"), ..fixture.clone() };
    let checked = Checked::by(&limited, &[]);
    checked.has("timeouts", "passed", &["statement_timeout = 7s", "idle_session_timeout = 9s"]);
    let limit = format!(
        "alter role {role} nosuperuser connection limit 9; grant pg_read_all_data to {role}"
    );
    client.batch_execute(&limit).await.expect("a superuser");
    Checked::by(&limited, &[]).has("connections", "passed", &[]);
    let others = [connect(&limited.database_url).await, connect(&limited.database_url).await];
    Checked::by(&limited, &[]).has("connections", "warned", &["others have 2", "raise it by 1"]);
    drop(others);
    client
        .batch_execute(&format!("drop owned by {role}; drop role {role}"))
        .await
        .expect("nobody needs it");
}

/// Who has written and stays open is found, be it a session or prepared; who has only read is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_stay_open_are_found() {
    let fixture = Fixture::new("doctor_writers").await;
    let (open, reading, looker) =
        (fixture.client().await, fixture.client().await, fixture.client().await);
    let begin =
        "begin; insert into outbox (aggregatetype, aggregateid, type) values ('a', 'one', 'Made')";
    open.batch_execute(begin).await.expect("it is open");
    reading.batch_execute("begin; select count(*) from outbox").await.expect("it is open");
    let prepared = begin.to_owned() + "; prepare transaction 'doctor''s'";
    looker.batch_execute(&prepared).await.expect("it is prepared");
    let own: i32 = open.query_one("select pg_backend_pid()", &[]).await.expect("it answers").get(0);
    let found = looker.query(WRITERS, &[&0.0_f64]).await.expect("it answers");
    let ours = |row: &&tokio_postgres::Row| {
        row.get::<_, Option<&str>>("database") == Some("doctor_writers")
    };
    let found: Vec<&str> = found.iter().filter(ours).map(|row| row.get("what")).collect();
    assert!(found.contains(&format!("session {own}").as_str()), "{found:?}");
    assert!(found.contains(&"prepared transaction 'doctor''s'"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    let found = looker.query(WRITERS, &[&3600.0_f64]).await.expect("it answers");
    assert_eq!(found.len(), 1, "one row that says how many are hidden");
    looker.batch_execute("rollback prepared 'doctor''s'").await.expect("it is there");
    // Whoever may not see the times of others learns them from the ticks.
    let remember = "create role doctor_writers_looker;
        grant usage on schema postrider to doctor_writers_looker;
        grant select on postrider.past_tick to doctor_writers_looker;
        insert into postrider.past_tick (next, oldest, floor, storage, began, noted_at)
        select pg_snapshot_xmax(pg_current_snapshot()), '0', 0, 0, '0', clock_timestamp() - interval '5 minutes';
        set role doctor_writers_looker";
    looker.batch_execute(remember).await.expect("the role is new");
    let hidden = looker.query(WRITERS, &[&0.0_f64]).await.expect("it answers");
    assert!(!hidden.iter().any(|row| ours(&row)), "its times are hidden");
    // Other tests write to the same server.
    let all = HIDDEN_WRITERS.replace("limit 5", "limit 5000");
    let found = looker.query(&all, &[&60.0_f64]).await.expect("it answers");
    let found: Vec<(&str, f64)> =
        found.iter().filter(ours).map(|row| (row.get("what"), row.get("seconds"))).collect();
    assert!(found.len() == 1 && found[0].0 == format!("session {own}"), "{found:?}");
    assert!((300.0..400.0).contains(&found[0].1), "{found:?}");
    open.batch_execute("rollback").await.expect("it is open");
    assert!(
        !looker.query(&all, &[&60.0_f64]).await.expect("it answers").iter().any(|row| ours(&row))
    );
    let leave = "reset role; drop owned by doctor_writers_looker; drop role doctor_writers_looker";
    looker.batch_execute(leave).await.expect("nobody needs it");
}

/// A topic that takes nothing, one that may lose what it acknowledged, and one that takes more than the relay reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_judged_by_their_settings() {
    let fixture = Fixture::new("doctor_topics").await;
    let settings: [(&str, &[(&str, &str)]); 3] = [
        ("short", &[("min.insync.replicas", "2")]),
        ("unclean", &[("unclean.leader.election.enable", "true")]),
        ("large", &[("max.message.bytes", "20000000")]),
    ];
    for (name, settings) in settings {
        let topic = fixture.topic(name);
        create_topic_with(&fixture.brokers, &topic, settings).await;
        let of_one = ["--topic", topic.as_str()];
        let checked = Checked::by(&fixture, &of_one);
        checked.has("acl", "passed", &[]).has("partitions", "passed", &["2 in each"]);
        match name {
            "short" => {
                checked
                    .has("replication", "failed", &[&topic, "min.insync.replicas is 2"])
                    .ends_with(5);
            }
            "unclean" => {
                checked
                    .has("replication", "warned", &["unclean.leader.election.enable=false"])
                    .ends_with(0);
            }
            _ => {
                checked
                    .has("message-size", "warned", &["19.1 MiB", "--max-event-bytes"])
                    .ends_with(0);
                let raised = [of_one[0], of_one[1], "--max-event-bytes", "20MiB"];
                Checked::by(&fixture, &raised).has("message-size", "passed", &[]);
                let lowered = [of_one[0], of_one[1], "-X", "message.max.bytes=100000"];
                Checked::by(&fixture, &lowered).has(
                    "message-size",
                    "warned",
                    &["message.max.bytes"],
                );
            }
        }
    }
}

/// A server that takes connections and says nothing holds nobody up for longer than was asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = silent.local_addr().expect("it is bound");
    let fixture = Fixture {
        database_url: format!("postgres://nobody@{place}/none"),
        brokers: place.to_string(),
        name: "doctor_silent".to_owned(),
        capture: crate::support::Capture::default(),
    };
    let begin = Instant::now();
    let checked = Checked::by(&fixture, &["--timeout", "1s"]);
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    checked.has("timeout", "failed", &["PostgreSQL", "--timeout"]).ends_with(4);
    let others = Fixture { database_url: postgres().url("postgres"), ..fixture };
    let checked = Checked::by(&others, &["--timeout", "2s"]);
    checked.has("kafka", "failed", &[]).has("postgres", "passed", &[]);
}
