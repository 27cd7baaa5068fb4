//! Sessions: ours whatever the defaults are, and refusals that say what to do.
//!
//! Every function takes the URL of an empty database, as a superuser.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use postrider::error::{Error, ErrorKind};
use postrider::postgres::{Connection, DatabaseConfig, classify, connect, lock_holder};

use crate::support::Patience;
use crate::support::fixture::empty_database;

async fn session(url: &str) -> Connection {
    connect(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap()
}

async fn refusal(url: &str) -> Error {
    connect(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap_err()
}

fn assert_says(error: &Error, kind: ErrorKind, cause: &str, remedy: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(cause), "{cause} in {error}");
    assert!(error.remedy().is_some_and(|said| said.contains(remedy)), "{remedy} in {error}");
}

/// The URL with another user and password.
pub(crate) fn with_user(url: &str, user: &str, password: &str) -> String {
    let (_, server) = url.split_once('@').unwrap();
    format!("postgres://{user}:{password}@{server}")
}

/// What a database sets for its sessions does not reach ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_settings_hold_against_all_defaults() {
    let url = &empty_database("our_settings_hold_against_all_defaults").await;
    let defaults = "
        do $$ declare assignment text; begin
            foreach assignment in array array[
                'default_transaction_isolation = serializable', 'row_security = on', 'jit = on',
                'default_transaction_read_only = on', 'statement_timeout = 1000',
                'lock_timeout = 1000', 'idle_in_transaction_session_timeout = 1000',
                'synchronous_commit = off', 'search_path = public', 'client_min_messages = debug1',
                'plan_cache_mode = auto', 'max_parallel_workers_per_gather = 4'
            ] loop
                execute format('alter database %I set %s', current_database(), assignment);
            end loop;
        end $$";
    session(url).await.client().batch_execute(defaults).await.unwrap();
    let connection = session(url).await;
    let settings = "
        select string_agg(setting, ' ' order by ordinality) from unnest(array[
            'default_transaction_isolation', 'row_security', 'jit',
            'default_transaction_read_only', 'statement_timeout', 'lock_timeout',
            'idle_in_transaction_session_timeout', 'synchronous_commit', 'search_path',
            'client_min_messages', 'plan_cache_mode', 'max_parallel_workers_per_gather',
            'application_name'
        ]) with ordinality as wanted (name) join pg_settings using (name)";
    let found: String = connection.client().query_one(settings, &[]).await.unwrap().get(0);
    let expected = "read committed off off off 0 0 0 on pg_catalog warning force_generic_plan 0 \
                    postrider test";
    assert_eq!(found, expected);
}

/// An intermediary that drops startup options is not PostgreSQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swallowed_mark_tells_a_pooler() {
    let url = &empty_database("a_swallowed_mark_tells_a_pooler").await;
    let connection = session(url).await;
    let mark = "select current_setting('postrider.direct', true)";
    let found: Option<String> = connection.client().query_one(mark, &[]).await.unwrap().get(0);
    assert_eq!(found.as_deref(), Some("on"));
    let error = refusal(&dropping_proxy(url).await).await;
    assert_says(&error, ErrorKind::PostgresRefused, "pooler", "connect to PostgreSQL itself");
}

/// A proxy that overwrites the mark in the startup message, as a pooler would leave it out.
pub(crate) async fn dropping_proxy(url: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (head, tail) = url.split_once('@').unwrap();
    let (server, database) = tail.split_once('/').unwrap();
    let database = database.split('?').next().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = server.to_owned();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut upstream = tokio::net::TcpStream::connect(server).await.unwrap();
        let length = client.read_u32().await.unwrap();
        let mut startup = vec![0; length as usize - 4];
        client.read_exact(&mut startup).await.unwrap();
        let mark = b"postrider.direct=on";
        let place = startup.windows(mark.len()).position(|window| window == mark).unwrap();
        startup[place..place + mark.len()].copy_from_slice(b"postrider.absent=on");
        upstream.write_u32(length).await.unwrap();
        upstream.write_all(&startup).await.unwrap();
        // Ends when either side hangs up.
        drop(tokio::io::copy_bidirectional(&mut client, &mut upstream).await);
    });
    format!("{head}@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// Wrong password, database, user, and too few connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_do() {
    let url = &empty_database("refusals_say_what_to_do").await;
    let refused = ErrorKind::PostgresRefused;
    let admin = session(url).await;
    let name: String =
        admin.client().query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let role = format!("{name}_role");
    let make = format!(
        "drop role if exists {role}; create role {role} login password 'right' connection limit 1"
    );
    admin.client().batch_execute(&make).await.unwrap();

    let wrong = with_user(url, &role, "wrong");
    assert_says(&refusal(&wrong).await, refused, "28P01", "PGPASSWORD");
    let missing = url.replace(&format!("/{name}"), "/no_such_database");
    assert_says(&refusal(&missing).await, refused, "3D000", "create the database");

    let right = with_user(url, &role, "right");
    let only = session(&right).await;
    assert_says(&refusal(&right).await, ErrorKind::PostgresUnavailable, "53300", "limit");
    let forbidden = only.client().batch_execute("create schema mine").await.unwrap_err();
    assert_says(&classify("make it", forbidden), refused, "cannot make it:", "sql/roles.sql");
    let unknown = only.client().batch_execute("select * from postrider.cursor").await.unwrap_err();
    assert_says(&classify("read", unknown), ErrorKind::Schema, "42P01", "migrate up");

    drop(only);
    let drop_role = format!("drop role {role}");
    admin.client().batch_execute(&drop_role).await.unwrap();
}

/// A session that was ended by hand is told from an error that stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_is_told() {
    let url = &empty_database("a_lost_session_is_told").await;
    let victim = session(url).await;
    let number: i32 =
        victim.client().query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let sleep = tokio::spawn(async move {
        victim.client().batch_execute("select pg_sleep(60)").await.unwrap_err()
    });
    let admin = session(url).await;
    let running = "select from pg_stat_activity where pid = $1 and state = 'active'";
    let patience = Patience::until("the session sleeps");
    while admin.client().query(running, &[&number]).await.unwrap().is_empty() {
        patience.pause().await;
    }
    admin.client().query("select pg_terminate_backend($1)", &[&number]).await.unwrap();
    let error = classify("sleep", sleep.await.unwrap());
    assert_says(&error, ErrorKind::PostgresUnavailable, "57P01", "stopped");
}

/// GIVEN a session that waits for a lock behind one that waits itself, WHEN it is looked, THEN the head of the queue is
/// named; and WHEN the session is dropped, THEN its backend does not wait on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_session_leaves_no_backend_behind_a_lock() {
    let url = &empty_database("a_dropped_session_leaves_no_backend_behind_a_lock").await;
    let database = DatabaseConfig::parse(url).unwrap();
    let (holder, admin) = (session(url).await, session(url).await);
    for sql in ["create sequence public.numbers", "begin", "select nextval('public.numbers')"] {
        holder.client().batch_execute(sql).await.unwrap();
    }
    assert_eq!(lock_holder(&database).await, None, "nobody waits");
    let pid: i32 = holder.client().query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let ends_by = |url: String, sql: &'static str| {
        tokio::spawn(async move { session(&url).await.client().batch_execute(sql).await })
    };
    let waiting =
        "select from pg_locks where not granted and relation = 'public.numbers'::regclass";
    let count = async || admin.client().query(waiting, &[]).await.unwrap().len();
    let between = ends_by(url.clone(), "alter sequence public.numbers cache 1");
    let patience = Patience::until("one waits");
    while count().await < 1 {
        patience.pause().await;
    }
    let last = ends_by(url.clone(), "select nextval('public.numbers')");
    let patience = Patience::until("it is named");
    let found = loop {
        match lock_holder(&database).await {
            Some(found) if count().await == 2 => break found,
            _ => patience.pause().await,
        }
    };
    assert_eq!(found.relation.as_deref(), Some("public.numbers"));
    assert_eq!(found.session.map(|session| session.pid), Some(pid));
    between.abort();
    last.abort();
    let patience = Patience::until("nobody waits any more");
    while count().await > 0 {
        patience.pause().await;
    }
}

/// Row security would hide rows: the session gets an error instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_rows_are_an_error() {
    let url = &empty_database("hidden_rows_are_an_error").await;
    let admin = session(url).await;
    let name: String =
        admin.client().query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let role = format!("{name}_role");
    let make = format!(
        "drop role if exists {role}; create role {role} login password 'right';
         create table public.secret (id int); alter table public.secret enable row level security;
         grant select on public.secret to {role}"
    );
    admin.client().batch_execute(&make).await.unwrap();
    let reader = session(&with_user(url, &role, "right")).await;
    let error = reader.client().batch_execute("select * from public.secret").await.unwrap_err();
    let error = classify("read", error);
    assert_says(&error, ErrorKind::PostgresRefused, "row-level security", "BYPASSRLS");
    drop(reader);
    let undo = format!("drop table public.secret; drop role {role}");
    admin.client().batch_execute(&undo).await.unwrap();
}
