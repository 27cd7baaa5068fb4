//! What people are told of adopted tables: what waits in them, and who may not read them.

use serde_json::Value;
use tokio_postgres::Client;

use crate::adopt::{ADOPT, adopt, legacy_outbox, wait_published};
use crate::support::consumer::create_topic;
use crate::support::{Consumed, Fixture, Patience, RelayProcess, read_topic};

/// Runs a command; its exit code and all that it said.
fn run(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn status(fixture: &Fixture) -> Value {
    let output = fixture.command().args(["status", "--json"]).output().expect("the binary runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect("the statement is sound");
}

async fn write(client: &Client, rows: i32) {
    let sql = format!(
        "insert into legacy.outbox (id, aggregatetype, aggregateid, type)
         select gen_random_uuid(), 'order', 'a', 'Placed' from generate_series(1, {rows})"
    );
    execute(client, &sql).await;
}

/// The fixture as a role sees it that may do what a relay has to, adopted tables aside.
pub(crate) async fn as_relay(fixture: &Fixture, client: &Client) -> Fixture {
    execute(client, include_str!("../../sql/roles.sql")).await;
    let role = format!("{}_relay", fixture.name);
    let make = format!(
        "create role {role} login replication password 'known'; grant postrider_relay to {role}"
    );
    execute(client, &make).await;
    let (head, tail) = fixture.database_url.split_once("//").expect("it is a URL");
    let (_, server) = tail.split_once('@').expect("the user is named");
    Fixture { database_url: format!("{head}//{role}:known@{server}"), ..fixture.clone() }
}

#[track_caller]
fn assert_says(fixture: &Fixture, arguments: &[&str], code: i32, words: &[&str]) {
    let (ended, said) = run(fixture, arguments);
    assert_eq!(ended, Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
}

/// Rows of an adopted table count as what waits, before it is read, while nobody reads it and after; and who
/// cannot count them does not say that none wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_adopted_tables_count() {
    let fixture = Fixture::new("told_count").await;
    let client = legacy_outbox(&fixture).await;
    let relays = as_relay(&fixture, &client).await;
    write(&client, 5).await;
    adopt(&fixture, ADOPT);
    let found = status(&fixture);
    assert_eq!((&found["waits"], &found["unpublished"]), (&"yes".into(), &5.into()), "{found}");
    let lines =
        ["adopted legacy.outbox: unpublished: 5; since when is not known", "unpublished: 5"];
    assert_says(&fixture, &["status"], 0, &lines);
    let blind = status(&relays);
    assert_eq!(blind["waits"], "unknown", "{blind}");
    assert!(blind["unpublished"].is_null(), "{blind}");
    assert_says(
        &relays,
        &["status"],
        0,
        &["not known whether anything waits", "permission denied"],
    );
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_published(&client).await;
    write(&client, 3).await;
    let patience = Patience::until("nothing waits");
    while status(&fixture)["waits"] != "no" {
        patience.pause().await;
    }
    relay.stop_well().await;
    write(&client, 7).await;
    let found = status(&fixture);
    assert_eq!((&found["waits"], &found["unpublished"]), (&"yes".into(), &7.into()), "{found}");
}

/// A right that is missing on an adopted table is named with the grant, by `check` and before a switch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_on_adopted_tables_are_looked_at_before() {
    let fixture = Fixture::new("told_rights").await;
    let client = legacy_outbox(&fixture).await;
    let relays = as_relay(&fixture, &client).await;
    write(&client, 5).await;
    adopt(&fixture, ADOPT);
    let lacks = [
        "told_rights_relay may not read the adopted table legacy.outbox",
        "grant usage on schema \"legacy\" to told_rights_relay",
        "grant select on \"legacy\".\"outbox\" to told_rights_relay",
    ];
    assert_says(&relays, &["check"], 4, &lacks);
    assert_says(&relays, &["check", "--capture", "wal"], 4, &lacks);
    let relay = RelayProcess::start(&relays, &[]);
    relay.wait_until_it_says("relaying").await;
    assert_says(&fixture, &["capture", "switch", "wal"], 4, &lacks);
    let mode = client.query_one("select mode from postrider.capture", &[]).await;
    assert_eq!(mode.expect("it answers").get::<_, String>(0), "poll", "nothing is changed before");
    execute(&client, "grant usage on schema legacy to told_rights_relay").await;
    assert_says(&relays, &["check"], 4, &lacks[2..]);
    execute(&client, "grant select on legacy.outbox to told_rights_relay").await;
    assert_says(&relays, &["check"], 0, &["1 table can be read", "switch wal"]);
    execute(&client, "alter table legacy.outbox enable row level security").await;
    let hidden = ["row-level security", "alter role told_rights_relay bypassrls"];
    assert_says(&relays, &["check"], 4, &hidden);
    assert_says(&relays, &["status"], 0, &["it is not known", "row-level security"]);
    assert_says(&fixture, &["capture", "switch", "wal"], 4, &hidden);
    execute(&client, "alter table legacy.outbox disable row level security").await;
    assert_says(&fixture, &["capture", "switch", "wal"], 0, &["the log is read"]);
    wait_published(&client).await;
    relay.stop_well().await;
}

/// What `check` says of rows that no cursor will reach, and its exit code.
fn reach(fixture: &Fixture) -> (Option<i32>, String) {
    let (code, said) = run(fixture, &["check"]);
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.contains(" events ")).collect();
    (code, lines.join("\n"))
}

/// Whoever owns the outbox can write rows that lie where no cursor looks. They are named while they are fresh and
/// when all has moved on, with what mends them; rows of savepoints and of long transactions are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_no_cursor_reaches_are_named() {
    // GIVEN cursors that have passed rows while a long transaction was open.
    let fixture = Fixture::new("told_reach").await;
    let (client, long) = (fixture.client().await, fixture.client().await);
    execute(&long, "begin; select pg_current_xact_id()").await;
    let relay = RelayProcess::start(&fixture, &[]);
    let event = |aggregate: &str| {
        format!(
            "insert into outbox (aggregatetype, aggregateid, type)
             select 'thing', '{aggregate}', 'T' from generate_series(1, 400)"
        )
    };
    execute(&client, &format!("begin; savepoint s; {}; release s; commit", event("a"))).await;
    fixture.wait_published().await;
    let patience = Patience::until("the tick is remembered");
    let remembered = "select from postrider.past_tick where floor >= 400";
    while client.query(remembered, &[]).await.expect("it answers").is_empty() {
        patience.pause().await;
    }
    execute(&long, &format!("{}; commit", event("long"))).await;
    fixture.wait_published().await;
    // THEN nothing is named while all rows lie where cursors look.
    let (code, said) = reach(&fixture);
    assert!(code == Some(0) && said.contains("no row lies where no cursor looks"), "{said}");
    // WHEN the owner writes rows far below under a relay that looks there, THEN it finds them.
    let forge = |low: i64| {
        format!(
            "insert into outbox (seq, aggregatetype, aggregateid, type) overriding system value
             values ({low}, 'thing', 'forged', 'T'), (-{low}, 'thing', 'forged', 'T')"
        )
    };
    execute(&client, &forge(5)).await;
    let (code, said) = reach(&fixture);
    assert_eq!(code, Some(0), "it will be found: {said}");
    fixture.wait_published().await;
    let (code, said) = reach(&fixture);
    assert_eq!(code, Some(0), "it was found: {said}");
    // WHEN such rows are written under one that does not, THEN they are named.
    relay.stop_well().await;
    execute(&client, &forge(3)).await;
    // As a relay of an earlier version leaves it, which does not look there.
    let pass = "update postrider.cursor set from_snapshot = pg_current_snapshot(),
         upto_snapshot = pg_current_snapshot(), window_since = null, window_bound = null";
    execute(&client, pass).await;
    let (code, said) = reach(&fixture);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("seq -3 (id ") && said.contains(", 3 (id "), "{said}");
    // THEN nobody is told that nothing waits.
    let found = status(&fixture);
    assert_eq!((&found["waits"], &found["unpublished"]), (&"yes".into(), &2.into()), "{found}");
    assert_eq!(run(&fixture, &["wait", "--timeout", "1s"]).0, Some(7));
    // WHEN the command runs that is named, and a relay, THEN the rows are published, and nothing is named any more.
    let (_, said) = reach(&fixture);
    let (_, command) = said.split_once("anew, like: ").expect("it says what mends it");
    execute(&client, command.lines().next().expect("a line")).await;
    let (code, said) = reach(&fixture);
    assert!(code == Some(1) && said.contains("seq 3 (id ") && !said.contains("seq -3"), "{said}");
    let relay = RelayProcess::start(&fixture, &[]);
    execute(&client, &event("b")).await;
    assert_eq!(run(&fixture, &["wait", "--timeout", "60s"]).0, Some(0));
    let sent = read_topic(&fixture.brokers, &fixture.topic("thing"));
    assert_eq!(sent.iter().map(Consumed::key_text).filter(|key| *key == "forged").count(), 4);
    assert_eq!(status(&fixture)["waits"], "no");
    let (code, said) = reach(&fixture);
    assert_eq!(code, Some(0), "{said}");
    foreign_ids_are_named(&fixture, &client).await;
    relay.stop_well().await;
}

async fn foreign_ids_are_named(fixture: &Fixture, client: &Client) {
    for txid in ["'4'", "(pg_current_xact_id()::text::bigint + 1000000)::text::xid8"] {
        let foreign = format!(
            "set session_replication_role = replica;
             insert into outbox (txid, aggregatetype, aggregateid, type)
             values ({txid}, 'thing', 'foreign', 'T'); reset session_replication_role"
        );
        execute(client, &foreign).await;
        let (code, said) = reach(fixture);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("their txid is not that of the transaction"), "{said}");
        execute(client, "delete from outbox where aggregateid = 'foreign'").await;
    }
}

/// A type, an id, a kind, a payload and headers that would paint a line of ours, set a title, turn letters.
const EVIL: &str = "E'a/b\\n         7  fine\\x1b]0;owned\\x07\\u009b2J\\u202e'";

#[track_caller]
fn assert_harmless(said: &str) {
    let moves = |character: char| character.is_control() && character != '\n';
    assert!(!said.contains(|character| moves(character) || character == '\u{202e}'), "{said:?}");
}

/// What a row says is shown as a text in its place, and can be chosen all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_of_rows_move_no_terminal() {
    // GIVEN parked and waiting events whose every text moves a terminal, and one with texts without end.
    let fixture = Fixture::new("told_texts").await;
    let client = fixture.client().await;
    let park = format!(
        "insert into postrider.parked (bucket, seq, id, reason, detail, aggregatetype, aggregateid, type, payload,
             headers, topic, attempts, created_at)
         select 0, n, gen_random_uuid(), 'illegal-topic', {EVIL}, {EVIL}, n || {EVIL}, {EVIL},
             convert_to({EVIL}, 'UTF8'), '{{}}', {EVIL}, 0, now() from generate_series(1, 3) as n"
    );
    execute(&client, &park).await;
    let long = "insert into postrider.parked (bucket, seq, id, reason, detail, aggregatetype, aggregateid, type, attempts, created_at)
         values (0, 9, gen_random_uuid(), 'refused', repeat('d', 100000), repeat('t', 100000), repeat('i', 100000), 'T', 0, now())";
    execute(&client, long).await;
    let waiting =
        format!("insert into outbox (aggregatetype, aggregateid, type) values ({EVIL}, '1', 'T')");
    execute(&client, &waiting).await;
    let id: String = client
        .query_one("select id::text from postrider.parked where seq = 1", &[])
        .await
        .expect("it is there")
        .get(0);
    // WHEN each command that shows them runs, THEN it writes nothing that a terminal obeys, and not without end.
    for arguments in [
        &["parked", "list"][..],
        &["parked", "list", "--json"],
        &["parked", "show", &id],
        &["parked", "show", &id, "--json"],
        &["parked", "retry", "--all", "--dry-run"],
        &["parked", "discard", "--all", "--dry-run"],
        &["parked", "retry", "--all"],
        &["check"],
        &["check", "--json"],
        &["status"],
        &["capture", "show"],
    ] {
        let (_, said) = run(&fixture, arguments);
        assert_harmless(&said);
        let forged = said.lines().any(|line| line.trim_start().starts_with("7  fine"));
        assert!(!forged || arguments.contains(&"show"), "{said}");
        assert!(
            arguments.contains(&"--json") || said.len() < 12_000,
            "{arguments:?}: {}",
            said.len()
        );
    }
    // THEN the texts are shown with what is in them escaped.
    let (_, list) = run(&fixture, &["parked", "list"]);
    assert!(list.contains("a/b\\n         7  fine\\u{1b}]0;owned"), "{list}");
    assert!(list.contains("(to be tried again)"), "{list}");
    // WHEN they are chosen by these very names, THEN they are found.
    let evil = "a/b\n         7  fine\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";
    let second = format!("2{evil}");
    let chosen = ["--aggregate-type", evil, "--aggregate-id", &second];
    let (_, said) = run(
        &fixture,
        &[&["parked", "discard", "--aggregate", &format!("{evil}/{second}")], &[][..]].concat(),
    );
    assert!(said.contains("nothing is parked that was chosen (a type with a slash"), "{said}");
    assert_says(
        &fixture,
        &[&["parked", "discard"], &chosen[..]].concat(),
        0,
        &["1 event discarded"],
    );
    assert_says(
        &fixture,
        &["parked", "discard", "--aggregate-type", evil],
        0,
        &["2 events discarded"],
    );
}

/// A topic that cannot be made beside another, and one that Kafka keeps for itself, are called by their trouble.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_cannot_be_are_told_why() {
    let fixture = Fixture::new("told_topics").await;
    create_topic(&fixture.brokers, "told_topics.order_item", 1).await;
    let client = fixture.client().await;
    let write = "insert into outbox (aggregatetype, aggregateid, type) values
         ('told_topics.order.item', 'a', 'T'), ('__cluster_metadata', 'b', 'T'), ('told_topics.order_item', 'c', 'T')";
    execute(&client, write).await;
    let arguments = ["--topic", "{aggregatetype}", "--shards", "1"];
    let words = ["\u{2718} topics", "makes none of that name beside told_topics.order_item"];
    assert_says(&fixture, &["check", "--topic", "{aggregatetype}"], 1, &words);
    let relay = RelayProcess::start(&fixture, &arguments);
    let patience = Patience::until("two are parked");
    let parked = "select aggregateid, reason, detail from postrider.parked order by 1";
    let rows = loop {
        let rows = client.query(parked, &[]).await.expect("it answers");
        if rows.len() == 2 {
            break rows;
        }
        patience.pause().await;
    };
    let said: Vec<[String; 2]> = rows.iter().map(|row| [row.get(1), row.get(2)]).collect();
    assert_eq!(said[0][0], "topic-unavailable", "{said:?}");
    assert!(said[0][1].contains("beside told_topics.order_item"), "{said:?}");
    assert_eq!(said[1][0], "illegal-topic", "{said:?}");
    assert!(said[1][1].contains("Kafka keeps it for itself"), "{said:?}");
    let words = [words[0], words[1], "parked        2 events of 2 aggregates"];
    assert_says(&fixture, &["check", "--topic", "{aggregatetype}"], 5, &words);
    relay.stop_well().await;
}

/// What a table's owner has written runs as whoever plans to read the table: a superuser looks elsewhere, or is warned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superuser_does_not_run_what_an_owner_has_written() {
    let fixture = Fixture::new("told_owner").await;
    let client = legacy_outbox(&fixture).await;
    let relays = as_relay(&fixture, &client).await;
    write(&client, 3).await;
    let trap = "create role told_owner_own;
        grant usage, create on schema legacy to told_owner_own;
        grant usage on schema legacy to told_owner_relay;
        alter table legacy.outbox owner to told_owner_own;
        set role told_owner_own;
        grant select on legacy.outbox to told_owner_relay;
        create function legacy.trap(integer) returns integer immutable language plpgsql as $$ begin
            if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
                raise exception 'a stranger''s function ran';
            end if;
            return 1;
        end $$;
        create index on legacy.outbox (legacy.trap(1));
        reset role;
        insert into postrider.adopted (schema_name, table_name, columns, copy_order)
        values ('legacy', 'outbox', '{id=id,aggregatetype=aggregatetype,aggregateid=aggregateid,type=type}', 'id')";
    execute(&client, trap).await;
    let found = status(&fixture);
    assert_eq!(found["waits"], "unknown", "{found}");
    assert!(!found.to_string().contains("function ran"), "{found}");
    assert_says(
        &fixture,
        &["status"],
        0,
        &["not looked at: run it as the relay's role", "told_owner_own"],
    );
    assert_says(&fixture, &["check"], 0, &["functions of told_owner_own would run as a superuser"]);
    let (_, said) = run(&fixture, &["adopt", "legacy.outbox", "--end", "--dry-run"]);
    assert!(said.contains("functions of told_owner_own"), "{said}");
    assert_eq!(status(&relays)["unpublished"], 53);
}

/// A function of a table's owner may take as long as it likes: people are told what waits, and a stop is a stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_table_that_gives_no_row_is_told_and_a_stop_ends_it() {
    let fixture = Fixture::new("told_hang").await;
    let client = legacy_outbox(&fixture).await;
    write(&client, 1).await;
    adopt(&fixture, ADOPT);
    let slow = "create function legacy.slow() returns boolean language plpgsql as $$ begin
            perform pg_sleep(3600); return true;
        end $$;
        update postrider.adopted set pending = 'legacy.slow()'";
    execute(&client, slow).await;
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("an adopted table gives no row").await;
    assert!(relay.said().contains("legacy.outbox"), "{}", relay.said());
    let begin = std::time::Instant::now();
    relay.stop_well().await;
    assert!(begin.elapsed() < std::time::Duration::from_secs(15), "{:?}", begin.elapsed());
    let busy = "select count(*) from pg_stat_activity where datname = current_database()
        and backend_type = 'walsender'";
    let patience = Patience::until("its session has ended");
    while client.query_one(busy, &[]).await.expect("it answers").get::<_, i64>(0) > 0 {
        patience.pause().await;
    }
}

/// A line for `replication` is more than the relay needs, and there by default: whoever checks is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_may_copy_the_server_is_told() {
    let fixture = Fixture::new("told_copy").await;
    let client = fixture.client().await;
    let relay = as_relay(&fixture, &client).await;
    let words = "lets told_copy_relay copy the whole server";
    let (_, said) = run(&relay, &["check"]);
    assert!(said.contains(words) && said.contains("reject"), "{said}");
    execute(&client, "alter role told_copy_relay noreplication").await;
    let (_, said) = run(&relay, &["check"]);
    assert!(!said.contains("copy the whole server"), "{said}");
    // A superuser may do so in any case.
    let (_, said) = run(&fixture, &["check"]);
    assert!(!said.contains("copy the whole server"), "{said}");
}

fn json_of(fixture: &Fixture, arguments: &[&str]) -> Value {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// What keeps the log from being read is named where people look, with what helps; the outbox goes on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_slot_from_being_made_is_told() {
    let fixture = Fixture::new("told_show").await;
    let client = legacy_outbox(&fixture).await;
    let relays = as_relay(&fixture, &client).await;
    write(&client, 2).await;
    adopt(&fixture, ADOPT);
    let (code, said) = run(&fixture, &["capture", "switch", "wal", "--no-wait"]);
    assert_eq!(code, Some(0), "{said}");
    let relay = RelayProcess::start(&relays, &[]);
    let grant = "grant usage on schema \"legacy\" to told_show_relay";
    relay.wait_until_it_says("told_show_relay may not read the adopted table legacy.outbox").await;
    assert!(!relay.said().contains("grant the role the rights listed"), "{}", relay.said());
    let insert = "insert into public.outbox (aggregatetype, aggregateid, type, payload) values ('order', '1', 'T', '{}')";
    execute(&client, insert).await;
    fixture.wait_published().await;
    let (_, said) = run(&fixture, &["capture", "show"]);
    assert!(said.contains(grant) && !said.contains("nothing needs to be done"), "{said}");
    let older = fixture.client().await;
    execute(&older, "begin; select pg_current_xact_id()").await;
    execute(&client, &format!("{grant}; grant select on legacy.outbox to told_show_relay")).await;
    let patience = Patience::until("the slot is being made");
    while json_of(&fixture, &["capture", "show", "--json"])["slot"]["state"] != "being made" {
        patience.pause().await;
    }
    let patience = Patience::until("it is said for whom it waits");
    loop {
        let (_, said) = run(&fixture, &["capture", "show"]);
        assert!(!said.contains("nothing needs to be done") && !said.contains(": lost"), "{said}");
        if said.contains("the slot waits for the end of") {
            break;
        }
        patience.pause().await;
    }
    execute(&older, "rollback").await;
    relay.wait_until_it_says("reading the log").await;
    wait_published(&client).await;
    relay.stop_well().await;
}

/// Limits on sessions, rows that capture message does not read, and roles that are not the relay's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_stop_a_relay_or_never_be_read_is_told_before() {
    let fixture = Fixture::new("told_before").await;
    let client = fixture.client().await;
    let relays = as_relay(&fixture, &client).await;
    execute(&client, "alter role told_before_relay connection limit 4").await;
    let words = ["run opens 11 sessions with 4 shards by poll", "role told_before_relay allows 4"];
    assert_says(&relays, &["check", "--shards", "4"], 4, &words);
    execute(&client, "alter role told_before_relay connection limit 11").await;
    assert_says(&relays, &["check", "--shards", "4"], 0, &["run opens up to 11"]);
    let url = relays.database_url.replace("told_before_relay", "told_before_stranger");
    let stranger = Fixture { database_url: url, ..fixture.clone() };
    execute(&client, "create role told_before_stranger login password 'known'").await;
    for group in ["", "grant postrider_writer to told_before_stranger"] {
        execute(&client, group).await;
        for command in [&["check"][..], &["parked", "list"]] {
            let (code, said) = run(&stranger, command);
            assert!(code == Some(4) && said.contains("relay's"), "{said}");
            assert!(!said.contains("grant the role"), "{said}");
        }
    }
    assert_says(
        &fixture,
        &["capture", "switch", "message", "--no-wait"],
        0,
        &["the slot is there"],
    );
    let insert = "insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', '1', 'T', '{}')";
    execute(&client, insert).await;
    let unread = "rows of the outbox wait";
    assert_says(&fixture, &["check"], 0, &[unread, "postrider.emit"]);
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says(unread).await;
    relay.stop_well().await;
}
