//! A free port on 127.0.0.1 that stays free while a server is down.
//!
//! Promises: a port that nobody listened on a moment ago, below the range that the operating system
//! gives to clients. Must not: keep it bound. Fails: when many tries in a row are taken.
//!
//! Why not port 0: the system would pick from the range of client ports. A client that reconnects to
//! a stopped server can then be given the server's own port and connect to itself, and the server
//! could not start again.

use crate::servers::error::EmbeddedError;
use std::net::{Ipv4Addr, TcpListener};

/// Clients get ports from 32768 (Linux) or 49152 (macOS, IANA).
const FIRST: u16 = 11_000;
const END: u16 = 32_000;
const TRIES: usize = 200;

/// A free port.
///
/// # Errors
/// `NoPort` after 200 ports were all taken.
pub(super) fn free_port() -> Result<u16, EmbeddedError> {
    (0..TRIES)
        .map(|_| random_port())
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .ok_or(EmbeddedError::NoPort { first: FIRST, end: END })
}

fn random_port() -> u16 {
    let span = u128::from(END - FIRST);
    let offset = uuid::Uuid::new_v4().as_u128() % span;
    FIRST + u16::try_from(offset).expect("the span of ports fits 16 bits")
}
