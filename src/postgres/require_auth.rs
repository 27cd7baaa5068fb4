//! `require_auth`: by which methods a server may ask who we are, with libpq's meaning.
//!
//! Promises: the server's first word about authentication is looked at before it is answered, so no password
//! goes to a server that asks in another way; sessions of both kinds keep it. Must not: know what a method does.
//! Fails: with [`ErrorKind::Config`] for a list without meaning, else with [`RefusedAuth`].

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use crate::error::{Error, ErrorKind, Result};

/// How a server asks who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// It does not ask: `trust`, `peer`, a certificate.
    None,
    Password,
    Md5,
    Gss,
    Sspi,
    Scram,
    Oauth,
}

impl Method {
    const ALL: [Self; 7] =
        [Self::None, Self::Password, Self::Md5, Self::Gss, Self::Sspi, Self::Scram, Self::Oauth];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Gss => "gss",
            Self::Sspi => "sspi",
            Self::Scram => "scram-sha-256",
            Self::Oauth => "oauth",
        }
    }

    /// What the server wants of us.
    fn asks(self) -> &'static str {
        match self {
            Self::None => "the server lets us in without asking who we are",
            Self::Password => "the server asks for a password in the clear",
            Self::Md5 => "the server asks for an MD5 of the password",
            Self::Gss => "the server asks for Kerberos (GSS)",
            Self::Sspi => "the server asks for SSPI",
            Self::Scram => "the server asks for SCRAM",
            Self::Oauth => "the server asks for an OAuth token",
        }
    }

    /// Whether this client can answer.
    fn is_known(self) -> bool {
        matches!(self, Self::None | Self::Password | Self::Md5 | Self::Scram)
    }

    /// By the code of an authentication request; none for the later words of an exchange.
    fn of_request(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            3 => Some(Self::Password),
            5 => Some(Self::Md5),
            7 | 8 => Some(Self::Gss),
            9 => Some(Self::Sspi),
            10 => Some(Self::Scram),
            _ => None,
        }
    }
}

/// The methods that are let through; all, where none are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequiredAuth(Option<Vec<Method>>);

impl RequiredAuth {
    /// A list of libpq's: all names, or all with a `!` before them.
    pub(super) fn parse(list: &str) -> Result<Self> {
        let (mut named, mut negated): (Vec<Method>, Option<bool>) = (Vec::new(), None);
        for item in list.split(',') {
            let (name, is_negated) = match item.strip_prefix('!') {
                Some(name) => (name, true),
                None => (item, false),
            };
            if *negated.get_or_insert(is_negated) != is_negated {
                return Err(invalid("names with and without a ! do not go together"));
            }
            let method = Method::ALL.into_iter().find(|method| method.name() == name);
            let method = method.ok_or_else(|| invalid("a method is not known"))?;
            if named.contains(&method) {
                return Err(invalid(&format!("{name} is there twice")));
            }
            named.push(method);
        }
        let is_negated = negated == Some(true);
        let allowed = Method::ALL.into_iter().filter(|one| named.contains(one) != is_negated);
        let allowed: Vec<Method> = allowed.collect();
        if !allowed.iter().any(|method| method.is_known()) {
            return Err(invalid("it leaves no method that postrider knows"));
        }
        Ok(Self(Some(allowed)))
    }

    /// Whether the server may ask as it likes.
    pub(super) fn is_any(&self) -> bool {
        self.0.is_none()
    }

    /// # Errors
    /// When the server must not ask in this way.
    pub(super) fn check(&self, method: Method) -> std::result::Result<(), RefusedAuth> {
        match &self.0 {
            Some(allowed) if !allowed.contains(&method) => {
                Err(RefusedAuth { method, allowed: allowed.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn invalid(cause: &str) -> Error {
    Error::new(ErrorKind::Config, format!("require_auth: {cause}")).with_remedy(
        "give some of password, md5, scram-sha-256 and none, separated by commas; or those that are not to \
         be used, each with a ! before it",
    )
}

/// A server asked in a way that is not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedAuth {
    method: Method,
    allowed: Vec<Method>,
}

impl RefusedAuth {
    pub(super) const REMEDY: &'static str = "Let pg_hba.conf ask in one of these ways, or change require_auth; if \
                                             nobody changed the server, another one may stand in its place";
}

impl fmt::Display for RefusedAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.allowed.iter().map(|method| method.name()).collect();
        write!(
            formatter,
            "{}, but require_auth takes only {}",
            self.method.asks(),
            names.join(", ")
        )
    }
}

impl std::error::Error for RefusedAuth {}

/// Reads along until the server has asked, or has let us in.
#[derive(Debug)]
struct Watch {
    required: RequiredAuth,
    /// What is there of a message's head: its kind, its length, and the code of a request.
    head: Vec<u8>,
    /// Bytes of the message at hand that are still to come and of no interest.
    rest: usize,
    has_asked: bool,
}

const KIND: usize = 1;
const LENGTH: usize = 4;
const CODE: usize = 4;
const AUTHENTICATION: u8 = b'R';

impl Watch {
    /// What came from the server next.
    fn see(&mut self, mut bytes: &[u8]) -> std::result::Result<(), RefusedAuth> {
        while !self.has_asked && !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            (self.rest, bytes) = (self.rest - skipped, &bytes[skipped..]);
            let Some((first, after)) = bytes.split_first() else { return Ok(()) };
            self.head.push(*first);
            bytes = after;
            let is_request = self.head[0] == AUTHENTICATION;
            if self.head.len() < KIND + LENGTH + if is_request { CODE } else { 0 } {
                continue;
            }
            let number = |at: usize| {
                let bytes: [u8; 4] = self.head[at..at + 4].try_into().expect("four are four");
                i32::from_be_bytes(bytes)
            };
            // A length counts itself. One that cannot be is the driver's to refuse.
            let length = usize::try_from(number(KIND)).unwrap_or(0);
            self.rest = length.saturating_sub(self.head.len() - KIND);
            if is_request && let Some(method) = Method::of_request(number(KIND + LENGTH)) {
                self.has_asked = true;
                self.required.check(method)?;
            }
            self.head.clear();
        }
        Ok(())
    }
}

/// A stream whose first messages are watched.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    inner: S,
    watch: Watch,
}

impl<S> WatchedStream<S> {
    pub(super) fn new(inner: S, required: RequiredAuth) -> Self {
        let watch = Watch { required, head: Vec::new(), rest: 0, has_asked: false };
        Self { inner, watch }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if !self.watch.has_asked
            && let Err(refused) = self.watch.see(&buffer.filled()[before..])
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, refused)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for WatchedStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

/// Watches what another connector has encrypted.
#[derive(Clone, Debug)]
pub(super) struct WatchedTls<T> {
    pub(super) inner: T,
    pub(super) required: RequiredAuth,
}

type Connecting<S, E> = Pin<Box<dyn Future<Output = std::result::Result<S, E>> + Send>>;

impl<T> MakeTlsConnect<Socket> for WatchedTls<T>
where
    T: MakeTlsConnect<Socket>,
    T::TlsConnect: Send + 'static,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send + 'static,
    <T::TlsConnect as TlsConnect<Socket>>::Error: 'static,
{
    type Stream = WatchedStream<T::Stream>;
    type TlsConnect = WatchedTls<T::TlsConnect>;
    type Error = T::Error;

    fn make_tls_connect(
        &mut self,
        domain: &str,
    ) -> std::result::Result<Self::TlsConnect, T::Error> {
        let inner = self.inner.make_tls_connect(domain)?;
        Ok(WatchedTls { inner, required: self.required.clone() })
    }
}

impl<T> TlsConnect<Socket> for WatchedTls<T>
where
    T: TlsConnect<Socket> + Send + 'static,
    T::Future: Send + 'static,
    T::Error: 'static,
{
    type Stream = WatchedStream<T::Stream>;
    type Error = T::Error;
    type Future = Connecting<Self::Stream, T::Error>;

    fn connect(self, socket: Socket) -> Self::Future {
        let (connecting, required) = (self.inner.connect(socket), self.required);
        Box::pin(async move { connecting.await.map(|stream| WatchedStream::new(stream, required)) })
    }
}

/// Watches an open socket: to the driver this looks like encryption that needs no word with the server.
#[derive(Clone, Debug)]
pub(super) struct WatchedOpen(pub(super) RequiredAuth);

impl MakeTlsConnect<Socket> for WatchedOpen {
    type Stream = WatchedStream<Bare>;
    type TlsConnect = Self;
    type Error = std::convert::Infallible;

    fn make_tls_connect(&mut self, _: &str) -> std::result::Result<Self, Self::Error> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for WatchedOpen {
    type Stream = WatchedStream<Bare>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<std::result::Result<Self::Stream, Self::Error>>;

    fn connect(self, socket: Socket) -> Self::Future {
        std::future::ready(Ok(WatchedStream::new(Bare(socket), self.0)))
    }
}

/// A socket without encryption, which has nothing to bind a password to.
#[derive(Debug)]
pub(super) struct Bare(Socket);

impl AsyncRead for Bare {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bare {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl TlsStream for Bare {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &str) -> Vec<&'static str> {
        let required = RequiredAuth::parse(list).unwrap();
        let names = Method::ALL.into_iter().filter(|method| required.check(*method).is_ok());
        names.map(Method::name).collect()
    }

    #[test]
    fn a_list_means_what_it_means_to_libpq() {
        assert_eq!(allowed("scram-sha-256"), ["scram-sha-256"]);
        assert_eq!(allowed("none,md5"), ["none", "md5"]);
        assert_eq!(allowed("gss,scram-sha-256"), ["gss", "scram-sha-256"]);
        let but = ["gss", "sspi", "scram-sha-256", "oauth"];
        assert_eq!(allowed("!none,!password,!md5"), but);
        assert!(RequiredAuth::default().check(Method::Password).is_ok());
        for (list, word) in [
            ("scram-sha-256,!md5", "do not go together"),
            ("scram", "not known"),
            ("scram-sha-256,", "not known"),
            ("md5,md5", "twice"),
            ("!md5,!md5", "twice"),
            ("gss,sspi", "leaves no method"),
            ("!none,!password,!md5,!scram-sha-256", "leaves no method"),
            ("SCRAM-SHA-256", "not known"),
        ] {
            let error = RequiredAuth::parse(list).unwrap_err();
            assert!(error.message().contains(word), "{list}: {error}");
        }
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + LENGTH).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    fn seen(list: &str, bytes: &[u8], piece: usize) -> std::result::Result<bool, RefusedAuth> {
        let required = RequiredAuth::parse(list).unwrap();
        let mut watch = Watch { required, head: Vec::new(), rest: 0, has_asked: false };
        bytes.chunks(piece).try_for_each(|piece| watch.see(piece))?;
        Ok(watch.has_asked)
    }

    #[test]
    fn the_first_request_decides_in_however_many_pieces_it_comes() {
        let request = |code: i32, rest: &[u8]| {
            message(AUTHENTICATION, &[&code.to_be_bytes()[..], rest].concat())
        };
        let notice = message(b'N', b"SWARNING\0R\0\0\0\x08\0\0\0\0\0");
        let scram = request(10, b"SCRAM-SHA-256\0\0");
        for piece in [1, 2, 7, 1_000] {
            let bytes = [notice.clone(), scram.clone(), request(0, b"")].concat();
            assert_eq!(seen("scram-sha-256", &bytes, piece), Ok(true));
            let refused = seen("md5,none", &bytes, piece).unwrap_err();
            let said = refused.to_string();
            assert!(said.contains("asks for SCRAM") && said.ends_with("only none, md5"), "{said}");
            let clear = [notice.clone(), request(3, b"")].concat();
            assert!(seen("scram-sha-256", &clear, piece).is_err());
            assert!(seen("!none", &request(0, b""), piece).is_err());
            assert_eq!(seen("scram-sha-256", &notice, piece), Ok(false));
        }
        // Lengths that cannot be do no harm.
        for length in [0_i32, -1, i32::MIN, 3] {
            let bytes = [&[b'N'][..], &length.to_be_bytes(), &clear_request()].concat();
            assert!(seen("scram-sha-256", &bytes, 3).is_err());
        }
    }

    fn clear_request() -> Vec<u8> {
        message(AUTHENTICATION, &3_i32.to_be_bytes())
    }
}
