//! What a role, a database or a server sets for its sessions: pinned in ours, or known to be harmless.
//!
//! The list is the server's own, so a setting that a later server adds is found here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::postgres::{Connection, DatabaseConfig, connect, connect_walsender};
use tokio_postgres::Client;

use crate::connection::with_user;
use crate::support::consumer::read_topic;
use crate::support::fixture::empty_database;
use crate::support::{Fixture, RelayProcess, mostly_waits};

/// Settings that reach our sessions, by the beginnings of their names, and why they cannot matter.
const HARMLESS: &[(&[&str], &str)] = &[
    (
        &["log_", "debug_", "trace_", "track_", "jit_", "compute_query_id", "backtrace_functions"],
        "what the server writes and counts about itself; jit is off",
    ),
    (
        &[
            "update_process_title",
            "stats_fetch_consistency",
            "escape_string_warning",
            "md5_password_warnings",
        ],
        "what others see, and warnings that nobody reads",
    ),
    (
        &[
            "cpu_",
            "seq_page_cost",
            "random_page_cost",
            "parallel_setup_cost",
            "parallel_tuple_cost",
            "cursor_tuple_fraction",
            "effective_",
            "from_collapse_limit",
            "join_collapse_limit",
            "geqo",
            "recursive_worktable_factor",
            "default_statistics_target",
            "min_parallel_",
            "max_parallel_",
            "parallel_leader_participation",
            "force_parallel_mode",
        ],
        "what the owner knows of the machine; no query of ours joins more than a few tables, and none is parallel",
    ),
    (
        &[
            "hash_mem_multiplier",
            "maintenance_",
            "logical_decoding_work_mem",
            "temp_",
            "max_stack_depth",
            "gin_",
            "backend_flush_after",
            "io_",
            "file_copy_method",
            "synchronize_seqscans",
        ],
        "how much of the machine a session may use",
    ),
    (
        &[
            "vacuum_",
            "commit_",
            "wal_compression",
            "wal_consistency_checking",
            "wal_init_zero",
            "wal_recycle",
            "wal_skip_threshold",
            "deadlock_timeout",
        ],
        "how the server keeps house; what is committed is durable all the same, and a deadlock only found sooner",
    ),
    (
        &[
            "default_tablespace",
            "default_toast_compression",
            "lo_compat_privileges",
            "createrole_self_grant",
        ],
        "where and how the owner keeps the tables that migrate up makes",
    ),
    (
        &[
            "default_text_search_config",
            "timezone_abbreviations",
            "icu_validation_level",
            "password_encryption",
            "scram_iterations",
            "check_function_bodies",
        ],
        "of what no statement of ours has: text search, times in words, passwords",
    ),
    (
        &[
            "local_preload_libraries",
            "session_preload_libraries",
            "dynamic_library_path",
            "extension_",
            "lc_messages",
            "post_auth_delay",
            "ignore_system_indexes",
        ],
        "cannot be taken back by a session, or not without a superuser's right: libraries of the owner's choice, \
         the language of errors, which are told by SQLSTATE, slow ways of beginning and looking up",
    ),
    (
        &[
            "allow_",
            "zero_damaged_pages",
            "ignore_checksum_failure",
            "session_replication_role",
            "event_triggers",
        ],
        "a superuser's, set by hand to repair a server; our tables have no triggers that a relay's session fires",
    ),
    (
        &["transaction_isolation", "transaction_read_only", "transaction_deferrable"],
        "of one transaction; the defaults of all are pinned",
    ),
];

/// Other values for settings that are neither numbers nor one of several words.
const OTHER_TEXTS: &[(&str, &str)] = &[
    ("DateStyle", "German, DMY"),
    ("TimeZone", "Asia/Tokyo"),
    ("client_encoding", "LATIN1"),
    ("application_name", "somebody"),
    ("search_path", "public"),
    ("restrict_nonsystem_relation_kind", "view"),
    ("default_table_access_method", "other_access"),
    ("lc_monetary", "POSIX"),
    ("lc_numeric", "POSIX"),
    ("lc_time", "POSIX"),
];

struct Setting {
    name: String,
    kind: String,
    value: String,
    lowest: Option<f64>,
    highest: Option<f64>,
    words: Vec<String>,
}

impl Setting {
    fn is_harmless(&self) -> bool {
        HARMLESS.iter().flat_map(|(names, _)| *names).any(|name| self.name.starts_with(name))
    }

    /// A value that is not the present one; the shortest for a time.
    fn other(&self) -> String {
        match self.kind.as_str() {
            "bool" => if self.value == "on" { "off" } else { "on" }.to_owned(),
            "enum" => self.words.iter().find(|word| **word != self.value).unwrap().clone(),
            "integer" | "real" => {
                let (lowest, highest) = (self.lowest.unwrap(), self.highest.unwrap());
                let present: f64 = self.value.parse().unwrap();
                let near = if lowest <= 0.0 { 1.0 } else { lowest };
                let other = if near == present { near + 1.0 } else { near };
                other.min(highest).to_string()
            }
            _ => {
                let known = OTHER_TEXTS.iter().find(|(name, _)| *name == self.name);
                let (_, text) = known.unwrap_or_else(|| {
                    panic!(
                        "{} is new: pin it in session.sql, or say why it cannot matter",
                        self.name
                    )
                });
                (*text).to_owned()
            }
        }
    }
}

/// All that a role or a database can set, as the server lists it.
async fn listed(client: &Client) -> Vec<Setting> {
    let list = "select name, vartype, setting, min_val::float8, max_val::float8, enumvals
                from pg_settings
                where context in ('user', 'superuser', 'backend', 'superuser-backend')
                    and name not like '%.%'";
    let rows = client.query(list, &[]).await.unwrap();
    let setting = |row: &tokio_postgres::Row| Setting {
        name: row.get(0),
        kind: row.get(1),
        value: row.get(2),
        lowest: row.get(3),
        highest: row.get(4),
        words: row.get::<_, Option<_>>(5).unwrap_or_default(),
    };
    rows.iter().map(setting).collect()
}

async fn session(url: &str) -> Connection {
    connect(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap()
}

const VALUES: &str = "select name, setting from pg_settings
    where context in ('user', 'superuser', 'backend', 'superuser-backend') and name not like '%.%'";

/// What the two kinds of session go by.
async fn values(url: &str) -> [BTreeMap<String, String>; 2] {
    let rows = session(url).await.client().query(VALUES, &[]).await.unwrap();
    let ours = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let database = DatabaseConfig::parse(url).unwrap();
    let mut replication = connect_walsender(&database, "test").await.unwrap();
    let rows = replication.query(VALUES).await.unwrap();
    let pair = |row: Vec<Option<String>>| {
        let mut row = row.into_iter().map(Option::unwrap_or_default);
        (row.next().unwrap(), row.next().unwrap())
    };
    [ours, rows.into_iter().map(pair).collect()]
}

/// Whatever is not known to be harmless is set to another value for the database, all of it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_is_pinned_or_known_to_be_harmless() {
    let url = &empty_database("every_setting_is_pinned_or_known_to_be_harmless").await;
    let before = values(url).await;
    let plain = crate::support::fixture::connect(url).await;
    let other_access = "create access method other_access type table handler heap_tableam_handler";
    plain.batch_execute(other_access).await.unwrap();
    for setting in listed(&plain).await.iter().filter(|setting| !setting.is_harmless()) {
        let set = "select format('alter database %I set %I = %s', current_database(), $1::text,
            case when $1 in ('DateStyle', 'search_path') then $2::text else quote_literal($2) end)";
        let set: String =
            plain.query_one(set, &[&setting.name, &setting.other()]).await.unwrap().get(0);
        plain.batch_execute(&set).await.unwrap_or_else(|error| panic!("{set}: {error:?}"));
    }
    for (before, after) in before.iter().zip(values(url).await) {
        let changed: Vec<String> = after
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(*value))
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        // How long the server waits for a reader is the owner's to say, but for times too short.
        assert!(changed.iter().all(|text| text == "wal_sender_timeout = 3000"), "{changed:?}");
    }
}

/// Each time that ends something, as short as the server takes it, set before the session begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_time_is_too_short_to_begin_a_session() {
    let url = &empty_database("no_time_is_too_short_to_begin_a_session").await;
    let plain = crate::support::fixture::connect(url).await;
    let set = "do $$ declare name text; begin
        for name in select pg_settings.name from pg_settings
            where pg_settings.name ~ '(statement|lock|session)_timeout$' and context = 'user'
        loop
            execute format('alter database %I set %I = 1', current_database(), name);
        end loop;
    end $$";
    plain.batch_execute(set).await.unwrap();
    for _ in 0..5 {
        let session = session(url).await;
        session.client().query("select pg_sleep(0.05)", &[]).await.unwrap();
        let database = DatabaseConfig::parse(url).unwrap();
        let mut replication = connect_walsender(&database, "test").await.unwrap();
        replication.query("select pg_sleep(0.05)").await.unwrap();
    }
    drop(plain);
}

/// Makes a login that may relay, with the settings of a careful administrator.
async fn make_login(fixture: &Fixture, settings: &[&str]) -> Fixture {
    let role = format!("{}_login", fixture.name);
    let client = fixture.client().await;
    client.batch_execute(include_str!("../../sql/roles.sql")).await.unwrap();
    let make =
        format!("create role {role} login replication password 'right' in role postrider_relay");
    client.batch_execute(&make).await.unwrap();
    for setting in settings {
        client.batch_execute(&format!("alter role {role} set {setting}")).await.unwrap();
    }
    Fixture { database_url: with_user(&fixture.database_url, &role, "right"), ..fixture.clone() }
}

const INSERT: &str = "insert into outbox (aggregatetype, aggregateid, type, payload)
    select 'order', (g % 5)::text, 'T', '{}' from generate_series(1, 10) as g";

/// Idle sessions live on; nothing is said and nothing comes twice, in either way of reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hurried_role_relays_in_peace() {
    mostly_waits();
    let fixture = Fixture::new("a_hurried_role_relays_in_peace").await;
    let client = fixture.client().await;
    let hurry = format!("alter database {} set idle_session_timeout = '500ms'", fixture.name);
    client.batch_execute(&hurry).await.unwrap();
    let hurries = [
        "idle_in_transaction_session_timeout = '100ms'",
        "statement_timeout = '200ms'",
        "lock_timeout = '100ms'",
        "wal_sender_timeout = '200ms'",
        "tcp_user_timeout = '1ms'",
        "exit_on_error = on",
        "datestyle = 'German'",
        "default_transaction_read_only = on",
        // The first statement of a session must not need more than this, nor room on disk.
        "work_mem = '64kB'",
        "temp_file_limit = 0",
    ];
    let relay_fixture = make_login(&fixture, &hurries).await;
    let relay = RelayProcess::start(&relay_fixture, &["--shards", "2"]);
    for (mode, expected) in [("poll", 40), ("wal", 80)] {
        switch(&fixture, mode);
        relay.wait_until_it_says("relaying").await;
        for _ in 0..4 {
            client.batch_execute(INSERT).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        }
        fixture.wait_published().await;
        let published = read_topic(&fixture.brokers, &fixture.topic("order")).len();
        assert_eq!(published, expected, "{mode}: {}", relay.said());
    }
    let said = relay.said();
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    relay.stop_well().await;
}

/// While a relay runs, which follows.
fn switch(fixture: &Fixture, mode: &str) {
    let done = fixture.command().args(["capture", "switch", mode]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// A login that works as a role of its own choice (as Vault makes them) reads the log and gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_with_a_role_of_its_own_reads_the_log_and_leaves_it() {
    let fixture = Fixture::new("a_login_with_a_role_of_its_own").await;
    let relay_fixture = make_login(&fixture, &["role = 'postrider_relay'"]).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&relay_fixture, &["--shards", "1"]);
    relay.wait_until_it_says("relaying").await;
    switch(&fixture, "wal");
    client.batch_execute(INSERT).await.unwrap();
    fixture.wait_published().await;
    switch(&relay_fixture, "poll");
    client.batch_execute(INSERT).await.unwrap();
    fixture.wait_published().await;
    assert!(!relay.said().contains("42501"), "{}", relay.said());
    relay.stop_well().await;
    let slots = "select count(*) from pg_replication_slots where database = $1";
    let slots: i64 = client.query_one(slots, &[&fixture.name]).await.unwrap().get(0);
    assert_eq!(slots, 0, "the slot is dropped by the login, whose right it is");
}

/// Where an administrator has taken from all what functions are given to all by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_emits_where_default_privileges_are_hardened() {
    let name = "a_writer_emits_hardened";
    let url = crate::support::fixture::empty_database(name).await;
    let client = crate::support::fixture::connect(&url).await;
    let harden = "alter default privileges revoke execute on functions from public";
    client.batch_execute(harden).await.unwrap();
    let mut migrate = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"));
    let done = migrate.args(["migrate", "up"]).env("POSTRIDER_DATABASE_URL", &url).output();
    assert!(done.as_ref().unwrap().status.success(), "{done:?}");
    // The default is this role's in this database only, which ends with the test.
    client.batch_execute(include_str!("../../sql/roles.sql")).await.unwrap();
    let emit = "select postrider.emit('order', '1', 'T', '{}')";
    for mode in ["poll", "message"] {
        let switch = format!("reset role; update postrider.capture set mode = '{mode}'");
        client.batch_execute(&switch).await.unwrap();
        client.batch_execute("set role postrider_writer").await.unwrap();
        client.batch_execute(emit).await.unwrap_or_else(|error| panic!("{mode}: {error:?}"));
    }
    let message = "select postrider.event_message('order', '1', 'T', '{}'::bytea)";
    client.batch_execute(message).await.unwrap();
}
