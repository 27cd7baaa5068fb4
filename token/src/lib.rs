//! Gives a client of librdkafka what it logs in with: an OAUTHBEARER token, or a user and a password.
//!
//! The safe wrapper asks for a token only where a client is polled, passes no extensions on, and never polls
//! a client for administration: such a client could not log in. A password it knows as a setting alone, which
//! holds for a client's life. This crate is the one place with unsafe code.
//!
//! Promises: the client has the credential, or says why not; what is said never quotes it. Must not: keep
//! one. Fails: when the token is not in the form that SASL asks for, or the client logs in in another way.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use rdkafka::bindings::{
    rd_kafka_error_destroy, rd_kafka_error_string, rd_kafka_oauthbearer_set_token,
    rd_kafka_resp_err_t, rd_kafka_sasl_set_credentials,
};
use rdkafka::client::{Client, ClientContext};

const SECRET_BYTES_MIN: usize = 4;

/// What a client shows to the brokers.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// The token itself.
    pub value: &'a str,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_millis: i64,
    /// Whom it stands for; only for librdkafka's own log.
    pub principal: &'a str,
    /// SASL extensions, as names with their values.
    pub extensions: &'a [(String, String)],
}

impl std::fmt::Debug for Token<'_> {
    /// Without the token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Token")
            .field("expires_at_millis", &self.expires_at_millis)
            .finish_non_exhaustive()
    }
}

/// Gives the client a token, in place of the one that it has. Connections that are open keep the one they
/// were opened with until the broker asks for another.
///
/// # Errors
/// Why librdkafka does not take it.
pub fn set_token<C: ClientContext>(client: &Client<C>, token: &Token<'_>) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "it holds a zero byte".to_owned());
    check_extensions(token.extensions)?;
    let (value, principal) = (text(token.value)?, text(token.principal)?);
    let extensions = token.extensions.iter().flat_map(|(name, value)| [name, value]);
    let extensions: Vec<CString> = extensions.map(|part| text(part)).collect::<Result<_, _>>()?;
    let mut parts: Vec<*const c_char> = extensions.iter().map(|part| part.as_ptr()).collect();
    let mut said = [0 as c_char; 512];
    // SAFETY: the client outlives the call, all strings end in zero and outlive it, and `said` has the size that
    // is named. librdkafka copies what it keeps, and this function may be called by any thread.
    #[allow(unsafe_code, reason = "a function of C")]
    let answer = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.expires_at_millis,
            principal.as_ptr(),
            if parts.is_empty() { ptr::null_mut() } else { parts.as_mut_ptr() },
            parts.len(),
            said.as_mut_ptr(),
            said.len(),
        )
    };
    if answer == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let said: Vec<u8> = said.iter().map(|character| character.to_ne_bytes()[0]).collect();
    let said = CStr::from_bytes_until_nul(&said).unwrap_or_default();
    let values = token.extensions.iter().map(|(_, value)| value.as_str());
    // A shorter one would take letters out of words, and is no secret.
    let values = values.filter(|value| value.len() >= SECRET_BYTES_MIN).chain([token.value]);
    Err(values.fold(said.to_string_lossy().into_owned(), |said, value| without_value(&said, value)))
}

/// A user and a password, for PLAIN and SCRAM.
#[derive(Clone, Copy)]
pub struct Password<'a> {
    /// Who logs in.
    pub username: &'a str,
    /// What proves it.
    pub password: &'a str,
}

impl std::fmt::Debug for Password<'_> {
    /// Without either.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Password").finish_non_exhaustive()
    }
}

/// Gives the client a user and a password, in place of those that it has. Connections that are open stay open;
/// one that could not log in is tried again at once.
///
/// # Errors
/// Why librdkafka does not take them.
pub fn set_password<C: ClientContext>(
    client: &Client<C>,
    login: &Password<'_>,
) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "it holds a zero byte".to_owned());
    let (username, password) = (text(login.username)?, text(login.password)?);
    // SAFETY: the client outlives the call, both strings end in zero and outlive it. librdkafka copies them, under a
    // lock of its own: any thread may call this. What it returns is null or an error that is ours to destroy.
    #[allow(unsafe_code, reason = "a function of C")]
    let said = unsafe {
        let error = rd_kafka_sasl_set_credentials(
            client.native_ptr(),
            username.as_ptr(),
            password.as_ptr(),
        );
        if error.is_null() {
            return Ok(());
        }
        let said = CStr::from_ptr(rd_kafka_error_string(error)).to_string_lossy().into_owned();
        rd_kafka_error_destroy(error);
        said
    };
    Err(without_value(&said, login.password))
}

/// What librdkafka says quotes no token as far as known; this makes sure.
fn without_value(said: &str, value: &str) -> String {
    if value.is_empty() { said.to_owned() } else { said.replace(value, "***") }
}

/// As RFC 7628 has them. librdkafka would quote what it refuses.
fn check_extensions(extensions: &[(String, String)]) -> Result<(), String> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_value = |value: &str| {
        !value.is_empty()
            && value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'))
    };
    for (number, (name, value)) in (1..).zip(extensions) {
        if name == "auth" {
            return Err("an extension has the name auth, which is reserved".to_owned());
        }
        if !is_name(name) {
            return Err(format!(
                "the name of extension {number} has other characters than letters"
            ));
        }
        if !is_value(value) {
            return Err(format!(
                "the value of extension {number} is empty or has a character that SASL does not take"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, Producer as _};

    use super::*;

    const HOUR_MILLIS: i64 = 3_600_000;

    fn client(mechanism: &str) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("security.protocol", "SASL_PLAINTEXT");
        config
            .set("sasl.mechanisms", mechanism)
            .set("sasl.username", "u")
            .set("sasl.password", "p");
        config.create().expect("the configuration is good")
    }

    fn token<'a>(value: &'a str, extensions: &'a [(String, String)]) -> Token<'a> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        let now = i64::try_from(now.as_millis()).expect("it fits");
        Token { value, expires_at_millis: now + HOUR_MILLIS, principal: "us", extensions }
    }

    fn extension(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_token_is_taken_with_and_without_extensions() {
        let producer = client("OAUTHBEARER");
        assert_eq!(set_token(producer.client(), &token("a.b.c", &[])), Ok(()));
        let more = extension("logicalCluster", "lkc-1");
        assert_eq!(set_token(producer.client(), &token("a.b.d", &more)), Ok(()));
    }

    #[test]
    fn a_password_is_taken_and_never_shown() {
        let producer = client("SCRAM-SHA-256");
        let login = |password| Password { username: "us", password };
        assert_eq!(set_password(producer.client(), &login("hush")), Ok(()));
        assert_eq!(set_password(producer.client(), &login("")), Ok(()));
        let said = set_password(producer.client(), &login("hush\0")).expect_err("it is refused");
        assert!(said.contains("zero byte") && !said.contains("hush"), "{said}");
        assert!(!format!("{:?}", login("hush")).contains("hush"));
    }

    #[test]
    fn what_is_refused_is_told_without_the_token() {
        let producer = client("OAUTHBEARER");
        let old = Token { expires_at_millis: 1, ..token("hush-hush", &[]) };
        let wrong = extension("hush a name", "x");
        let reserved = extension("auth", "hush");
        let control = extension("ab", "hush\u{1}");
        let empty = extension("ab", "");
        for (token, word) in [
            (old, "unexpired"),
            (token("hush\u{1}hush", &[]), "character"),
            (token("hush\0hush", &[]), "zero byte"),
            (token("hush", &wrong), "extension"),
            (token("hush", &reserved), "auth"),
            (token("other", &control), "value of extension 1"),
            (token("other", &empty), "value of extension 1"),
        ] {
            let said = set_token(producer.client(), &token).expect_err("it is refused");
            assert!(said.contains(word) && !said.contains("hush"), "{said}");
        }
        let other = client("SCRAM-SHA-256");
        let said = set_token(other.client(), &token("hush", &[])).expect_err("it is refused");
        assert!(said.contains("OAUTHBEARER"), "{said}");
        assert!(!format!("{:?}", token("hush", &[])).contains("hush"));
    }
}
