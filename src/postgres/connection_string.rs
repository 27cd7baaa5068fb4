//! Connection strings: takes out the parameters that the driver does not know, or knows otherwise.
//!
//! Promises: what is left means the same to the driver as it means to libpq.
//! Must not: look at the environment, or show a password or a part of one.
//! Fails: text that is neither a URL nor `key=value` pairs, and a parameter that nobody knows.
//!
//! Source: PostgreSQL documentation, "Connection Strings".

use crate::error::{Error, ErrorKind, Result};

/// Parameters that this module's callers give a meaning, and the driver never sees.
const OURS: &[&str] = &[
    "sslmode",
    "ssl",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "passfile",
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "gssencmode",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives_count",
    "target_session_attrs",
    "options",
];

/// Parameters of libpq that change how safe a connection is, and that we cannot honour.
const REFUSED: &[&str] = &[
    "service",
    "sslcrl",
    "sslcrldir",
    "require_auth",
    "requirepeer",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "sslpassword",
    "replication",
    "krbsrvname",
    "gsslib",
];

/// Parameters that the driver takes as libpq does.
const DRIVERS: &[&str] = &[
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "sslnegotiation",
    "channel_binding",
    "load_balance_hosts",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
];

/// A connection string, split.
#[derive(Default)]
pub(super) struct ConnectionString {
    /// What the driver parses.
    pub(super) rest: String,
    /// What it must not see.
    parameters: Vec<(String, String)>,
    /// The names of all parameters that were given in `key=value` form.
    names: Vec<String>,
    /// Whether an unknown name may be a part of a password that was not quoted or encoded.
    may_hold_password: bool,
}

impl ConnectionString {
    /// Splits a URL or a list of `key=value` pairs.
    pub(super) fn split(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::split_url(text)
        } else if text.contains("://") {
            Err(invalid("it starts with neither postgres:// nor postgresql://"))
        } else {
            Self::split_pairs(text)
        }
    }

    /// The last value that was given to a parameter of [`OURS`].
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the parameter was given, to us or to the driver.
    pub(super) fn names(&self, name: &str) -> bool {
        self.names.iter().any(|given| given == name)
    }

    fn split_url(url: &str) -> Result<Self> {
        // A password may hold a question mark, so the query begins behind the user's part.
        let authority = url.find('@').unwrap_or(0);
        let (place, query) = match url[authority..].split_once('?') {
            Some((place, query)) => (&url[..authority + place.len()], query),
            None => (url, ""),
        };
        if place.matches('@').count() > 1 {
            return Err(invalid("it has more than one @")
                .with_remedy("Write %40 for an @ in the user, the password or the database"));
        }
        // Behind an @ of the password, what looks like a parameter is a part of it.
        let may_hold_password = query.contains('@');
        let mut split = Self { rest: place.to_owned(), may_hold_password, ..Self::default() };
        let mut separator = '?';
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| invalid("a parameter has no value"))?;
            if split.keep(percent_decoded(key)?, percent_decoded(value)?)? {
                split.rest.push(separator);
                split.rest.push_str(pair);
                separator = '&';
            }
        }
        Ok(split)
    }

    fn split_pairs(text: &str) -> Result<Self> {
        let mut split = Self::default();
        let mut left = text;
        while !left.is_empty() {
            let (key, after) =
                left.split_once('=').ok_or_else(|| invalid("a parameter has no value"))?;
            let after = after.trim_start();
            let (value, length) = pair_value(after)?;
            let key = key.trim().to_owned();
            let raw = format!("{key}={} ", &after[..length]);
            if split.keep(key, value)? {
                split.rest.push_str(&raw);
            }
            left = after[length..].trim_start();
        }
        Ok(split)
    }

    /// Notes a parameter; true when the driver is to see it.
    fn keep(&mut self, key: String, value: String) -> Result<bool> {
        if REFUSED.contains(&key.as_str()) {
            return Err(invalid(&format!("postrider cannot honour the parameter {key}")));
        }
        let ours = OURS.contains(&key.as_str());
        if !ours && !DRIVERS.contains(&key.as_str()) {
            return Err(self.unknown(&key));
        }
        self.may_hold_password |= key == "password";
        self.names.push(key.clone());
        if ours {
            self.parameters.push((key, value));
        }
        Ok(!ours)
    }

    /// The error for a name that nobody knows.
    fn unknown(&self, name: &str) -> Error {
        let looks_like_one = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if looks_like_one && !self.may_hold_password {
            return invalid(&format!("the parameter {name} is not known"));
        }
        invalid("a parameter is not known, or a value before it is not quoted or encoded")
            .with_remedy(
                "Quote a value with spaces, as in password='my word'; in a URL write %40 for @, \
                 %26 for & and %3F for ?",
            )
    }
}

/// The error for a connection string without meaning; never shows the string itself.
pub(super) fn invalid(reason: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the database URL has no meaning: {reason}"))
        .with_remedy("Write it as postgres://user:password@host:5432/database?sslmode=verify-full")
}

/// The value at the start of `text` in libpq's quoting, and how many bytes it takes there.
fn pair_value(text: &str) -> Result<(String, usize)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((place, character)) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next().ok_or_else(|| invalid("it ends in a backslash"))?;
                value.push(escaped.1);
            }
            '\'' if quoted => return Ok((value, place + 1)),
            _ if !quoted && character.is_whitespace() => return Ok((value, place)),
            _ => value.push(character),
        }
    }
    if quoted { Err(invalid("a quote is not closed")) } else { Ok((value, text.len())) }
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((byte, rest)) = left.split_first() {
        left = rest;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.ok_or_else(|| invalid("% must be followed by two hex digits"))?);
        left = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| invalid("a parameter is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_our_parameters_out_of_a_url() {
        let url = "postgres://u:p?w@h1:1,h2:2/db?sslmode=verify-ca&load_balance_hosts=random\
                   &sslrootcert=%2Fa%20b&keepalives_idle=7";
        let split = ConnectionString::split(url).unwrap();
        let rest = "postgres://u:p?w@h1:1,h2:2/db?load_balance_hosts=random&keepalives_idle=7";
        assert_eq!(split.rest, rest);
        assert_eq!(split.get("sslmode"), Some("verify-ca"));
        assert_eq!(split.get("sslrootcert"), Some("/a b"));
        assert!(split.names("keepalives_idle") && !split.names("keepalives"));
    }

    #[test]
    fn takes_our_parameters_out_of_pairs() {
        let text =
            r"host = h  sslmode=require password='it\'s' user=a\ b sslcert='/a \'b' dbname=d";
        let split = ConnectionString::split(text).unwrap();
        assert_eq!(split.rest.trim(), r"host=h password='it\'s' user=a\ b dbname=d");
        assert_eq!((split.get("sslmode"), split.get("sslcert")), (Some("require"), Some("/a 'b")));
    }

    #[test]
    fn refuses_what_has_no_meaning_without_showing_it() {
        for text in [
            "mysql://u:secret@h/d",
            "postgres://u:secret@h/d?sslmode",
            "postgres://u:secret@h/d?sslmode=%zz",
            "postgres://u:secret@h/d?service=x",
            "password='secret",
            "secret",
            r"password=secret\",
        ] {
            let error = ConnectionString::split(text).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{text}: {error}");
        }
    }
}
