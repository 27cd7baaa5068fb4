//! What each mode proves, and which certificates are believed.

use crate::postgres::tls::*;

fn file() -> Option<Roots> {
    Some(Roots::File("/root.crt".into()))
}

#[test]
fn each_mode_proves_what_libpq_proves() {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let table = [
        (Some(Disable), None, ServerProof::Nothing),
        (Some(Disable), file(), ServerProof::Nothing),
        (Some(Allow), None, ServerProof::Nothing),
        (Some(Allow), file(), ServerProof::Nothing),
        (Some(Prefer), None, ServerProof::Nothing),
        (Some(Prefer), file(), ServerProof::Nothing),
        (None, file(), ServerProof::Nothing),
        (Some(Require), None, ServerProof::Nothing),
        (Some(Require), file(), ServerProof::Chain),
        (Some(VerifyCa), file(), ServerProof::Chain),
        (Some(VerifyFull), file(), ServerProof::ChainAndName),
        (Some(VerifyFull), Some(Roots::System), ServerProof::ChainAndName),
        (None, Some(Roots::System), ServerProof::ChainAndName),
    ];
    for (mode, roots, proof) in table {
        let settings = TlsSettings::new(mode, roots.clone(), None).unwrap();
        assert_eq!(settings.proof(), proof, "{mode:?} {roots:?}");
    }
}

#[test]
fn refuses_what_libpq_refuses() {
    use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    for mode in [Disable, Prefer, Require, VerifyCa] {
        assert!(TlsSettings::new(Some(mode), Some(Roots::System), None).is_err(), "{mode:?}");
    }
    for mode in [VerifyCa, VerifyFull] {
        assert!(TlsSettings::new(Some(mode), None, None).is_err(), "{mode:?}");
    }
    assert!("verify".parse::<SslMode>().is_err());
}

#[test]
fn only_allow_and_prefer_may_go_without_encryption() {
    let attempts = |mode| TlsSettings::new(mode, file(), None).unwrap().attempts();
    assert_eq!(attempts(None), [Attempt::EncryptedIfOffered, Attempt::Open]);
    assert_eq!(attempts(Some(SslMode::Disable)), [Attempt::Open]);
    assert_eq!(attempts(Some(SslMode::Allow)), [Attempt::Open, Attempt::Encrypted]);
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        assert_eq!(attempts(Some(mode)), [Attempt::Encrypted]);
    }
}

#[test]
fn a_missing_or_empty_file_is_named() {
    for (path, word) in [("/nowhere/root.crt", "/nowhere/root.crt"), ("/dev/null", "no cert")] {
        let roots = Some(Roots::File(path.into()));
        let settings = TlsSettings::new(Some(SslMode::VerifyFull), roots, None).unwrap();
        let error = settings.client_config(SslNegotiation::Postgres).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(word), "{error}");
    }
}

const DAY: u64 = 86_400;

fn certificate_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

/// What comes of a server that shows `shown` under `name` at `day`, when `self_signed.pem` is the
/// root.
fn meet(
    proof: ServerProof,
    shown: &str,
    name: &str,
    day: u64,
) -> std::result::Result<ServerCertVerified, rustls::Error> {
    meet_by("self_signed.pem", proof, shown, name, day)
}

fn meet_by(
    root: &str,
    proof: ServerProof,
    shown: &str,
    name: &str,
    day: u64,
) -> std::result::Result<ServerCertVerified, rustls::Error> {
    let roots = Roots::File(certificate_file(root));
    let verifier = Verifier::new(proof, Some(&roots), &PROVIDER).unwrap();
    let shown = certificates("sslrootcert", &certificate_file(shown)).unwrap();
    let name = ServerName::try_from(name).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(day * DAY));
    verifier.verify_server_cert(&shown[0], &[], &name, &[], now)
}

/// Of version 1, and with no name but the subject's: as `psql` takes them.
#[test]
fn certificates_of_the_old_ways_are_believed_as_libpq_does() {
    use ServerProof::{Chain, ChainAndName};
    const IN_2030: u64 = 21_915;
    for (root, proof, shown, name, day, believed) in [
        ("v1_self.pem", Chain, "v1_self.pem", "other", IN_2030, true),
        ("v1_self.pem", ChainAndName, "v1_self.pem", "localhost", IN_2030, true),
        ("v1_self.pem", ChainAndName, "v1_self.pem", "other", IN_2030, false),
        ("v1_self.pem", Chain, "v1_self.pem", "localhost", 0, false),
        ("v1_self.pem", Chain, "v1_self.pem", "localhost", 5 * IN_2030, false),
        ("recipe_root.pem", Chain, "recipe_server.pem", "other", IN_2030, true),
        ("recipe_root.pem", ChainAndName, "recipe_server.pem", "LOCALHOST", IN_2030, true),
        ("recipe_root.pem", ChainAndName, "recipe_server.pem", "other", IN_2030, false),
        ("recipe_root.pem", Chain, "recipe_server.pem", "localhost", 5 * IN_2030, false),
        // Signed by nobody who is believed, or by one who is no authority.
        ("recipe_root.pem", Chain, "v1_self.pem", "localhost", IN_2030, false),
        ("v1_self.pem", Chain, "recipe_server.pem", "localhost", IN_2030, false),
        ("cn_only.pem", ChainAndName, "cn_only.pem", "localhost", IN_2030, true),
        ("cn_only.pem", ChainAndName, "cn_only.pem", "other", IN_2030, false),
        ("cn_wildcard.pem", ChainAndName, "cn_wildcard.pem", "db.example", IN_2030, true),
        ("cn_wildcard.pem", ChainAndName, "cn_wildcard.pem", "a.db.example", IN_2030, false),
    ] {
        let found = meet_by(root, proof, shown, name, day);
        assert_eq!(found.is_ok(), believed, "{root} {proof:?} {shown} {name} {day}: {found:?}");
    }
}

#[test]
fn a_certificate_that_is_itself_the_root_is_believed() {
    use ServerProof::{Chain, ChainAndName};
    const IN_2030: u64 = 21_915;
    for (proof, shown, name, day, believed) in [
        (Chain, "self_signed.pem", "db.example", IN_2030, true),
        (Chain, "self_signed.pem", "other.example", IN_2030, true),
        (ChainAndName, "self_signed.pem", "db.example", IN_2030, true),
        (ChainAndName, "self_signed.pem", "other.example", IN_2030, false),
        // Another one with the same name, and the right one after and before its time.
        (Chain, "other.pem", "db.example", IN_2030, false),
        (ChainAndName, "other.pem", "db.example", IN_2030, false),
        (Chain, "self_signed.pem", "db.example", 5 * IN_2030, false),
        (Chain, "self_signed.pem", "db.example", 0, false),
    ] {
        let found = meet(proof, shown, name, day);
        assert_eq!(found.is_ok(), believed, "{proof:?} {shown} {name} {day}: {found:?}");
    }
    let unknown = meet(Chain, "other.pem", "db.example", IN_2030).unwrap_err();
    assert_eq!(unknown, CertificateError::UnknownIssuer.into());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    for (owner, mode, exposed) in [
        (1000, 0o100_600, false),
        (1000, 0o100_400, false),
        (1000, 0o100_640, true),
        (1000, 0o100_604, true),
        (0, 0o100_640, false),
        (0, 0o100_660, true),
        (0, 0o100_644, true),
    ] {
        assert_eq!(is_exposed(owner, mode), exposed, "{owner} {mode:o}");
    }
}

#[test]
fn what_is_weak_is_told() {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let weakness = |mode, roots| TlsSettings::new(mode, roots, None).unwrap().weakness();
    for mode in [None, Some(Disable), Some(Allow), Some(Prefer)] {
        assert!(weakness(mode, None).unwrap().contains("without encryption"), "{mode:?}");
    }
    assert!(weakness(Some(Require), None).unwrap().contains("who the server is"));
    assert!(weakness(Some(Require), file()).unwrap().contains("name"));
    assert!(weakness(Some(VerifyCa), file()).unwrap().contains("name"));
    assert_eq!(weakness(Some(VerifyFull), file()), None);
}
