//! Servers that are not there, do not speak, or speak something else.

use crate::postgres::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that takes connections, reads a little of each, answers with `answer`, and waits.
pub(super) async fn server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            socket.read_exact(&mut request).await.unwrap();
            socket.write_all(answer).await.unwrap();
            let mut rest = Vec::new();
            // The client hangs up when it has seen enough.
            socket.read_to_end(&mut rest).await.unwrap_or_default();
        }
    });
    port
}

pub(super) async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn refusal(text: &str) -> Error {
    connect(&DatabaseConfig::parse(text).unwrap(), "test").await.unwrap_err()
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let port = closed_port().await;
    let error = refusal(&format!("postgres://u:secret@127.0.0.1:{port}/d")).await;
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable);
    assert_eq!(
        error.message(),
        format!("cannot connect to 127.0.0.1:{port}/d: connection refused")
    );
    assert!(error.remedy().unwrap().contains("running"));
}

#[tokio::test]
async fn an_unknown_name_and_a_missing_socket_are_told_apart() {
    let error = refusal("postgres://u@host.invalid/d").await;
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable);
    assert!(error.message().contains("name is not known"), "{error}");
    let error = refusal("host=/nowhere user=u").await;
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable);
    assert!(error.message().contains("no such socket"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let port = server(b"").await;
    let url = format!("postgres://u@127.0.0.1:{port}/d");
    let mut database = DatabaseConfig::parse(&url).unwrap();
    database.driver.connect_timeout(std::time::Duration::from_millis(50));
    let error = connect(&database, "test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable);
    assert!(error.message().ends_with("no answer"), "{error}");
}

#[tokio::test]
async fn require_does_not_go_on_without_encryption() {
    let port = server(b"N").await;
    let error = refusal(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=require")).await;
    assert_eq!(error.kind(), ErrorKind::PostgresRefused);
    assert!(error.message().contains("does not offer TLS"), "{error}");
}

#[tokio::test]
async fn something_else_than_postgresql_is_recognised() {
    let port = server(b"Z\0\0\0\x05I").await;
    let error = refusal(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).await;
    assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
    assert!(error.remedy().unwrap().contains("PostgreSQL server"), "{error}");
}
