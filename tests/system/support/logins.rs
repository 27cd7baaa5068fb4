//! The ways to log in to the shared Kafka: TLS, SASL over an open socket, SASL over TLS.

use std::fs;
use std::path::{Path, PathBuf};

use postrider_testkit::servers::{KafkaOptions, Listener};
use sha2::{Digest as _, Sha256};

use super::acl;

/// Who comes in by SCRAM.
pub(crate) const USER: &str = "relay";
pub(crate) const PASSWORD: &str = "hush-kafka";

/// Each with how it is protected. Whoever comes in by SASL must show a token again before the one that it
/// came in with ends.
const LISTENERS: [(&str, &str); 3] =
    [("TLS", "SSL"), ("SASL", "SASL_PLAINTEXT"), ("SASLTLS", "SASL_SSL")];
const SASL: [(&str, &str); 4] = [
    ("sasl.enabled.mechanisms", "SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"),
    (
        "scram-sha-256.sasl.jaas.config",
        "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    ),
    (
        "scram-sha-512.sasl.jaas.config",
        "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    ),
    (
        "oauthbearer.sasl.jaas.config",
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
         unsecuredLoginStringClaim_sub=\"broker\";",
    ),
];

/// How the shared broker is started.
pub(crate) fn kafka_options() -> KafkaOptions {
    let listeners = LISTENERS
        .map(|(name, protocol)| Listener { name: name.to_owned(), protocol: protocol.to_owned() });
    let mut properties = vec![
        ("ssl.keystore.type".to_owned(), "PEM".to_owned()),
        ("ssl.keystore.location".to_owned(), key_store().display().to_string()),
    ];
    for listener in ["sasl", "sasltls"] {
        let named = |name: &str| format!("listener.name.{listener}.{name}");
        properties.extend(SASL.map(|(name, value)| (named(name), value.to_owned())));
        let renewal = "oauthbearer.connections.max.reauth.ms";
        properties.push((named(renewal), "60000".to_owned()));
        // Whoever came in by a password must show it again soon: a change is met without a restart.
        let again = "scram-sha-256.connections.max.reauth.ms";
        properties.push((named(again), "2000".to_owned()));
    }
    KafkaOptions {
        listeners: listeners.to_vec(),
        scram_users: vec![(USER.to_owned(), PASSWORD.to_owned())],
        properties,
        ..KafkaOptions::default()
    }
}

/// Gives a user of SCRAM-SHA-256 this password; makes him first, where he is not there.
pub(crate) fn set_scram_password(broker: &str, user: &str, password: &str) {
    const ITERATIONS: u32 = 4_096;
    let salt = b"of a test alone.";
    let salted = derived_key(password.as_bytes(), salt, ITERATIONS);
    acl::upsert_scram_sha_256(broker, user, ITERATIONS, salt, &salted);
}

/// PBKDF2 by HMAC-SHA-256, one block. Source: RFC 8018, section 5.2, and RFC 2104.
fn derived_key(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut key = [0; 64];
    key[..password.len()].copy_from_slice(password);
    let keyed = |pad: u8, message: &[u8]| -> [u8; 32] {
        let padded = key.map(|byte| byte ^ pad);
        Sha256::new().chain_update(padded).chain_update(message).finalize().into()
    };
    let authenticate = |message: &[u8]| keyed(0x5c, &keyed(0x36, message));
    let mut block = authenticate(&[salt, &[0, 0, 0, 1]].concat());
    let mut derived = block;
    for _ in 1..iterations {
        block = authenticate(&block);
        derived.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    derived
}

/// The certificate that the broker shows: it names localhost, and is its own authority.
pub(crate) fn certificate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates/server.pem")
}

/// Key and certificate in one file, as Kafka reads them; the broker may run as another user.
fn key_store() -> PathBuf {
    let certificate = certificate();
    let key = certificate.with_extension("key");
    let read = |file: &Path| fs::read_to_string(file).expect("the certificate is there");
    let store =
        std::env::temp_dir().join(format!("postrider-key-store-{}.pem", std::process::id()));
    fs::write(&store, format!("{}{}", read(&key), read(&certificate))).expect("it can be written");
    store
}

/// A program that writes tokens, each of so many seconds, as the broker's validator without signatures takes
/// them. It notes each run.
pub(crate) struct TokenProgram {
    pub(crate) command: String,
    runs: PathBuf,
}

impl TokenProgram {
    pub(crate) fn new(name: &str, life_seconds: u32) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (script, runs) =
            (folder.join(format!("{name}.sh")), folder.join(format!("{name}.runs")));
        let text = format!(
            "now=$(date +%s); end=$((now + {life_seconds}))\n\
             safe() {{ base64 | tr -d '=\\n' | tr '/+' '_-'; }}\n\
             head=$(printf '{{\"alg\":\"none\"}}' | safe)\n\
             body=$(printf '{{\"sub\":\"relay\",\"iat\":%d,\"exp\":%d}}' \"$now\" \"$end\" | safe)\n\
             echo >>'{runs}'\n\
             printf '{{\"token\":\"%s.%s.\",\"expires_at_ms\":%d000,\"principal\":\"relay\"}}\\n' \
             \"$head\" \"$body\" \"$end\"\n",
            runs = runs.display(),
        );
        fs::write(&script, text).expect("it can be written");
        fs::write(&runs, "").expect("it can be written");
        Self { command: format!("sh '{}'", script.display()), runs }
    }

    /// How often it ran.
    pub(crate) fn runs(&self) -> usize {
        fs::read_to_string(&self.runs).expect("it is there").lines().count()
    }
}
