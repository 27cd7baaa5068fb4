//! What a service manager is told of a relay that does not come to work.

use std::os::unix::net::UnixDatagram;

use super::{Answer, CLOSED, Place};

fn run(place: &Place, socket: &std::path::Path) -> Answer {
    let url = format!("postgres://u@{CLOSED}/d");
    let mut command = place.postrider(&["run", "--database-url", &url, "--brokers", CLOSED]);
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "300000");
    Answer::from(command.env("POSTRIDER_ADMIN_LISTEN", "off").output().unwrap())
}

#[test]
fn a_relay_that_finds_no_broker_is_never_ready() {
    let place = Place::new();
    let path = place.0.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    // It says more than the socket holds while nobody reads, and ends all the same.
    run(&place, &path).failed(5, &["no Kafka broker can be reached"]);
    let mut heard = String::new();
    let mut message = [0; 8_192];
    while let Ok(length) = socket.recv(&mut message) {
        heard.push_str(&String::from_utf8_lossy(&message[..length]));
    }
    assert!(heard.contains("STATUS=starting\n") && heard.contains("WATCHDOG=1\n"), "{heard}");
    assert!(!heard.contains("READY"), "{heard}");
}

#[test]
fn a_manager_that_is_not_there_is_told_of_once() {
    let place = Place::new();
    let answer = run(&place, &place.0.join("nobody"));
    answer.failed(5, &["the service manager cannot be told how things are", "NOTIFY_SOCKET"]);
    assert_eq!(answer.stderr.matches("cannot be told").count(), 1, "{}", answer.stderr);
}
