//! The addresses of Kafka's brokers.
//!
//! Promises: what can never be reached is refused before anything is asked, and by each command. Must not: resolve a name.
//! Fails: with [`ErrorKind::Config`] and the address that is none.

use std::net::Ipv6Addr;

use crate::error::{Error, ErrorKind, Result};

/// What librdkafka takes before an address; case does not matter to it.
const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const REMEDY: &str =
    "give host:port, or several separated by commas, like kafka-1:9092,kafka-2:9092";

/// The addresses, if each is one.
///
/// # Errors
/// [`ErrorKind::Config`] for the first that is none.
pub(super) fn checked(brokers: &str) -> Result<String> {
    let brokers = brokers.trim();
    if brokers.trim_matches(',').is_empty() {
        return Err(Error::new(ErrorKind::Config, "--brokers is empty").with_remedy(REMEDY));
    }
    if brokers.contains('@') {
        // Not shown: what stands before it is a password, mostly.
        let cause = "--brokers holds an @, which no address has";
        return Err(Error::new(ErrorKind::Config, cause).with_remedy(
            "give host:port alone; the login goes into -X sasl.username and sasl.password (POSTRIDER_X_…_FILE)",
        ));
    }
    // An empty one is passed over, as librdkafka does.
    for address in brokers.split(',').map(str::trim).filter(|address| !address.is_empty()) {
        if let Some(flaw) = flaw(address) {
            let cause = format!("--brokers: {address:?} is no address: {flaw}");
            return Err(Error::new(ErrorKind::Config, cause).with_remedy(REMEDY));
        }
    }
    Ok(brokers.to_owned())
}

/// What is wrong with an address.
fn flaw(address: &str) -> Option<&'static str> {
    let address = match address.split_once("://") {
        Some((protocol, rest)) if is_protocol(protocol) => rest,
        Some(_) => return Some("what stands before :// is none of Kafka's protocols"),
        None => address,
    };
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => ("[]", port),
            _ => return Some("what stands in brackets is no IPv6 address"),
        },
        None if address.parse::<Ipv6Addr>().is_ok() => return None,
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    if host.is_empty() {
        return Some("it names no host");
    }
    if host != "[]" && !host.chars().all(is_of_name) {
        return Some("a host's name has letters, digits, . - and _");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(port) if is_port(port) => None,
        _ => Some("a port is a number from 1 to 65535"),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|one| one.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_protocol(text: &str) -> bool {
    PROTOCOLS.iter().any(|protocol| text.eq_ignore_ascii_case(protocol))
}

/// Names with letters of other scripts are resolved as they are.
fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        for brokers in [
            "localhost:9092",
            "kafka",
            " a:1 , b_2.c:65535, ",
            "10.0.0.1:9092,[::1]:9092",
            "::1",
            "SSL://kafka:9093,sasl_ssl://kafka:9094",
        ] {
            assert_eq!(checked(brokers).expect("they are addresses"), brokers.trim());
        }
        for (brokers, word) in [
            ("kafka:99999", "from 1 to 65535"),
            ("kafka:0", "from 1 to 65535"),
            ("kafka:", "from 1 to 65535"),
            ("kafka:9092:9093", "from 1 to 65535"),
            ("kafka:+1", "from 1 to 65535"),
            ("good:1,:9092", "names no host"),
            ("http://kafka:9092", "none of Kafka's protocols"),
            ("kafka 9092", "letters, digits"),
            ("a:1;b:2", "from 1 to 65535"),
            ("[kafka]:9092", "no IPv6 address"),
            ("[::1]9092", "from 1 to 65535"),
            ("a/b:1", "letters, digits"),
            (",", "is empty"),
            ("", "is empty"),
            ("me:hush@kafka:9092", "holds an @"),
        ] {
            let refused = checked(brokers).expect_err("it is none");
            assert!(refused.message().contains(word), "{brokers}: {refused}");
            assert!(!refused.to_string().contains("hush"), "{refused}");
        }
    }
}
