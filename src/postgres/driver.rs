//! What kind of error the driver, or the resolver beneath it, has met: neither tells it but by its text.
//!
//! Promises: words of these libraries are read here and nowhere else, and a test has them said by the versions that
//! are built in: one that changes them is noticed. Must not: read what a server says, which may be in any
//! language. Fails: never; a text that is not known is [`DriverFault::Other`].

use std::error::Error as _;
use std::io;

/// A refusal of the driver's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriverFault {
    /// Who we are, or who the server is, was not proved.
    Authentication,
    /// It cannot work with what it was told.
    Settings,
    /// Something else than PostgreSQL's protocol was spoken.
    Protocol,
    /// Nobody answered.
    Silence,
    /// Encryption was asked for, and the server has none.
    TlsNotOffered,
    /// Encryption was begun, and came to nothing.
    Handshake,
    /// None of these.
    Other,
}

impl DriverFault {
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        match error.to_string().as_str() {
            "authentication error" => Self::Authentication,
            "invalid configuration" | "invalid connection string" => Self::Settings,
            "unexpected message from server" | "error parsing response from server" => {
                Self::Protocol
            }
            "timeout waiting for server" => Self::Silence,
            "error performing TLS handshake" => Self::of_encryption(error),
            _ => Self::Other,
        }
    }

    fn of_encryption(error: &tokio_postgres::Error) -> Self {
        match error.source().map(ToString::to_string).as_deref() {
            Some("server does not support TLS") => Self::TlsNotOffered,
            _ => Self::Handshake,
        }
    }
}

/// Whether a host's name has no address. The standard library has no kind for it.
pub(super) fn is_lookup(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
        && error.to_string().starts_with("failed to lookup address information")
}

/// Whether the driver was told to find a server that takes writes, and this is none. The operating system's own
/// refusals of this kind bear its code; others that we make ourselves have a type of their own.
pub(super) fn is_read_only(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_postgres::config::SslMode;
    use tokio_postgres::{Config, NoTls};

    use super::*;

    /// What the driver says of a server that answers its first message so, and then nothing more.
    async fn said(config: &Config, answer: &[u8]) -> tokio_postgres::Error {
        let (near, mut far) = tokio::io::duplex(4_096);
        let answer = answer.to_vec();
        let server = tokio::spawn(async move {
            let mut first = [0; 4_096];
            assert!(far.read(&mut first).await.unwrap() > 0, "it speaks first");
            far.write_all(&answer).await.unwrap();
            far.shutdown().await.unwrap();
            // The rest of what is said is heard, so that only the answer decides.
            while far.read(&mut first).await.unwrap() > 0 {}
        });
        let error = config.connect_raw(near, NoTls).await.err().expect("it is refused");
        server.await.unwrap();
        error
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    #[tokio::test]
    async fn the_driver_says_what_is_read_here() {
        use DriverFault::{
            Authentication, Handshake, Other, Protocol, Settings, Silence, TlsNotOffered,
        };
        let (mut open, mut encrypted) = (Config::new(), Config::new());
        open.user("u").password("p").ssl_mode(SslMode::Disable);
        encrypted.user("u").ssl_mode(SslMode::Require);
        let nobody = Config::new().user("u").ssl_mode(SslMode::Disable).clone();
        let scram = [message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b'R', b"\0\0\0\x0bx")];
        let unsaid = Config::new().connect(NoTls).await.err().expect("no host is named");
        let typed = "no=such".parse::<Config>().expect_err("there is no such word");
        for (error, fault) in [
            (said(&open, &message(b'R', b"\0\0\0\x07")).await, Authentication),
            (said(&open, &scram.concat()).await, Authentication),
            (said(&nobody, &message(b'R', b"\0\0\0\x03")).await, Settings),
            (unsaid, Settings),
            (typed, Settings),
            (said(&open, &message(b'Z', b"I")).await, Protocol),
            (tokio_postgres::Error::__private_api_timeout(), Silence),
            (said(&encrypted, b"N").await, TlsNotOffered),
            (said(&encrypted, b"S").await, Handshake),
            (said(&open, b"HTTP/1.1 400 Bad Request\r\n\r\n").await, Other),
        ] {
            assert_eq!(DriverFault::of(&error), fault, "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_told_from_a_network_that_fails() {
        let error = tokio::net::lookup_host(("no-such-host.invalid", 1)).await.map(drop);
        assert!(is_lookup(&error.expect_err("the name is reserved")));
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut] {
            assert!(!is_lookup(&kind.into()));
        }
        // The operating system may fail, too, while it looks up.
        assert!(!is_lookup(&io::Error::from_raw_os_error(24)));
    }

    #[test]
    fn a_socket_that_may_not_be_opened_is_no_stand_by() {
        assert!(is_read_only(&io::Error::new(io::ErrorKind::PermissionDenied, "x")));
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert!(!is_read_only(&denied));
    }
}
