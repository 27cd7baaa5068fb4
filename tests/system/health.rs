//! Whether an instance says that it is well, and when it says that it is not.

use std::time::{Duration, Instant};

use postrider_testkit::servers::KafkaOptions;

use crate::admin::{address, get, wait_for};
use crate::support::servers::postgres;
use crate::support::{Fixture, Mode, Patience, Proxy, RelayProcess, mostly_waits, start_kafka};

/// `postrider health`, for the instance that answers there.
fn health(fixture: &Fixture, address: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = fixture.command();
    let url = format!("http://{address}");
    command.env_remove("POSTRIDER_ADMIN_LISTEN").args(["health", "--url", &url]).args(arguments);
    let output = command.output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// GIVEN an idle relay that is well, WHEN PostgreSQL gives no answer any more, THEN it is not ready, and alive; and
/// well again when PostgreSQL is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_gives_no_answer() {
    let fixture = Fixture::new("health_frozen").await;
    let proxy = Proxy::new();
    proxy.lead_to(postgres().port());
    let arguments = ["--admin-listen", "127.0.0.1:0", "--shards", "2"];
    let relay = RelayProcess::start(&fixture.through(&proxy), &arguments);
    let address = address(&relay).await;
    wait_for(&address, "/readyz?verbose", "readyz check passed").await;
    let (code, said) = health(&fixture, &address, &["--ready"]);
    assert!(code == Some(0) && said.contains("[+]postgres ok\n"), "{code:?} {said}");
    proxy.set(Mode::Stall);
    wait_for(&address, "/readyz", "HTTP/1.1 503").await;
    wait_for(&address, "/readyz", "[-]postgres no session for").await;
    let (code, said) = health(&fixture, &address, &["--ready"]);
    assert!(code == Some(1) && said.contains("readyz check failed"), "{code:?} {said}");
    let (code, said) = health(&fixture, &address, &[]);
    assert!(code == Some(0) && said.contains("[+]runtime ok\n"), "{code:?} {said}");
    assert!(get(&address, "/metrics").contains("\npostrider_lease_lost_total 1\n"));
    proxy.set(Mode::Pass);
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    relay.stop_well().await;
    let (code, said) = health(&fixture, &address, &[]);
    assert!(code == Some(1) && said.contains("gives no answer"), "{code:?} {said}");
}

/// GIVEN two instances that deliver exactly once and have nothing to do, WHEN one dies while Kafka gives no answer, THEN the
/// other one, whose shard asks Kafka for what was committed, is not ready; nor when it begins a new session, and asks for
/// its id; and well again when Kafka is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_gives_no_answer_to_a_shard_that_begins() {
    mostly_waits();
    // Later the question itself fails, and that is told in another way.
    const ASKED: Duration = Duration::from_secs(25);
    // What was seen of the session before is gone by then.
    const LOOKED_AT: Duration = Duration::from_secs(3);
    let kafka = start_kafka(KafkaOptions::default());
    let fixture = Fixture::new("health_begin").await.with_brokers(kafka.brokers().to_owned());
    fixture.deliver_exactly_once();
    let arguments = ["--admin-listen", "127.0.0.1:0", "--shards", "1"];
    let [one, other] = [(), ()].map(|()| RelayProcess::start(&fixture, &arguments));
    let address = address(&other).await;
    one.wait_until_it_says("relaying").await;
    wait_for(&address, "/readyz?verbose", "readyz check passed").await;
    let switch = ["delivery", "switch", "exactly-once"];
    let switched = fixture.command().args(switch).output().expect("the binary runs");
    assert!(switched.status.success(), "{switched:?}");
    kafka.freeze().expect("it is ours to freeze");
    let silent = Instant::now();
    one.kill();
    wait_for(&address, "/readyz?verbose", "[-]shards ").await;
    assert!(silent.elapsed() < ASKED, "it took {:?}", silent.elapsed());
    assert!(get(&address, "/readyz").contains("HTTP/1.1 503"));
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like 'postrider%'";
    fixture.client().await.batch_execute(cut).await.expect("the superuser may");
    let patience = Patience::until("it has a session again");
    while other.said().matches("\"relaying\"").count() < 2 {
        patience.pause().await;
    }
    let anew = Instant::now();
    tokio::time::sleep(LOOKED_AT).await;
    wait_for(&address, "/readyz?verbose", "[-]shards ").await;
    assert!(anew.elapsed() < ASKED, "it took {:?}", anew.elapsed());
    kafka.thaw().expect("it is ours to thaw");
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    other.stop_well().await;
}

/// GIVEN a relay that renews its lease, WHEN somebody locks the outbox, THEN events wait, and it says so and behind
/// whom; so does who asks for the status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_that_somebody_locks() {
    const GONE: &str = "PostgreSQL answers again: the lock is gone";
    mostly_waits();
    // It is looked each 2 s whether the lock is gone.
    const LOOKED_AGAIN: Duration = Duration::from_secs(3);
    let fixture = Fixture::new("health_locked").await;
    let locker = fixture.client().await;
    let arguments = ["--admin-listen", "127.0.0.1:0", "--shards", "1"];
    let relay = RelayProcess::start(&fixture, &arguments);
    let address = address(&relay).await;
    wait_for(&address, "/readyz?verbose", "readyz check passed").await;
    let emit = "select postrider.emit('order', 'a' || n, 'T', '{}') from generate_series(1, 40) n";
    let lock = format!("begin; {emit}; lock table outbox in access exclusive mode");
    locker.batch_execute(&lock).await.expect("nobody else has a lock for long");
    wait_for(&address, "/readyz", "HTTP/1.1 503").await;
    let said = get(&address, "/readyz?verbose");
    assert!(said.contains("[+]lease ") && said.contains("[+]kafka ok"), "{said}");
    let backend = "select pg_backend_pid(), session_user::text";
    let row = locker.query_one(backend, &[]).await.expect("it answers");
    let (pid, role) = (row.get::<_, i32>(0), row.get::<_, String>(1));
    let behind = format!("behind session {pid} of role {role}");
    wait_for(&address, "/readyz", &behind).await;
    wait_for(&address, "/metrics", "postrider_ready{check=\"postgres\"} 0\n").await;
    let status = fixture.command().arg("status").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&status.stderr);
    assert_eq!(status.status.code(), Some(4), "{said}");
    assert!(said.contains(&behind) && said.contains("pg_terminate_backend"), "{said}");
    locker.batch_execute("commit").await.expect("it was open");
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    wait_for(&address, "/metrics", "postrider_events_published_total{shard=\"0\"} 40\n").await;
    wait_for(&address, "/metrics", "postrider_ready{check=\"postgres\"} 1\n").await;
    relay.wait_until_it_says(GONE).await;
    // A lock that ends the session, too, is told until it is gone, and not before.
    let before = relay.said().matches(GONE).count();
    let lock = "begin; lock table postrider.cursor in access exclusive mode";
    locker.batch_execute(lock).await.expect("nobody else has a lock for long");
    wait_for(&address, "/readyz", &behind).await;
    wait_for(&address, "/readyz", "[-]postgres no session for").await;
    tokio::time::sleep(LOOKED_AGAIN).await;
    assert_eq!(relay.said().matches(GONE).count(), before, "{}", relay.said());
    locker.batch_execute("commit").await.expect("it was open");
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    relay.stop_well().await;
}

/// GIVEN a relay, WHEN somebody locks the parked events, THEN whatever waits behind one that is to be parked waits for
/// PostgreSQL: Kafka, which has acknowledged all, is not blamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_events_that_somebody_locks() {
    mostly_waits();
    // Kafka's silence would have been told by then.
    const TOLD: Duration = Duration::from_secs(12);
    let fixture = Fixture::new("health_parked").await;
    let locker = fixture.client().await;
    let arguments = ["--admin-listen", "127.0.0.1:0", "--shards", "1"];
    let relay = RelayProcess::start(&fixture, &arguments);
    let address = address(&relay).await;
    wait_for(&address, "/readyz?verbose", "readyz check passed").await;
    let lock = "begin; lock table postrider.parked in access exclusive mode";
    locker.batch_execute(lock).await.expect("nobody else has a lock for long");
    let emit = "select postrider.emit('order', 'bad', 'T', to_json(repeat('x', 2000000)));
        select postrider.emit('order', 'a' || n, 'T', '{}') from generate_series(1, 40) n";
    fixture.client().await.batch_execute(emit).await.expect("the outbox is free");
    tokio::time::sleep(TOLD).await;
    wait_for(&address, "/readyz", "HTTP/1.1 503").await;
    let said = get(&address, "/readyz?verbose");
    assert!(said.contains("[+]kafka ok"), "{said}");
    assert!(!relay.said().contains("Kafka acknowledges nothing"), "{}", relay.said());
    locker.batch_execute("commit").await.expect("it was open");
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    wait_for(&address, "/metrics", "postrider_events_published_total{shard=\"0\"} 40\n").await;
    relay.stop_well().await;
}

/// GIVEN a trigger that takes away what is written to the cursors, WHEN a relay gets no bucket by that, THEN it does not
/// say that nothing waits, nor that others have the buckets; `check` names the trigger; and it relays once that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_that_the_database_does_not_give() {
    let fixture = Fixture::new("health_untaken").await;
    let client = fixture.client().await;
    let set = "create function nothing() returns trigger language plpgsql as 'begin return null; end';
         create trigger away before update on postrider.cursor for each row execute function nothing()";
    client.batch_execute(set).await.expect("a superuser may");
    let arguments = ["--admin-listen", "127.0.0.1:0", "--shards", "1", "--lease-seconds", "2"];
    let relay = RelayProcess::start(&fixture, &arguments);
    let address = address(&relay).await;
    relay.wait_until_it_says("free buckets cannot be taken").await;
    wait_for(&address, "/readyz?verbose", "buckets are being taken").await;
    let said = relay.said();
    assert!(!said.contains("other instances have all buckets"), "{said}");
    let output = fixture.command().arg("check").output().expect("the binary runs");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(found.contains("run: drop trigger away on postrider.cursor"), "{found}");
    client.batch_execute("drop trigger away on postrider.cursor").await.expect("it is there");
    relay.wait_until_it_says("relaying").await;
    relay.stop_well().await;
}

/// GIVEN a role that may only monitor, WHEN it reads the view, THEN it sees each bucket and since when its oldest event
/// waits, whoever owns it; and no event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_monitor_sees_how_each_bucket_is() {
    let fixture = Fixture::new("health_view").await;
    let client = fixture.client().await;
    let begin = "create role health_view_monitor in role pg_monitor;
        select postrider.emit('order', 'a', 'T', '{}');
        update outbox set created_at = now() - interval '1 hour'";
    client.batch_execute(begin).await.expect("the name is free");
    let monitor = fixture.client().await;
    monitor.batch_execute("set role health_view_monitor").await.expect("it was made");
    let look = "select count(*) as buckets, max(oldest_age_seconds) as oldest,
            count(oldest_age_seconds) as waiting, count(owner) as owned,
            count(*) filter (where lease_left_seconds > 0) as leased, sum(parked)::bigint as parked
        from postrider.health";
    let row = monitor.query_one(look, &[]).await.expect("it may read it");
    let number = |name: &str| row.get::<_, i64>(name);
    assert_eq!((number("buckets"), number("waiting"), number("owned")), (8, 1, 0));
    assert!((3_600.0..3_700.0).contains(&row.get::<_, f64>("oldest")));
    let events = monitor.query("select from postrider.events", &[]).await;
    assert!(events.is_err(), "it may read no event");
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    loop {
        let row = monitor.query_one(look, &[]).await.expect("it may read it");
        let number = |name: &str| row.get::<_, i64>(name);
        if number("waiting") == 0 && number("leased") == 8 {
            assert_eq!((number("owned"), number("parked")), (8, 0));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    relay.stop_well().await;
}
