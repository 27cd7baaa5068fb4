//! Connection strings: their parameters, as libpq reads them.
//!
//! Promises: a URL or `key=value` pairs fall into the parts into which they fall for libpq; where a
//! password that is not encoded could be taken for a host, a port or a name, they are refused.
//! Must not: look at the environment, or show a value.
//! Fails: text that is neither a URL nor `key=value` pairs, and a parameter that nobody knows.
//!
//! Source: PostgreSQL documentation, "Connection Strings"; `conninfo_uri_parse_options` of libpq.

use crate::error::{Error, ErrorKind, Result};

/// Parameters that have a meaning here.
const KNOWN: &[&str] = &[
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "sslmode",
    "ssl",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "channel_binding",
    "require_auth",
    "load_balance_hosts",
    "passfile",
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "gssencmode",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "keepalives_retries",
    "target_session_attrs",
    "options",
];

/// Parameters of libpq that change how safe a connection is, and that we cannot honour.
const REFUSED: &[&str] = &[
    "service",
    "sslcrl",
    "sslcrldir",
    "requirepeer",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "sslpassword",
    "replication",
    "krbsrvname",
    "gsslib",
];

/// A connection string, split.
#[derive(Default)]
pub(super) struct ConnectionString {
    /// Names and values, as they were given.
    parameters: Vec<(String, String)>,
    /// Whether an unknown name may be a part of a password that was not quoted or encoded.
    may_hold_password: bool,
}

impl ConnectionString {
    /// Splits a URL or a list of `key=value` pairs.
    pub(super) fn split(text: &str) -> Result<Self> {
        let text = text.trim();
        let url = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let split = match url {
            Some(url) => Self::split_url(url)?,
            None if text.split_once("://").is_some_and(|(scheme, _)| is_word(scheme)) => {
                return Err(invalid("it starts with neither postgres:// nor postgresql://"));
            }
            None => Self::split_pairs(text)?,
        };
        match split.get("dbname") {
            Some(name) if name.contains("://") => Err(invalid("its database is a URL of its own")),
            _ => Ok(split),
        }
    }

    /// The last value that was given to a parameter; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn split_url(url: &str) -> Result<Self> {
        let mut split = Self::default();
        let login = url.find(['@', '/']).filter(|place| url[*place..].starts_with('@'));
        let servers = match login {
            None => url,
            Some(place) => {
                let (user, password) = url[..place].split_once(':').unwrap_or((&url[..place], ""));
                if is_server_with_query(user, password) {
                    return Err(invalid("an @ in its query comes before any /")
                        .with_remedy("write a / before the ?, or %40 for the @ and %3F for a ?"));
                }
                split.put("user", percent_decoded(user)?);
                split.put("password", percent_decoded(password)?);
                &url[place + 1..]
            }
        };
        let (place, query) = servers.split_once('?').unwrap_or((servers, ""));
        let (netloc, database) = place.split_once('/').unwrap_or((place, ""));
        // What stands before another @ may be the rest of a password, or all of it.
        if netloc.contains('@')
            || database.contains('@') && (login.is_some() || netloc.contains(':'))
        {
            return Err(invalid("it has an @ too many, or a / in its password").with_remedy(
                "write %40 for an @ in the user, the password or the database, and %2F for a /",
            ));
        }
        split.put_servers(netloc)?;
        split.put("dbname", percent_decoded(database)?);
        let names_password = login.is_some() || netloc.contains(':');
        split.put_query(query, names_password)?;
        Ok(split)
    }

    /// What looks like a parameter before an @ may be a part of a password, where there is one.
    fn put_query(&mut self, query: &str, names_password: bool) -> Result<()> {
        let mut left = query;
        while !left.is_empty() {
            let (pair, after) = left.split_once('&').unwrap_or((left, ""));
            let is_doubtful = names_password && left.contains('@');
            left = after;
            if pair.is_empty() {
                continue;
            }
            let (key, value) =
                pair.split_once('=').ok_or_else(|| invalid("a parameter has no value"))?;
            if value.contains('=') {
                return Err(invalid("a parameter has a second =")
                    .with_remedy("write %3D for an = in a value, and & between parameters"));
            }
            self.keep(percent_decoded(key)?, percent_decoded(value)?, is_doubtful)?;
        }
        Ok(())
    }

    /// `host:port` several times, separated by commas; an address of IPv6 stands in brackets.
    fn put_servers(&mut self, netloc: &str) -> Result<()> {
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for server in netloc.split(',') {
            let (host, rest) = match server.strip_prefix('[') {
                Some(inner) => {
                    let parts = inner.split_once(']').filter(|(address, _)| !address.is_empty());
                    parts.ok_or_else(|| {
                        invalid("the brackets of an address are not closed or empty")
                    })?
                }
                None => server.split_at(server.find(':').unwrap_or(server.len())),
            };
            let port = match rest.strip_prefix(':') {
                Some(port) => port,
                None if rest.is_empty() => "",
                None => return Err(invalid("something follows the brackets of an address")),
            };
            hosts.push(percent_decoded(host)?);
            ports.push(percent_decoded(port)?);
        }
        let listed = |parts: Vec<String>| {
            let is_given = parts.iter().any(|part| !part.is_empty());
            if is_given { parts.join(",") } else { String::new() }
        };
        self.put("host", listed(hosts));
        self.put("port", listed(ports));
        Ok(())
    }

    fn split_pairs(text: &str) -> Result<Self> {
        let mut split = Self::default();
        let mut left = text;
        while !left.is_empty() {
            let (key, after) =
                left.split_once('=').ok_or_else(|| invalid("a parameter has no value"))?;
            let after = after.trim_start();
            let (value, length) = pair_value(after)?;
            split.keep(key.trim().to_owned(), value, false)?;
            left = after[length..].trim_start();
        }
        Ok(split)
    }

    fn put(&mut self, name: &str, value: String) {
        self.parameters.push((name.to_owned(), value));
    }

    /// Notes a parameter that somebody typed; a doubtful name may be a part of a password.
    fn keep(&mut self, key: String, value: String, is_doubtful: bool) -> Result<()> {
        if key == "requiressl" {
            // What it was called before sslmode; libpq translates it, too.
            let mode = if value.starts_with('1') { "require" } else { "prefer" };
            self.put("sslmode", mode.to_owned());
            return Ok(());
        }
        if REFUSED.contains(&key.as_str()) {
            return Err(invalid(&format!("postrider cannot honour the parameter {key}")));
        }
        if !KNOWN.contains(&key.as_str()) {
            return Err(unknown(&key, is_doubtful || self.may_hold_password));
        }
        self.may_hold_password |= key == "password";
        self.parameters.push((key, value));
        Ok(())
    }
}

/// The error for a name that nobody knows.
fn unknown(name: &str, may_hold_password: bool) -> Error {
    let looks_like_one = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if looks_like_one && !may_hold_password {
        return invalid(&format!("the parameter {name} is not known"));
    }
    invalid("a parameter is not known, or a value before it is not quoted or encoded").with_remedy(
        "quote a value with spaces, as in password='my word'; in a URL write %40 for @, %26 for & \
         and %3F for ?",
    )
}

/// What libpq takes for a login, and nobody means: `host?user=me@there`, `host:5432?user=me@there`.
fn is_server_with_query(user: &str, password: &str) -> bool {
    let behind_port = password.trim_start_matches(is_digit);
    user.contains('?') || behind_port.starts_with('?') && behind_port.contains('=')
}

fn is_digit(character: char) -> bool {
    character.is_ascii_digit()
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The error for a connection string without meaning; never shows the string itself.
pub(super) fn invalid(reason: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the database URL has no meaning: {reason}"))
        .with_remedy("write it as postgres://user:password@host:5432/database?sslmode=verify-full")
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

/// A value that is one plain word, as it may be shown; whatever else it is may hold a secret.
pub(super) fn shown(value: &str) -> String {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    if is_plain { format!("={value}") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(String, String)> {
        let given = ConnectionString::split(text).unwrap().parameters;
        given.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    fn owned(parts: &[(&str, &str)]) -> Vec<(String, String)> {
        parts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// What `psql` makes of them, as `PQconninfoParse` tells.
    #[test]
    fn urls_fall_into_the_parts_of_libpq() {
        for (url, expected) in [
            (
                "postgres://u:p?w@h1:1,h2:2/db?sslmode=verify-ca&sslrootcert=%2Fa%20b&keepalives_idle=7",
                &[
                    ("user", "u"),
                    ("password", "p?w"),
                    ("host", "h1,h2"),
                    ("port", "1,2"),
                    ("dbname", "db"),
                    ("sslmode", "verify-ca"),
                    ("sslrootcert", "/a b"),
                    ("keepalives_idle", "7"),
                ][..],
            ),
            (
                "postgresql://127.0.0.1:5432/shop?user=relay@srv&password=hunter2&sslmode=require",
                &[
                    ("host", "127.0.0.1"),
                    ("port", "5432"),
                    ("dbname", "shop"),
                    ("user", "relay@srv"),
                    ("password", "hunter2"),
                    ("sslmode", "require"),
                ],
            ),
            (
                "postgres://u@h/d?application_name=relay@host1",
                &[
                    ("user", "u"),
                    ("host", "h"),
                    ("dbname", "d"),
                    ("application_name", "relay@host1"),
                ],
            ),
            ("postgres://h/?requiressl=1", &[("host", "h"), ("sslmode", "require")]),
            ("postgres://h/?requiressl=0", &[("host", "h"), ("sslmode", "prefer")]),
            ("postgres://h/?user=a@b", &[("host", "h"), ("user", "a@b")]),
            ("postgres:///?user=a@b", &[("user", "a@b")]),
            ("postgres://h/d@b", &[("host", "h"), ("dbname", "d@b")]),
            ("postgres://u%40s:p%2F%40@h", &[("user", "u@s"), ("password", "p/@"), ("host", "h")]),
            ("postgres://u:a:b@h", &[("user", "u"), ("password", "a:b"), ("host", "h")]),
            ("postgres://:p@h", &[("password", "p"), ("host", "h")]),
            (
                "postgres://[::1]:1,[fe80::2]/d",
                &[("host", "::1,fe80::2"), ("port", "1,"), ("dbname", "d")],
            ),
            (
                "postgres://%2Frun%2Fpg/d?host=x",
                &[("host", "/run/pg"), ("dbname", "d"), ("host", "x")],
            ),
            ("postgres:///d?host=/run", &[("dbname", "d"), ("host", "/run")]),
            ("postgres://", &[]),
        ] {
            assert_eq!(parts(url), owned(expected), "{url}");
        }
    }

    #[test]
    fn pairs_fall_into_the_parts_of_libpq() {
        let text =
            r"host = h  sslmode=require password='it\'s' user=a\ b sslcert='/a \'b' dbname=d";
        let expected = [
            ("host", "h"),
            ("sslmode", "require"),
            ("password", "it's"),
            ("user", "a b"),
            ("sslcert", "/a 'b"),
            ("dbname", "d"),
        ];
        assert_eq!(parts(text), owned(&expected));
        assert_eq!(parts("password=a://b host=h"), owned(&[("password", "a://b"), ("host", "h")]));
    }

    #[test]
    fn refuses_what_has_no_meaning_without_showing_it() {
        for text in [
            "mysql://u:secret@h/d",
            "postgres://u:secret@h/d?sslmode",
            "postgres://u:secret@h/d?sslmode=%zz",
            "postgres://u:secret@h/d?service=x",
            "postgres://h/d?password=secret=x",
            "postgres://u:1/secret@h/d",
            "postgres://h?password=secret@h",
            "postgres://h:5432?password=secret@h",
            "postgres://u:my@secret@h/d",
            "postgres://u:secret@[::1/d",
            "postgres://u:secret@[]/d",
            "postgres://u:secret@[::1]x/d",
            "dbname=postgres://u:secret@h/d",
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
