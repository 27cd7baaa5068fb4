//! Encryption: libpq's `sslmode` table, done by rustls.
//!
//! Promises: a mode verifies what it verifies in libpq: `verify-full` chain and name, `verify-ca` the
//! chain, `require` nothing unless a root certificate is there, weaker modes nothing. A server's
//! certificate that is itself in `sslrootcert` is believed. Files are read again for each connection,
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
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres::config::SslNegotiation;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::certificate::Certificate;
use crate::postgres::connection_string::shown;

/// How TLS without a request names the protocol (PostgreSQL 17).
pub(super) const PROTOCOL_NAME: &[u8] = b"postgresql";

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
                let cause = format!("sslmode{} is not known", shown(text));
                return Err(Error::new(ErrorKind::Config, cause)
                    .with_remedy("use disable, allow, prefer, require, verify-ca or verify-full"));
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
enum ServerProof {
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
                .with_remedy("use sslmode=verify-full with sslrootcert=system"));
        }
        if roots.is_none() && matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) {
            let cause = "sslmode=verify-ca and verify-full need a root certificate";
            return Err(Error::new(ErrorKind::Config, cause)
                .with_remedy("add sslrootcert=FILE, or sslrootcert=system with verify-full"));
        }
        Ok(Self { mode, roots, identity })
    }

    /// Why a conversation over a network may be overheard or bent, if it may.
    pub(super) fn weakness(&self) -> Option<&'static str> {
        match (self.mode, self.proof()) {
            (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) => {
                Some("it may go without encryption")
            }
            (_, ServerProof::ChainAndName) => None,
            (_, ServerProof::Nothing) => {
                Some("it is encrypted, but nobody proves who the server is")
            }
            (_, ServerProof::Chain) => {
                Some("it is encrypted, but the server's name is not looked at")
            }
        }
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

    fn proof(&self) -> ServerProof {
        match (self.mode, &self.roots) {
            (SslMode::VerifyFull, _) => ServerProof::ChainAndName,
            (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => ServerProof::Chain,
            _ => ServerProof::Nothing,
        }
    }

    /// Reads the files and builds what a handshake needs.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a file cannot be read or does not hold what it should.
    pub(super) fn client_config(&self, negotiation: SslNegotiation) -> Result<ClientConfig> {
        let mut config = self.proving_config()?;
        if negotiation == SslNegotiation::Direct {
            config.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
        }
        Ok(config)
    }

    fn proving_config(&self) -> Result<ClientConfig> {
        let provider = Arc::clone(&PROVIDER);
        let verifier = Arc::new(Verifier::new(self.proof(), self.roots.as_ref(), &provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        refuse_exposed(&identity.key)?;
        let chain = certificates("sslcert", &identity.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&identity.key)
            .map_err(|cause| unusable("sslkey", &identity.key, &cause))?;
        builder.with_client_auth_cert(chain, key).map_err(|cause| {
            let cause = format!("sslcert and sslkey do not fit together: {cause}");
            Error::new(ErrorKind::Config, cause).with_remedy("give a certificate and its own key")
        })
    }
}

/// As libpq: a private key is its owner's alone; one of root's may be read by a group.
#[cfg(unix)]
fn refuse_exposed(key: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    // What is not there is told by the reading.
    let Ok(file) = std::fs::metadata(key) else { return Ok(()) };
    if is_exposed(file.uid(), file.mode()) {
        let cause = format!("sslkey: others may read or write {}", key.display());
        return Err(
            Error::new(ErrorKind::Config, cause).with_remedy("chmod 0600, or 0640 if root owns it")
        );
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path) -> Result<()> {
    Ok(())
}

fn is_exposed(owner: u32, mode: u32) -> bool {
    mode & if owner == 0 { 0o037 } else { 0o077 } != 0
}

/// One provider for the process.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

fn unusable(parameter: &str, file: &Path, cause: &dyn fmt::Display) -> Error {
    let cause = format!("{parameter}: cannot use {}: {cause}", file.display());
    Error::new(ErrorKind::Config, cause)
        .with_remedy("give a readable file in PEM form; a key must not need a passphrase")
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
                    .with_remedy("install the ca-certificates package, or give sslrootcert=FILE"));
            }
        }
    }
    Ok(store)
}

/// Verifies what [`ServerProof`] asks for; signatures of the handshake always.
#[derive(Debug)]
enum Verifier {
    Nothing,
    Chain(Chain),
    ChainAndName(Chain),
}

impl Verifier {
    fn new(
        proof: ServerProof,
        roots: Option<&Roots>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self> {
        match (roots, proof) {
            (Some(roots), ServerProof::Chain) => Chain::new(roots, provider).map(Self::Chain),
            (Some(roots), ServerProof::ChainAndName) => {
                Chain::new(roots, provider).map(Self::ChainAndName)
            }
            (None, _) | (_, ServerProof::Nothing) => Ok(Self::Nothing),
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
        let read = Certificate::read(certificate);
        let is_old = read.as_ref().is_some_and(Certificate::is_of_version_1);
        let verified = match &read {
            Some(read) if is_old => self.verify_old(certificate, read, now),
            _ => self.verify_present(certificate, intermediates, name, now),
        };
        match verified {
            Err(cause) if is_name(&cause) && read.is_some_and(|read| read.names(name)) => {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    /// One of version 1, which has no names but its subject's.
    fn verify_old(
        &self,
        certificate: &CertificateDer<'_>,
        read: &Certificate,
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        read.check_time(now)?;
        let algorithms = &PROVIDER.signature_verification_algorithms;
        let is_believed = self.named.iter().any(|named| {
            let signs = |authority: Certificate| {
                authority.check_time(now).is_ok() && read.is_signed_by(&authority, algorithms)
            };
            named == certificate || Certificate::read(named).is_some_and(signs)
        });
        let lacking = if is_believed {
            CertificateError::NotValidForName
        } else {
            CertificateError::UnknownIssuer
        };
        Err(lacking.into())
    }

    fn verify_present(
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

/// Whether the chain is good, and the name is another.
fn is_name(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
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
                Err(cause) if is_name(&cause) => Ok(ServerCertVerified::assertion()),
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
        match rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms) {
            // The certificate, not the signature: libpq looks at its key only.
            Err(rustls::Error::InvalidCertificate(cause))
                if cause != CertificateError::BadSignature =>
            {
                match Certificate::read(certificate) {
                    Some(read) if read.has_signed(message, signed, algorithms) => {
                        Ok(HandshakeSignatureValid::assertion())
                    }
                    _ => Err(cause.into()),
                }
            }
            verified => verified,
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        match rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms) {
            Err(rustls::Error::InvalidCertificate(cause))
                if cause != CertificateError::BadSignature =>
            {
                let key = Certificate::read(certificate).and_then(|read| read.public_key());
                let Some(key) = key else { return Err(cause.into()) };
                let key = SubjectPublicKeyInfoDer::from(key);
                rustls::crypto::verify_tls13_signature_with_raw_key(
                    message, &key, signed, algorithms,
                )
            }
            verified => verified,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
