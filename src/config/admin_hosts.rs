//! The names by which an instance's page and API may be asked for.
//!
//! Promises: a name that somebody in the internet can have is answered only where it was allowed. Must not: resolve one.
//! Fails: with [`ErrorKind::Config`] for what is no name.
//!
//! A page of another site can have its own name lead to this machine (DNS rebinding): for the browser our answers are
//! that site's own then. The browser sends the name, and no page can change that: so it is the name that tells.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::{Error, ErrorKind, Result};

/// Any name.
const ANY: &str = "*";
/// Below these nobody can have a name of his own in the internet.
const PRIVATE: [&str; 4] = ["localhost", "local", "internal", "svc"];

/// The names that were allowed, beside those that need no leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminHosts(Vec<String>);

impl AdminHosts {
    /// Those of --admin-hosts, and the machine's own.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for one that is no name.
    pub fn new(allowed: &[String], own: Option<String>) -> Result<Self> {
        if let Some(wrong) = allowed.iter().find(|name| *name != ANY && !is_name(name)) {
            let cause = format!("--admin-hosts {wrong:?} is no name");
            return Err(Error::new(ErrorKind::Config, cause).with_remedy(
                "give names alone, without a port, separated by commas, or * for any",
            ));
        }
        Ok(Self(allowed.iter().cloned().chain(own).map(|name| plain(&name)).collect()))
    }

    /// Whether whoever asks by this `Host` is answered.
    pub fn answers(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        is_address(&name)
            || !name.contains('.')
            || PRIVATE.iter().any(|above| name.strip_suffix(above).is_some_and(ends_with_dot))
            || self.0.iter().any(|allowed| *allowed == ANY || *allowed == name)
    }
}

fn ends_with_dot(text: &str) -> bool {
    text.ends_with('.')
}

/// Nobody can have an address lead elsewhere.
fn is_address(name: &str) -> bool {
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bracketed {
        Some(address) => address.split('%').next().unwrap_or("").parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    }
}

/// The name of `Host`, without a port.
fn name_of(host: &str) -> Option<String> {
    let host = host.trim();
    let (name, port) = match host.rfind(']') {
        Some(end) => host.split_at(end + 1),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|one| one.is_ascii_digit()));
    let is_known = name.starts_with('[') || is_name(name);
    (is_port && is_known).then(|| plain(name))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|one| one.is_ascii_alphanumeric() || matches!(one, b'-' | b'_' | b'.'))
}

/// As names are compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(allowed: &[&str]) -> Result<AdminHosts> {
        let allowed: Vec<String> = allowed.iter().map(|one| (*one).to_owned()).collect();
        AdminHosts::new(&allowed, Some("Relay1.Example.com".to_owned()))
    }

    #[test]
    fn a_name_that_anybody_can_have_is_not_answered() {
        let hosts = hosts(&["ops.example.org", "relay.example.net."]).expect("they are names");
        for host in [
            "127.0.0.1",
            "10.0.0.7:9786",
            "[::1]:9786",
            "[fe80::1%eth0]",
            "localhost:9786",
            "LOCALHOST.",
            "relay-0",
            "relay-0.postrider.shop.svc:9786",
            "relay-0.postrider.shop.svc.cluster.local",
            "a.localhost",
            "vm.c.project.internal",
            "relay1.example.com",
            "ops.example.org:443",
            "relay.example.net",
        ] {
            assert!(hosts.answers(host), "{host}");
        }
        for host in [
            "evil.example:9786",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io",
            "localhost.evil.example",
            "xlocalhost.evil",
            "evil.notlocal",
            "x.ops.example.org",
            "ops.example.org.evil.example",
            "[evil.example]",
            "[::1].evil.example",
            "::1",
            "localhost:9786@evil.example",
            "localhost:x",
            "",
            "a b",
            "0x7f.1.evil",
        ] {
            assert!(!hosts.answers(host), "{host}");
        }
    }

    #[test]
    fn any_name_can_be_allowed_and_what_is_none_is_refused() {
        assert!(hosts(&["*"]).expect("it is any").answers("evil.example"));
        for wrong in ["", "http://a.example", "a.example:443", "a b", "*.example.com"] {
            let refused = hosts(&[wrong]).expect_err("it is none");
            assert!(refused.message().contains("is no name"), "{refused}");
        }
    }
}
