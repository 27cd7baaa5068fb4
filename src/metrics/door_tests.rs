use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::metrics::admin::Admin;
use crate::metrics::counters::Monitor;
use crate::metrics::door::{CONNECTIONS_MAX, answer};

/// Far above what an answer takes on a busy machine, and below what a queue of slow clients would.
const SOON: Duration = Duration::from_secs(20);

async fn open() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    let admin = Admin::new(Arc::new(Monitor::default()), Vec::new());
    tokio::spawn(answer(listener, crate::metrics::http::routes(admin)));
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

async fn get(address: SocketAddr) -> String {
    let mut stream = connect(address).await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it answers and closes");
    text
}

/// Whether the other side has closed the connection, without waiting.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 256]) {
        Ok(count) => count == 0,
        Err(cause) => cause.kind() != ErrorKind::WouldBlock,
    }
}

async fn wait_until_closed(stream: &mut TcpStream, patience: Duration) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(patience, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is still open after {patience:?}");
}

#[tokio::test]
async fn a_thousand_silent_clients_keep_nobody_out() {
    let address = open().await;
    let begin = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(connect(address).await);
    }
    let text = tokio::time::timeout(SOON, get(address)).await.expect("it answers soon");
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("# EOF\n"), "{text}");
    assert!(text.to_lowercase().contains("connection: close"), "{text}");
    // Those that were turned away were told, so that no side keeps their descriptors.
    let is_full = || silent.iter().filter(|stream| !is_closed(stream)).count() > CONNECTIONS_MAX;
    while is_full() {
        assert!(begin.elapsed() < SOON, "more than {CONNECTIONS_MAX} connections stay open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_sends_a_letter_a_second_is_turned_away() {
    let address = open().await;
    let (mut reading, mut writing) = connect(address).await.into_split();
    let slow = tokio::spawn(async move {
        for letter in b"GET /metrics HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaa".chunks(1) {
            if writing.write_all(letter).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    assert!(get(address).await.starts_with("HTTP/1.1 200"));
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), reading.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "a head that never ends is waited for no longer");
    slow.abort();
}

#[tokio::test]
async fn who_asks_for_more_and_never_reads_is_turned_away() {
    let address = open().await;
    let mut stream = connect(address).await;
    // One request, one answer: what is sent behind it has no effect.
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    stream.write_all(&request).await.expect("it fits into the buffers");
    wait_until_closed(&mut stream, Duration::from_secs(15)).await;
    // A body that never comes is not waited for.
    let mut stream = connect(address).await;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        .await
        .expect("it fits into the buffers");
    wait_until_closed(&mut stream, Duration::from_secs(15)).await;
}

#[tokio::test]
async fn a_head_without_an_end_takes_no_memory() {
    let address = open().await;
    let mut stream = connect(address).await;
    let line = format!("X: {}\r\n", "a".repeat(4_000)).into_bytes();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.expect("it reads");
    let mut sent = 0;
    while stream.write_all(&line).await.is_ok() {
        sent += line.len();
        assert!(sent < 64 * 1024 * 1024, "it reads on and on");
    }
}
