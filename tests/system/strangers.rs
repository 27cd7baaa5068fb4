//! What a login without rights, a clock that went back, or somebody else's schema can do to the relay.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::adopt::{ADOPT, END, adopt, legacy_outbox};
use crate::retention::{quick_ring, wait_until_empty};
use crate::support::fixture::{connect, empty_database};
use crate::support::servers::{kafka, postgres};
use crate::support::{Fixture, Patience, RelayProcess, mostly_waits};
use crate::tier::wait_for_shares;

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// A session of a new login that has no right but to connect.
async fn stranger(name: &str) -> Client {
    let postgres = postgres();
    let create = format!("create role {name} login password 'known'");
    execute(&connect(&postgres.url("postgres")).await, &create).await;
    let (host, port) = (postgres.host(), postgres.port());
    connect(&format!("postgresql://{name}:known@{host}:{port}/{name}")).await
}

/// The advisory locks of earlier versions whose keys can be guessed.
const EVERY_FORMER_KEY: &str = "select pg_advisory_lock(hashtext('postrider.instance'), 0),
    pg_advisory_lock(hashtext('postrider.migrate'), 0)";

fn command(fixture: &Fixture, arguments: &[&str]) {
    let output = fixture.command().args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_a_login_without_rights_stop_nobody() {
    let name = "strangers_locks";
    let url = empty_database(name).await;
    let stranger = stranger(name).await;
    execute(&stranger, EVERY_FORMER_KEY).await;
    let fixture = Fixture {
        database_url: url,
        brokers: kafka().brokers().to_owned(),
        name: name.to_owned(),
        capture: Default::default(),
    };
    command(&fixture, &["migrate", "up", "--buckets", "8"]);
    let client = fixture.client().await;
    execute(
        &client,
        "select postrider.emit('order', n::text, 'T', '{}') from generate_series(1, 50) n",
    )
    .await;
    let first = RelayProcess::start(&fixture, &[]);
    wait_for_shares(&client, &[8]).await;
    command(&fixture, &["capture", "switch", "wal"]);
    first.wait_until_it_says("reading the log").await;
    let second = RelayProcess::start(&fixture, &[]);
    second.wait_until_it_says("standing by").await;
    first.kill();
    second.wait_until_it_says("reading the log").await;
    fixture.wait_published().await;
    command(&fixture, &["capture", "switch", "poll"]);
    second.stop_well().await;
    drop(stranger);
}

/// Whoever reads the log keeps no vacuum from removing rows; whoever keeps it from reading is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_no_instance_and_keeps_the_lock_is_told() {
    mostly_waits();
    let fixture = Fixture::new("strangers_holder").await;
    let (keeper, client) = (fixture.client().await, fixture.client().await);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let holders = "select count(*) from pg_locks join pg_stat_activity using (pid)
        where relation = 'postrider.log_reader'::regclass";
    let looked = format!("{holders} and query like '%how events are read%'");
    let held_lightly = format!("{looked} and backend_xmin is null and backend_xid is null");
    // It has a snapshot while it looks whether the capture mode was changed, and none behind that.
    for (what, seen) in [("it looked", looked), ("no number and no snapshot", held_lightly)] {
        let patience = Patience::until(what);
        while client.query_one(&seen, &[]).await.expect("it answers").get::<_, i64>(0) == 0 {
            patience.pause().await;
        }
    }
    relay.stop_well().await;
    execute(&keeper, "begin; lock table postrider.log_reader in share mode").await;
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("a session that is no instance keeps the lock").await;
    assert!(relay.said().contains("\"pid\":"), "{}", relay.said());
    execute(&keeper, "rollback").await;
    relay.wait_until_it_says("reading the log").await;
    relay.stop_well().await;
}

/// A clock that was set back leaves renewals in the future behind: the dead instance's session decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_in_the_future_is_no_lease() {
    let fixture = Fixture::new("strangers_future").await;
    let client = fixture.client().await;
    let mut lives = RelayProcess::start(&fixture, &[]);
    for future in [
        "renewed_at = renewed_at + interval '10 min', lease_until = lease_until + interval '10 min'",
        "lease_until = 'infinity'",
        "renewed_at = 'infinity', lease_until = 'infinity'",
    ] {
        wait_for_shares(&client, &[8]).await;
        lives.kill();
        execute(&client, &format!("update postrider.instance set {future}")).await;
        let begin = Instant::now();
        lives = RelayProcess::start(&fixture, &[]);
        loop {
            let sql = "select count(*) from postrider.cursor c join postrider.instance i on i.name = c.owner
                where i.renewed_at <= clock_timestamp() and i.lease_until < clock_timestamp() + interval '1 min'";
            let taken: i64 = client.query_one(sql, &[]).await.expect("it answers").get(0);
            if taken == 8 {
                break;
            }
            let said = lives.said();
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{future}: {taken} of 8 are taken:\n{said}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        command(&fixture, &["status"]);
        execute(&client, "delete from postrider.instance where lease_until > clock_timestamp() + interval '1 min'").await;
    }
    lives.stop_well().await;
}

/// Who made the schema first could change what is in it under a superuser's session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_a_stranger_is_not_filled() {
    let name = "strangers_schema";
    let url = empty_database(name).await;
    let client = connect(&url).await;
    execute(&client, "create role strangers_schema_owner; create schema postrider authorization strangers_schema_owner").await;
    let migrate = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"));
        let output =
            command.args(["migrate"]).args(arguments).env("POSTRIDER_DATABASE_URL", &url).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), output.stdout)
    };
    let (code, said, _) = migrate(&["up"]);
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("the schema postrider belongs to strangers_schema_owner"), "{said}");
    let (.., printed) = migrate(&["print"]);
    let printed = String::from_utf8(printed).expect("SQL is text");
    let error = client.batch_execute(&printed).await.expect_err("so does the printed form");
    assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}");
    execute(&client, "alter schema postrider owner to current_user").await;
    execute(&client, "create table postrider.trap (); alter table postrider.trap owner to strangers_schema_owner").await;
    let (code, said, _) = migrate(&["up"]);
    assert!(code == Some(6) && said.contains("postrider.trap belongs to"), "{code:?}: {said}");
    execute(&client, "drop table postrider.trap").await;
    assert_eq!(migrate(&["up"]).0, Some(0));
    // A role that may act for the owner may go on.
    execute(&client, "grant strangers_schema_owner to current_user; alter table postrider.migration owner to strangers_schema_owner").await;
    assert_eq!(migrate(&["up"]).0, Some(0));
}

/// What everybody may write into the log is an event in capture message: that is told before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_messages_are_told_or_bounded() {
    let fixture = Fixture::new("strangers_messages").await;
    let client = fixture.client().await;
    let switch = |expected: bool| {
        let output = fixture
            .command()
            .args(["capture", "switch", "message", "--dry-run"])
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            said.contains("every login of this database may write messages"),
            expected,
            "{said}"
        );
    };
    switch(true);
    execute(&client, include_str!("../../sql/roles.sql")).await;
    switch(false);
    execute(&client, "update postrider.capture set mode = 'message'").await;
    let message = "select pg_logical_emit_message(true, 'postrider.outbox',
        postrider.event_message('order', '1', 'T', '{}'::bytea))";
    execute(&client, "set role postrider_writer").await;
    execute(&client, message).await;
    execute(&client, "select postrider.emit('order', '1', 'T', '{}')").await;
    execute(
        &client,
        "reset role; create role strangers_messages_login; set role strangers_messages_login",
    )
    .await;
    let error = client.batch_execute(message).await.expect_err("it has no right");
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
}

/// Whatever time a row claims for itself, published rows give their space back; and no warning says that they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_in_the_future_keep_no_leaf() {
    let fixture = quick_ring("retention_future").await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--replay-window", "1s"]);
    for time in ["now() + interval '9 hours'", "'infinity'", "'-infinity'"] {
        let sql = format!(
            "insert into outbox (aggregatetype, aggregateid, type, created_at)
            select 'place', n::text, 'T', {time} from generate_series(1, 8) n"
        );
        client.batch_execute(&sql).await.expect("the time is the writer's to give");
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    wait_until_empty(&fixture, &relay).await;
    relay.wait_until_it_says("lies ahead of the clock").await;
    assert!(!relay.said().contains("not published"), "{}", relay.said());
    assert!(relay.stop().await.success());
}

/// SQL that people are handed runs as whoever runs it: what a stranger has put into the search path does not. Each
/// database may have groups of its own, as roles belong to all of a server's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_that_people_run_calls_nothing_of_a_stranger_and_names_its_groups() {
    let fixture = Fixture::new("strangers_handed_sql").await;
    let client = fixture.client().await;
    for arguments in ["text, text", "text, regclass", "text, name", "text, text, text"] {
        let trap = format!(
            "create function public.format({arguments}) returns text language plpgsql
            as $$ begin raise exception 'a stranger''s function ran'; end $$"
        );
        execute(&client, &trap).await;
    }
    let names = "set search_path = public, pg_catalog; set postrider.writer = 'Handed Writer';
        set postrider.relay = 'handed_relay'";
    execute(&client, names).await;
    for handed in [include_str!("../../sql/roles.sql"), include_str!("../../sql/reanchor.sql")] {
        execute(&client, handed).await;
        let path = client.query_one("show search_path", &[]).await.expect("it answers");
        assert_eq!(path.get::<_, &str>(0), "public, pg_catalog", "it is given back");
    }
    let rights = "select has_column_privilege('Handed Writer', 'outbox', 'id', 'insert'),
        has_table_privilege('handed_relay', 'postrider.cursor', 'update'),
        not exists (select from pg_roles where rolname in ('postrider_writer', 'postrider_relay')
            and has_any_column_privilege(rolname, 'outbox', 'insert, select'))";
    let row = client.query_one(rights, &[]).await.expect("it answers");
    for column in 0..3 {
        assert!(row.get::<_, bool>(column), "right {column}");
    }
    execute(&client, "set role \"Handed Writer\"; select postrider.emit('order', '1', 'T', '{}')")
        .await;
}

/// Default privileges reach into the schema postrider only as far as somebody grants again by hand, and that is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_privileges_give_nothing_in_the_schema_postrider() {
    let url = empty_database("strangers_defaults").await;
    let client = connect(&url).await;
    let presets = "create role strangers_defaults_app;
        alter default privileges grant select, insert, update, delete on tables to strangers_defaults_app;
        alter default privileges grant all on tables to public;
        alter default privileges grant create, usage on schemas to public, strangers_defaults_app";
    execute(&client, presets).await;
    let fixture = Fixture {
        database_url: url,
        brokers: kafka().brokers().to_owned(),
        name: "strangers_defaults".to_owned(),
        capture: Default::default(),
    };
    command(&fixture, &["migrate", "up", "--buckets", "2"]);
    let held = "select string_agg(distinct what || ': ' || granted.privilege_type, ', ')
        from pg_class as class
            cross join lateral (
                select relname::text as what, relacl as acl
                union all
                select relname || '.' || attname, attacl from pg_attribute where attrelid = class.oid
            ) as part
            cross join lateral aclexplode(part.acl) as granted
        where class.relnamespace = 'postrider'::regnamespace and granted.grantee <> class.relowner";
    let held: Option<String> = client.query_one(held, &[]).await.expect("it answers").get(0);
    let by_columns = ["changed_at", "changed_by", "mode", "singleton"];
    let emits = by_columns.map(|column| format!("capture.{column}: SELECT")).join(", ");
    let expected = format!("{emits}, health: SELECT");
    assert_eq!(held, Some(expected), "what emit and who monitors read, and no more");
    let may = "select has_schema_privilege('strangers_defaults_app', 'postrider', 'create'),
        has_schema_privilege('strangers_defaults_app', 'postrider', 'usage')";
    let may = client.query_one(may, &[]).await.expect("it answers");
    assert_eq!((may.get(0), may.get(1)), (false, true), "create, usage");
    let check = || {
        let output = fixture.command().arg("check").output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!check().contains("neither a writer nor a relay needs"), "{}", check());
    let by_hand = "grant update, trigger on postrider.cursor to strangers_defaults_app;
        grant create on schema postrider to public";
    execute(&client, by_hand).await;
    command(&fixture, &["migrate", "up"]);
    let said = check();
    for taken_back in [
        "revoke trigger, update on postrider.cursor from strangers_defaults_app",
        "revoke create on schema postrider from PUBLIC",
    ] {
        assert!(said.contains(taken_back), "{taken_back}: {said}");
        execute(&client, taken_back).await;
    }
    execute(&client, include_str!("../../sql/roles.sql")).await;
    assert!(!check().contains("neither a writer nor a relay needs"), "{}", check());
    let presets =
        "alter default privileges revoke all on tables from public, strangers_defaults_app;
        alter default privileges revoke all on schemas from public, strangers_defaults_app;
        alter default privileges grant insert on tables to public";
    execute(&client, presets).await;
}

/// A session's name is anybody's: who holds no lease and saves no cursor is asked to be given nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_calls_itself_a_relay_dictates_no_advice() {
    let fixture = Fixture::new("strangers_named").await;
    let pretender = stranger(&fixture.name).await;
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_shares(&fixture.client().await, &[8]).await;
    for name in ["postrider cursors", "postrider reader"] {
        execute(&pretender, &format!("set application_name = '{name}'")).await;
        command(&fixture, &["capture", "switch", "wal"]);
        command(&fixture, &["capture", "switch", "poll"]);
    }
    relay.stop_well().await;
    let owner = legacy_outbox(&fixture).await;
    execute(&pretender, "set application_name = 'postrider lease'").await;
    let said = adopt(&fixture, ADOPT);
    assert!(!said.contains(&fixture.name), "{said}");
    // With the rights of a relay it is one, and is named.
    let grant = format!("grant insert, update on postrider.instance to {}", fixture.name);
    adopt(&fixture, END);
    execute(&owner, &grant).await;
    let said = adopt(&fixture, ADOPT);
    assert!(said.contains(&fixture.name), "{said}");
}
