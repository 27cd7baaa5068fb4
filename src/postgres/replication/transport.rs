//! The socket to a server: TCP, a socket in the file system, or TLS over TCP.
//!
//! Promises: TCP sends small messages at once, and notices a dead peer, as the settings say; nothing
//! is read from an open socket before encryption but the one byte that agrees to it.
//! Must not: know PostgreSQL's messages.
//! Fails: with the operating system's error, or with that of the handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::postgres::replication::end_point::end_point;
use crate::postgres::replication::fault::Fault;
use crate::postgres::replication::paced_socket::PacedTcp;
use crate::postgres::tls::{Attempt, PROTOCOL_NAME, TlsSettings};

/// What bytes go through.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(PacedTcp),
    Unix(UnixStream),
    Tls(Box<TlsStream<PacedTcp>>),
}

impl Transport {
    /// Opens a socket in the file system.
    pub(super) async fn unix(
        folder: &Path,
        port: u16,
        timeout: Option<Duration>,
    ) -> Result<Self, Fault> {
        let path = folder.join(format!(".s.PGSQL.{port}"));
        Ok(Self::Unix(in_time(timeout, UnixStream::connect(path)).await?))
    }

    /// Opens a socket of the network, with the settings of `driver`.
    pub(super) async fn tcp(address: SocketAddr, driver: &Config) -> Result<Self, Fault> {
        let timeout = driver.get_connect_timeout().copied();
        let stream = in_time(timeout, TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        #[cfg(target_os = "linux")]
        if let Some(timeout) = driver.get_tcp_user_timeout() {
            socket.set_tcp_user_timeout(Some(*timeout))?;
        }
        if driver.get_keepalives() {
            socket.set_tcp_keepalive(&keepalive(driver))?;
        }
        Ok(Self::Tcp(PacedTcp::new(stream)))
    }

    /// Encrypts as the attempt says. `host` is whom the certificate must name.
    pub(super) async fn encrypt(
        self,
        attempt: Attempt,
        negotiation: SslNegotiation,
        host: &str,
        settings: &TlsSettings,
    ) -> Result<Self, Fault> {
        let mut stream = match (attempt, self) {
            (Attempt::Open, open) => return Ok(open),
            (Attempt::EncryptedIfOffered, local @ Self::Unix(_)) => return Ok(local),
            (_, Self::Unix(_)) => return Err(Fault::TlsNotOffered),
            (_, Self::Tls(_)) => unreachable!("a stream is encrypted once"),
            (_, Self::Tcp(stream)) => stream,
        };
        if negotiation == SslNegotiation::Postgres && !is_offered(&mut stream).await? {
            return match attempt {
                Attempt::EncryptedIfOffered => Ok(Self::Tcp(stream)),
                _ => Err(Fault::TlsNotOffered),
            };
        }
        let config = settings.client_config(negotiation).map_err(Fault::Ours)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|cause| Fault::Tls(io::Error::new(io::ErrorKind::InvalidInput, cause)))?;
        let handshake = Box::pin(TlsConnector::from(Arc::new(config)).connect(name, stream));
        let stream = handshake.await.map_err(Fault::Tls)?;
        let named = stream.get_ref().1.alpn_protocol();
        if negotiation == SslNegotiation::Direct && named != Some(PROTOCOL_NAME) {
            let cause = "the server did not name PostgreSQL's protocol (ALPN)";
            return Err(Fault::Tls(io::Error::new(io::ErrorKind::InvalidData, cause)));
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// From here on lets bytes gather before they are read. Not in a socket in the file system: that
    /// has room for few messages, however short, and would stop the server.
    pub(super) fn pace(&mut self) {
        match self {
            Self::Tcp(stream) => stream.pace(),
            Self::Tls(stream) => stream.get_mut().0.pace(),
            Self::Unix(_) => {}
        }
    }

    /// What ties a proof to this connection, where it is encrypted.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        let Self::Tls(stream) = self else { return None };
        end_point(stream.get_ref().1.peer_certificates()?.first()?)
    }
}

/// Asks for encryption. The answer is read alone: what follows it may be somebody else's.
async fn is_offered(stream: &mut PacedTcp) -> Result<bool, Fault> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    Ok(answer == *b"S")
}

fn keepalive(driver: &Config) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new().with_time(driver.get_keepalives_idle());
    if let Some(interval) = driver.get_keepalives_interval() {
        keepalive = keepalive.with_interval(interval);
    }
    match driver.get_keepalives_retries() {
        Some(retries) => keepalive.with_retries(retries),
        None => keepalive,
    }
}

async fn in_time<T>(
    timeout: Option<Duration>,
    opening: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match timeout {
        None => opening.await,
        Some(timeout) => tokio::time::timeout(timeout, opening)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

/// The addresses of a name.
pub(super) async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
