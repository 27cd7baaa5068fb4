//! `postrider health`: asks a running instance whether it is well, for images without curl.
//!
//! Promises: the exit code is the answer; an instance that says nothing within a few seconds is not well. Must not: ask
//! PostgreSQL or Kafka. Fails: with exit code 1 when nobody answers; with 3 when the address has no meaning.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cli::output;
use crate::config::{ADMIN_OFF, DEFAULT_ADMIN_LISTEN, file};
use crate::error::{Error, ErrorKind, Result};

/// A kubelet's probe gives up sooner.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer is a few lines.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
pub(super) const NOT_WELL: u8 = 1;

/// Asks a running instance whether it is alive, or ready.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 well, 1 not well or no answer, 3 an address without a meaning.

Examples:
  postrider health
  postrider health --ready --exclude kafka
  postrider health --url http://10.0.0.7:9786")]
pub(super) struct HealthArguments {
    /// Asks whether it gets on with its work (/readyz), not only whether it is alive (/livez).
    #[arg(long)]
    ready: bool,

    /// Asks the instance that answers there [default: what --admin-listen says].
    #[arg(long, value_name = "URL", conflicts_with = "admin_listen")]
    url: Option<String>,

    /// Where the instance on this machine answers [default: 127.0.0.1:9786].
    #[arg(long, value_name = "HOST:PORT", env = "POSTRIDER_ADMIN_LISTEN", hide_env = true)]
    admin_listen: Option<String>,

    /// Leaves this check out; may be given several times.
    #[arg(long, value_name = "CHECK")]
    exclude: Vec<String>,
}

pub(super) fn run(arguments: HealthArguments) -> Result<ExitCode> {
    let HealthArguments { ready, url, admin_listen, exclude } = arguments;
    let authority = match url {
        Some(url) => authority_of(&url)?,
        None => authority_of_listener(admin_listen)?,
    };
    let path = path(ready, &exclude)?;
    let (is_well, text) = ask(&authority, &path).map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("{authority} gives no answer{}", why(&cause)))
            .with_remedy(
                "check that `postrider run` is running there and is not stopped, and its --admin-listen",
            )
    })?;
    output::answer(&text)?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}

/// A read that takes too long is told by the system as one that might be tried again.
fn why(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            format!(" within {} s", PATIENCE.as_secs())
        }
        _ => format!(": {cause}"),
    }
}

fn path(ready: bool, excluded: &[String]) -> Result<String> {
    let mut path = if ready { "/readyz?verbose".to_owned() } else { "/livez?verbose".to_owned() };
    for name in excluded {
        if !name.chars().all(|one| one.is_ascii_alphanumeric() || one == '-') {
            return Err(Error::new(
                ErrorKind::Config,
                format!("--exclude {name:?} names no check"),
            )
            .with_remedy("name one as it is written in the answer, like kafka"));
        }
        path.push_str("&exclude=");
        path.push_str(name);
    }
    Ok(path)
}

/// Host and port of a URL, as in `http://10.0.0.7:9786/`.
pub(super) fn authority_of(url: &str) -> Result<String> {
    let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let is_one = |text: &&str| text.contains(':') && !text.contains(['/', '?', '@', ' ']);
    authority.filter(is_one).map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::Config, "the URL has no meaning")
            .with_remedy("write it as http://HOST:PORT, without a path")
    })
}

/// Who listens on all addresses is asked on this machine's own.
pub(super) fn authority_of_listener(admin_listen: Option<String>) -> Result<String> {
    let listen = match admin_listen {
        Some(listen) => Some(listen),
        None => file::read(None)?.relay.admin_listen,
    };
    let address = match listen.as_deref() {
        None => DEFAULT_ADMIN_LISTEN,
        Some(ADMIN_OFF) => {
            return Err(Error::new(ErrorKind::Config, "--admin-listen is off: nobody answers")
                .with_remedy("let `postrider run` listen on an address"));
        }
        Some(text) => text.parse().map_err(|_| {
            Error::new(ErrorKind::Config, format!("--admin-listen {text:?} is no address"))
                .with_remedy("write it as 127.0.0.1:9786")
        })?,
    };
    Ok(reachable(address).to_string())
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// Whether the answer is that it is well, and its text.
fn ask(authority: &str, path: &str) -> std::io::Result<(bool, String)> {
    let mut last = std::io::Error::other("the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return converse(stream, authority, path),
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

fn converse(mut stream: TcpStream, authority: &str, path: &str) -> std::io::Result<(bool, String)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    read(&answer).ok_or_else(|| std::io::Error::other("it is none of HTTP"))
}

fn read(answer: &str) -> Option<(bool, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?;
    Some((status == "200", body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n[-]kafka nothing\n";
        assert_eq!(read(answer), Some((false, "[-]kafka nothing\n".to_owned())));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nalive\n"), Some((true, "alive\n".to_owned())));
        assert_eq!(read("SSH-2.0-OpenSSH"), None);
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(authority_of("http://a:1/").unwrap(), "a:1");
        for bad in ["https://a:1", "a:1", "http://a", "http://a:1/livez", "http://u@a:1"] {
            assert_eq!(authority_of(bad).unwrap_err().kind(), ErrorKind::Config, "{bad}");
        }
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9786"), "127.0.0.1:9786");
        assert_eq!(reached("[::]:9786"), "[::1]:9786");
        assert_eq!(reached("10.0.0.7:9786"), "10.0.0.7:9786");
        let off = authority_of_listener(Some("off".to_owned())).unwrap_err();
        assert!(off.message().contains("off"), "{off}");
        let paths = path(true, &["kafka".to_owned()]).unwrap();
        assert_eq!(paths, "/readyz?verbose&exclude=kafka");
        assert!(path(false, &["a&b".to_owned()]).is_err());
    }
}
