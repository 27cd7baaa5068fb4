//! Access rules and quotas of a broker, which the client library has no words for.
//!
//! Source: Kafka's protocol, `CreateAcls` and `DeleteAcls` in version 1, `AlterClientQuotas` and
//! `AlterUserScramCredentials` in version 0.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const VERSION: i16 = 1;
const ALTER_CLIENT_QUOTAS: i16 = 49;
const ALTER_USER_SCRAM_CREDENTIALS: i16 = 51;
const SCRAM_SHA_256: u8 = 1;
const QUOTAS_VERSION: i16 = 0;
const TOPIC: u8 = 2;
const ANY: u8 = 1;
const LITERAL: u8 = 3;
/// Everybody on a listener that asks for no name.
const PRINCIPAL: &str = "User:ANONYMOUS";
const TIMEOUT: Duration = Duration::from_secs(20);

/// What of a topic is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Nothing,
    /// It is seen, but neither read nor written.
    Describe,
    /// It is read and written, but does not tell its settings.
    Use,
}

/// Broker properties under which everything is allowed that no rule is about.
pub(crate) fn authorizer() -> Vec<(String, String)> {
    [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Allows this of a topic, and no more.
pub(crate) fn restrict(broker: &str, topic: &str, access: Access) {
    let rules: &[[u8; 2]] = match access {
        Access::Nothing => &[[2, 2]],
        Access::Describe => &[[8, 3]],
        Access::Use => &[[3, 3], [4, 3]],
    };
    for rule in rules {
        let mut body = vec![0, 0, 0, 1, TOPIC];
        put_text(&mut body, topic);
        body.push(LITERAL);
        put_text(&mut body, PRINCIPAL);
        put_text(&mut body, "*");
        body.extend(rule);
        ask(broker, CREATE_ACLS, VERSION, &body);
    }
}

/// Takes all rules about a topic away.
pub(crate) fn release(broker: &str, topic: &str) {
    let mut body = vec![0, 0, 0, 1, TOPIC];
    put_text(&mut body, topic);
    body.push(LITERAL);
    // Whoever, wherever.
    body.extend([0xff; 4]);
    body.extend([ANY, ANY]);
    ask(broker, DELETE_ACLS, VERSION, &body);
}

/// Lets a client of this name send so many bytes in a second.
pub(crate) fn limit_producer(broker: &str, client: &str, bytes_per_second: f64) {
    let mut body = vec![0, 0, 0, 1, 0, 0, 0, 1];
    put_text(&mut body, "client-id");
    put_text(&mut body, client);
    body.extend([0, 0, 0, 1]);
    put_text(&mut body, "producer_byte_rate");
    body.extend(bytes_per_second.to_be_bytes());
    // Set it, and mean it.
    body.extend([0, 0]);
    ask(broker, ALTER_CLIENT_QUOTAS, QUOTAS_VERSION, &body);
}

/// Sets what a user of SCRAM-SHA-256 proves himself by.
pub(crate) fn upsert_scram_sha_256(
    broker: &str,
    user: &str,
    iterations: u32,
    salt: &[u8],
    salted_password: &[u8],
) {
    // No tags in the head; nobody is deleted, one is set.
    let mut body = vec![0, 1, 2];
    put_compact(&mut body, user.as_bytes());
    body.push(SCRAM_SHA_256);
    body.extend(iterations.to_be_bytes());
    put_compact(&mut body, salt);
    put_compact(&mut body, salted_password);
    // No tags, of the one and of the whole.
    body.extend([0, 0]);
    let mut socket = send(broker, ALTER_USER_SCRAM_CREDENTIALS, 0, &body);
    // Length, number of the request, tags, throttling, one result: the user, its error.
    let mut answer = vec![0; 4 + 4 + 1 + 4 + 1 + 1 + user.len() + 2];
    socket.read_exact(&mut answer).expect("the broker answers");
    assert_eq!(&answer[answer.len() - 2..], &[0, 0], "{answer:?}");
}

/// As newer requests write bytes and texts: the length and one more comes first.
fn put_compact(body: &mut Vec<u8>, bytes: &[u8]) {
    let length = u8::try_from(bytes.len() + 1).expect("a short text");
    assert!(length < 128, "one byte is its length");
    body.push(length);
    body.extend(bytes);
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(i16::try_from(text.len()).expect("a short text").to_be_bytes());
    body.extend(text.as_bytes());
}

/// One request with one rule, and the error in its answer.
fn ask(broker: &str, request: i16, version: i16, body: &[u8]) {
    let mut socket = send(broker, request, version, body);
    // Length, number of the request, throttling, one result, its error.
    let mut answer = [0; 18];
    socket.read_exact(&mut answer).expect("the broker answers");
    assert_eq!((&answer[12..16], &answer[16..]), (&[0, 0, 0, 1][..], &[0, 0][..]), "{answer:?}");
}

/// The connection on which the answer comes.
fn send(broker: &str, request: i16, version: i16, body: &[u8]) -> TcpStream {
    let mut message = Vec::new();
    message.extend(request.to_be_bytes());
    message.extend(version.to_be_bytes());
    message.extend([0; 4]);
    put_text(&mut message, "test");
    message.extend(body);
    let mut socket = TcpStream::connect(broker).expect("the broker listens");
    socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout can be set");
    let length = u32::try_from(message.len()).expect("a short message");
    socket.write_all(&length.to_be_bytes()).expect("the broker takes it");
    socket.write_all(&message).expect("the broker takes it");
    socket
}
