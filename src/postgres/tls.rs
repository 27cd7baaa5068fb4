//! Encryption: libpq's `sslmode` table, done by rustls.
//!
//! Promises: a mode verifies what it verifies in libpq: `verify-full` chain and name, `verify-ca` the
//! chain, `require` nothing unless a root certificate is there, weaker modes nothing. A server's
//! certificate that is itself in `sslrootcert` is believed. Files are read anew for each connection,
//! so a renewed certificate needs no restart.
//! Must not: fall back to less than the mode says.
//! Fails: a file that is missing or is not PEM is refused with its name.
//!
//! Source: PostgreSQL documentation, "SSL Support" of libpq, table "SSL Mode Descriptions".

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::error::{Error, ErrorKind, Result};

/// How much encryption, and how much proof of who the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                let cause = format!("sslmode{} is not known", super::config::shown(text));
                return Err(Error::new(ErrorKind::Config, cause)
                    .with_remedy("Use disable, allow, prefer, require, verify-ca or verify-full"));
            }
        })
    }
}

/// Whom to believe that the server is who it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// The operating system's certificates (`sslrootcert=system`).
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
}

/// What is proved about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Nothing,
    Chain,
    ChainAndName,
}

/// All that decides about encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsSettings {
    mode: SslMode,
    roots: Option<Roots>,
    identity: Option<Identity>,
}

/// The client's certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// One way to open a connection; `allow` and `prefer` know two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Open,
    EncryptedIfOffered,
    Encrypted,
}

impl TlsSettings {
    /// Settings that libpq would take, too.
    ///
    /// # Errors
    /// `verify-ca` and `verify-full` need roots; the system's roots need `verify-full`.
    pub(super) fn new(
        mode: Option<SslMode>,
        roots: Option<Roots>,
        identity: Option<Identity>,
    ) -> Result<Self> {
        let system = roots == Some(Roots::System);
        let mode = mode.unwrap_or(if system { SslMode::VerifyFull } else { SslMode::Prefer });
        if system && mode != SslMode::VerifyFull {
            let cause = "sslrootcert=system proves little without the server's name";
            return Err(Error::new(ErrorKind::Config, cause)
                .with_remedy("Use sslmode=verify-full with sslrootcert=system"));
        }
        if roots.is_none() && matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) {
            let cause = "sslmode=verify-ca and verify-full need a root certificate";
            return Err(Error::new(ErrorKind::Config, cause)
                .with_remedy("Add sslrootcert=FILE, or sslrootcert=system with verify-full"));
        }
        Ok(Self { mode, roots, identity })
    }

    /// The ways to try, in order.
    pub(super) fn attempts(&self) -> &'static [Attempt] {
        match self.mode {
            SslMode::Disable => &[Attempt::Open],
            SslMode::Allow => &[Attempt::Open, Attempt::Encrypted],
            SslMode::Prefer => &[Attempt::EncryptedIfOffered, Attempt::Open],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Attempt::Encrypted],
        }
    }

    fn proof(&self) -> Proof {
        match (self.mode, &self.roots) {
            (SslMode::VerifyFull, _) => Proof::ChainAndName,
            (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => Proof::Chain,
            _ => Proof::Nothing,
        }
    }

    /// Reads the files and builds what a handshake needs.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a file cannot be read or does not hold what it should.
    pub(super) fn client_config(&self) -> Result<ClientConfig> {
        let provider = Arc::clone(&PROVIDER);
        let verifier = Arc::new(Verifier::new(self.proof(), self.roots.as_ref(), &provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates("sslcert", &identity.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&identity.key)
            .map_err(|cause| unusable("sslkey", &identity.key, &cause))?;
        builder.with_client_auth_cert(chain, key).map_err(|cause| {
            let cause = format!("sslcert and sslkey do not fit together: {cause}");
            Error::new(ErrorKind::Config, cause).with_remedy("Give a certificate and its own key")
        })
    }
}

/// One provider for the process.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

fn unusable(parameter: &str, file: &Path, cause: &dyn fmt::Display) -> Error {
    let cause = format!("{parameter}: cannot use {}: {cause}", file.display());
    Error::new(ErrorKind::Config, cause)
        .with_remedy("Give a readable file in PEM form; a key must not need a passphrase")
}

fn certificates(parameter: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, pem::Error> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => Err(unusable(parameter, file, &"no certificate in it")),
        Ok(found) => Ok(found),
        Err(cause) => Err(unusable(parameter, file, &cause)),
    }
}

fn root_store(roots: &Roots) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::File(file) => {
            for certificate in certificates("sslrootcert", file)? {
                store.add(certificate).map_err(|cause| unusable("sslrootcert", file, &cause))?;
            }
        }
        Roots::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                let cause = "sslrootcert=system: the system has no root certificates";
                return Err(Error::new(ErrorKind::Config, cause)
                    .with_remedy("Install the ca-certificates package, or give sslrootcert=FILE"));
            }
        }
    }
    Ok(store)
}

/// Verifies what [`Proof`] asks for; signatures of the handshake always.
#[derive(Debug)]
enum Verifier {
    Nothing,
    Chain(Chain),
    ChainAndName(Chain),
}

impl Verifier {
    fn new(proof: Proof, roots: Option<&Roots>, provider: &Arc<CryptoProvider>) -> Result<Self> {
        match (roots, proof) {
            (Some(roots), Proof::Chain) => Chain::new(roots, provider).map(Self::Chain),
            (Some(roots), Proof::ChainAndName) => {
                Chain::new(roots, provider).map(Self::ChainAndName)
            }
            (None, _) | (_, Proof::Nothing) => Ok(Self::Nothing),
        }
    }
}

/// Whom to believe.
#[derive(Debug)]
struct Chain {
    authorities: Arc<WebPkiServerVerifier>,
    /// The certificates in the file of roots: a server may show one of them itself.
    named: Vec<CertificateDer<'static>>,
}

impl Chain {
    fn new(roots: &Roots, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let store = Arc::new(root_store(roots)?);
        let authorities = WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider))
            .build()
            .expect("the store is not empty");
        let named = match roots {
            Roots::System => Vec::new(),
            Roots::File(file) => certificates("sslrootcert", file)?,
        };
        Ok(Self { authorities, named })
    }

    /// Verifies the chain, then the name: an error about the name means that the chain is good.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match self.authorities.verify_server_cert(certificate, intermediates, name, &[], now) {
            Err(cause) if !is_authority(&cause) => Err(cause),
            Err(_) if self.named.iter().any(|named| named == certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(_) => Err(CertificateError::UnknownIssuer.into()),
            verified => verified,
        }
    }
}

/// Whether a certificate within its time was refused because it may sign others. What signs itself
/// mostly may, and libpq takes it; the verifier tells this by its text only.
fn is_authority(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(CertificateError::Other(cause))
            if cause.0.to_string() == "CaUsedAsEndEntity"
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _stapled: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match self {
            Self::Nothing => Ok(ServerCertVerified::assertion()),
            Self::ChainAndName(chain) => chain.verify(certificate, intermediates, name, now),
            Self::Chain(chain) => match chain.verify(certificate, intermediates, name, now) {
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                verified => verified,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Option<Roots> {
        Some(Roots::File("/root.crt".into()))
    }

    #[test]
    fn each_mode_proves_what_libpq_proves() {
        use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
        let table = [
            (Some(Disable), None, Proof::Nothing),
            (Some(Disable), file(), Proof::Nothing),
            (Some(Allow), None, Proof::Nothing),
            (Some(Allow), file(), Proof::Nothing),
            (Some(Prefer), None, Proof::Nothing),
            (Some(Prefer), file(), Proof::Nothing),
            (None, file(), Proof::Nothing),
            (Some(Require), None, Proof::Nothing),
            (Some(Require), file(), Proof::Chain),
            (Some(VerifyCa), file(), Proof::Chain),
            (Some(VerifyFull), file(), Proof::ChainAndName),
            (Some(VerifyFull), Some(Roots::System), Proof::ChainAndName),
            (None, Some(Roots::System), Proof::ChainAndName),
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
            let error = settings.client_config().unwrap_err();
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
        proof: Proof,
        shown: &str,
        name: &str,
        day: u64,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let roots = Roots::File(certificate_file("self_signed.pem"));
        let verifier = Verifier::new(proof, Some(&roots), &PROVIDER).unwrap();
        let shown = certificates("sslrootcert", &certificate_file(shown)).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(day * DAY));
        verifier.verify_server_cert(&shown[0], &[], &name, &[], now)
    }

    #[test]
    fn a_certificate_that_is_itself_the_root_is_believed() {
        use Proof::{Chain, ChainAndName};
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
}
