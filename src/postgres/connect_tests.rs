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

/// A port whose host seems to be lost: its queue is full, and the kernel answers nothing. Held as long as what is given.
async fn lost_host() -> (u16, (tokio::net::TcpListener, Vec<tokio::net::TcpStream>)) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(500);
    while let Ok(stream) =
        tokio::time::timeout(patience, tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 10, "a queue of none takes few");
    }
    (address.port(), (listener, waiting))
}

/// A primary that ends the conversation where it is to become secret, and lets in whoever comes openly.
async fn open_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            // One that hangs up has seen enough.
            tokio::spawn(async move { converse(socket).await.unwrap_or_default() });
        }
    });
    port
}

async fn converse(mut socket: tokio::net::TcpStream) -> std::io::Result<()> {
    /// Who we are is proved, and it is ready.
    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    const ENCRYPTION_WISH: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    /// Of one column, one row: it is not read-only.
    const TAKES_WRITES: &[u8] =
        b"T\0\0\0\x1a\0\x01r\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
        D\0\0\0\x0d\0\x01\0\0\0\x03offC\0\0\0\x09SHOW\0Z\0\0\0\x05I";
    let mut head = [0; 8];
    socket.read_exact(&mut head).await?;
    if head == ENCRYPTION_WISH {
        return socket.write_all(b"S").await;
    }
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]])) - head.len()];
    socket.read_exact(&mut rest).await?;
    socket.write_all(WELCOME).await?;
    let mut question = [0; 1_024];
    while socket.read(&mut question).await? > 0 {
        socket.write_all(TAKES_WRITES).await?;
    }
    Ok(())
}

async fn opens(database: &DatabaseConfig) -> Duration {
    let begun = Instant::now();
    let opened = open_as(database.clone(), "test", "d").await;
    assert!(opened.is_ok(), "one of the servers lets us in");
    begun.elapsed()
}

#[tokio::test]
async fn a_host_that_is_lost_is_waited_for_once() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let (lost, _held) = lost_host().await;
    let good = open_server().await;
    let servers = format!("127.0.0.1:{lost},127.0.0.1:{good}");
    let url = format!("postgres://u@{servers}/d?sslmode=disable&target_session_attrs=read-write");
    let mut database = DatabaseConfig::parse(&url).unwrap();
    database.driver.connect_timeout(TIMEOUT);
    assert!(opens(&database).await >= TIMEOUT, "nobody knows yet that it is lost");
    assert!(opens(&database).await < TIMEOUT, "it is known which server let us in");
}

#[tokio::test]
async fn a_server_that_fails_to_encrypt_is_found_beside_a_lost_one() {
    let (lost, _held) = lost_host().await;
    let good = open_server().await;
    for servers in [[good, lost], [lost, good]] {
        let [first, second] = servers;
        let url = format!("postgres://u@127.0.0.1:{first},127.0.0.1:{second}/d?sslmode=prefer");
        let mut database = DatabaseConfig::parse(&url).unwrap();
        database.driver.connect_timeout(Duration::from_millis(300));
        opens(&database).await;
    }
}

/// Costs that a role was given would have the server compile the first query, for ten seconds.
#[test]
fn no_query_comes_before_compiling_is_off() {
    let first = SESSION.lines().find(|line| !line.starts_with("--")).unwrap();
    assert_eq!(first, "set jit = off;");
}
