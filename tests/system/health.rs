//! Whether an instance says that it is well, and when it says that it is not.

use crate::admin::{address, get, wait_for};
use crate::support::servers::postgres;
use crate::support::{Fixture, Mode, Proxy, RelayProcess};

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

/// GIVEN a relay that renews its lease, WHEN somebody locks the outbox, THEN events wait and it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_that_somebody_locks() {
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
    locker.batch_execute("commit").await.expect("it was open");
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    wait_for(&address, "/metrics", "postrider_events_published_total{shard=\"0\"} 40\n").await;
    relay.stop_well().await;
}
