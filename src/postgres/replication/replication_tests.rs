//! Servers that are not there, do not speak, or speak something else.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, ErrorKind};
use crate::postgres::connect;
use crate::postgres::replication::*;
use crate::postgres::tests::{closed_port, server};
use crate::postgres::without_head;

async fn refusal(text: &str) -> Error {
    connect_walsender(&DatabaseConfig::parse(text).unwrap(), "test").await.unwrap_err()
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let port = closed_port().await;
    let error = refusal(&format!("postgres://u:secret@127.0.0.1:{port}/d")).await;
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable);
    let expected = format!("cannot connect to 127.0.0.1:{port}/d: connection refused");
    assert_eq!(error.message(), expected);
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
    let error = connect_walsender(&database, "test").await.unwrap_err();
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
    for answer in [b"Z\0\0\0\x05I".as_slice(), b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let port = server(answer).await;
        let error = refusal(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).await;
        assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
        assert!(error.remedy().unwrap().contains("PostgreSQL server"), "{error}");
    }
}

/// The error of a server that ends with its last words is that of the words.
#[tokio::test]
async fn last_words_are_read() {
    let words = b"E\0\0\0\x2bSFATAL\0C57P03\0Mthe server is starting\0\0";
    let port = server(words).await;
    let error = refusal(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).await;
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable, "{error}");
    assert!(error.message().contains("the server is starting (SQLSTATE 57P03)"), "{error}");
}

/// The last server's error is told, whatever the first said.
#[tokio::test]
async fn servers_are_tried_in_turn() {
    let (closed, open) = (closed_port().await, server(b"Z\0\0\0\x05I").await);
    let text = |first: u16, second: u16| {
        format!("host=127.0.0.1,127.0.0.1 port={first},{second} user=u sslmode=disable")
    };
    assert_eq!(refusal(&text(closed, open)).await.kind(), ErrorKind::PostgresRefused);
    assert_eq!(refusal(&text(open, closed)).await.kind(), ErrorKind::PostgresUnavailable);
    let odd = "host=127.0.0.1,127.0.0.1,127.0.0.1 port=1,2 user=u";
    assert_eq!(refusal(odd).await.kind(), ErrorKind::Config);
}

#[test]
fn a_files_head_is_left_out() {
    assert_eq!(without_head("-- a\n-- b\nselect 1; -- c"), "select 1; -- c");
    assert_eq!(without_head("select 1"), "select 1");
    assert_eq!(without_head("-- a"), "");
}

/// A server that is encrypted from the first byte, names these protocols, and hangs up once it is spoken to;
/// and which protocol each client and it agreed upon.
async fn encrypted_server(protocols: &[&[u8]]) -> (u16, Receiver<Option<Vec<u8>>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(chain.map(|one| one.unwrap()).collect(), key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, agreed) = channel(16);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(socket).await.unwrap();
            let named = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            sender.send(named).await.unwrap();
            // The client may hang up first.
            stream.read(&mut [0; 64]).await.unwrap_or_default();
        }
    });
    (port, agreed)
}

/// What answers to another protocol is not taken for PostgreSQL, though its certificate may be good.
#[tokio::test]
async fn without_a_request_the_protocol_is_named_by_both_sides() {
    let url = |port: u16| {
        format!("postgres://u@127.0.0.1:{port}/d?sslmode=require&sslnegotiation=direct")
    };
    let (port, mut agreed) = encrypted_server(&[]).await;
    let error = refusal(&url(port)).await;
    assert!(error.message().contains("ALPN"), "{error}");
    assert_eq!(agreed.recv().await, Some(None));
    let (port, mut agreed) = encrypted_server(&[b"postgresql"]).await;
    let error = refusal(&url(port)).await;
    assert!(!error.message().contains("ALPN"), "{error}");
    let database = DatabaseConfig::parse(&url(port)).unwrap();
    connect(&database, "test").await.expect_err("it hangs up");
    for _ in 0..2 {
        assert_eq!(agreed.recv().await, Some(Some(b"postgresql".to_vec())));
    }
}
