//! How clients log in to Kafka, as far as it can be judged without a broker.
//!
//! Promises: what can only fail is refused with what is missing; `--kafka-token-command` alone means
//! OAUTHBEARER. Must not: connect, or show a value that may be a secret. Fails: with [`ErrorKind::Config`].

use rdkafka::config::ClientConfig;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::SecretCommand;

const PROTOCOL: &str = "security.protocol";
/// librdkafka's own name, and the one that it takes for the same.
const MECHANISMS: [&str; 2] = ["sasl.mechanisms", "sasl.mechanism"];
/// What librdkafka takes for granted: Kerberos, which is not built in.
const KERBEROS: &str = "GSSAPI";
const BEARER: &str = "OAUTHBEARER";
const KNOWN: &str = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";

/// Completes what was said of logging in.
pub(super) fn settle(
    config: &mut ClientConfig,
    token_command: Option<&SecretCommand>,
) -> Result<()> {
    let protocol = config.get(PROTOCOL).unwrap_or("plaintext").trim().to_ascii_uppercase();
    let mechanism = MECHANISMS.iter().find_map(|name| config.get(name));
    let mechanism = mechanism.map(|mechanism| mechanism.trim().to_ascii_uppercase());
    let is_sasl = protocol.starts_with("SASL_");
    if token_command.is_some() {
        check_token_command(config, is_sasl, mechanism.as_deref())?;
        config.set(MECHANISMS[0], BEARER);
        return Ok(());
    }
    if !is_sasl {
        return Ok(());
    }
    match mechanism.as_deref() {
        None => Err(missing(&format!("{PROTOCOL}={protocol} needs sasl.mechanisms"))
            .with_remedy(format!("set sasl.mechanisms to {KNOWN}"))),
        Some(KERBEROS) => Err(missing("sasl.mechanisms=GSSAPI (Kerberos) is not built in")
            .with_remedy(format!("set sasl.mechanisms to {KNOWN}"))),
        Some(BEARER) if !has_own_tokens(config) => {
            Err(missing("sasl.mechanisms=OAUTHBEARER has nowhere to get a token from").with_remedy(
                "give --kafka-token-command, or sasl.oauthbearer.method=oidc with its properties",
            ))
        }
        Some(mechanism @ ("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512")) => {
            check_password(config, mechanism)
        }
        Some(_) => Ok(()),
    }
}

fn missing(cause: &str) -> Error {
    Error::new(ErrorKind::Config, cause)
}

fn check_token_command(
    config: &ClientConfig,
    is_sasl: bool,
    mechanism: Option<&str>,
) -> Result<()> {
    if !is_sasl {
        return Err(missing("--kafka-token-command needs security.protocol=SASL_SSL").with_remedy(
            "set security.protocol by -X, POSTRIDER_X_SECURITY_PROTOCOL or [librdkafka]",
        ));
    }
    if mechanism.is_some_and(|mechanism| mechanism != BEARER) {
        return Err(missing("--kafka-token-command is for sasl.mechanisms=OAUTHBEARER alone")
            .with_remedy("leave --kafka-token-command out, or sasl.mechanisms"));
    }
    if has_own_tokens(config) {
        let cause = "--kafka-token-command and sasl.oauthbearer.method=oidc both give tokens";
        return Err(missing(cause).with_remedy("leave one of them out"));
    }
    Ok(())
}

/// Whether librdkafka gets tokens by itself.
fn has_own_tokens(config: &ClientConfig) -> bool {
    let is = |name: &str, word: &str| {
        config.get(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word))
    };
    is("sasl.oauthbearer.method", "oidc") || is("enable.sasl.oauthbearer.unsecure.jwt", "true")
}

fn check_password(config: &ClientConfig, mechanism: &str) -> Result<()> {
    let lacks = |name: &&&str| config.get(name).is_none_or(str::is_empty);
    match ["sasl.username", "sasl.password"].iter().find(lacks) {
        None => Ok(()),
        Some(name) => Err(missing(&format!("sasl.mechanisms={mechanism} needs {name}"))
            .with_remedy("give it by POSTRIDER_X_…, POSTRIDER_X_…_FILE or [librdkafka-files]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(properties: &[(&str, &str)], command: Option<&str>) -> Result<ClientConfig> {
        let mut config = ClientConfig::new();
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let command = command.map(|typed| {
            SecretCommand::parse(crate::publish::kafka::tokens::COMMAND, typed).unwrap()
        });
        settle(&mut config, command.as_ref()).map(|()| config)
    }

    #[test]
    fn what_can_only_fail_is_told_with_what_is_missing() {
        let sasl = ("security.protocol", "sasl_ssl");
        for (properties, word) in [
            (&[sasl][..], "sasl.mechanisms to PLAIN"),
            (&[sasl, ("sasl.mechanism", "gssapi")], "sasl.mechanisms to PLAIN"),
            (&[sasl, ("sasl.mechanisms", "SCRAM-SHA-512")], "needs sasl.username"),
            (&[sasl, ("sasl.mechanisms", "PLAIN"), ("sasl.username", "u")], "needs sasl.password"),
            (&[sasl, ("sasl.mechanisms", "OAUTHBEARER")], "--kafka-token-command"),
        ] {
            let error = settled(properties, None).unwrap_err();
            let said = format!("{} {}", error.message(), error.remedy().unwrap_or_default());
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(said.contains(word), "{said}");
        }
        let oidc = [sasl, ("sasl.mechanisms", "OAUTHBEARER"), ("sasl.oauthbearer.method", "OIDC")];
        assert!(settled(&oidc, None).is_ok());
        assert!(settled(&[("security.protocol", "ssl")], None).is_ok());
        assert!(settled(&[], None).is_ok());
    }

    #[test]
    fn a_token_command_means_oauthbearer_and_nothing_else() {
        let sasl = ("security.protocol", "SASL_SSL");
        let config = settled(&[sasl], Some("true")).unwrap();
        assert_eq!(config.get("sasl.mechanisms"), Some("OAUTHBEARER"));
        for (properties, word) in [
            (&[][..], "security.protocol=SASL_SSL"),
            (&[("security.protocol", "ssl")], "security.protocol=SASL_SSL"),
            (&[sasl, ("sasl.mechanisms", "PLAIN")], "OAUTHBEARER alone"),
            (&[sasl, ("sasl.oauthbearer.method", "oidc")], "both give tokens"),
        ] {
            let error = settled(properties, Some("true")).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
    }
}
