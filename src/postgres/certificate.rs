//! Certificates as libpq takes them, where the verifier takes less: of version 1, as PostgreSQL's own recipe
//! makes them, and with the server's name in the subject alone.
//!
//! Promises: a certificate of version 1 is believed when it lies in the file of roots itself, or one of
//! them has signed it; the subject's name counts only where no alternative name of its kind is there.
//! Must not: believe one without its time, or whose signature does not hold.
//! Fails: never; what cannot be read proves nothing.
//!
//! Source: libpq, `fe-secure-common.c` and `fe-secure-openssl.c`; RFC 5280.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError};
use x509_cert::certificate::Version;
use x509_cert::der;
use x509_cert::der::asn1::BitString;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// A certificate that was read.
pub(super) struct Certificate {
    content: x509_cert::Certificate,
    /// What is signed, as it came, and the name of the signature's algorithm.
    signed: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Certificate {
    /// None when it cannot be read.
    pub(super) fn read(bytes: &CertificateDer<'_>) -> Option<Self> {
        let content = x509_cert::Certificate::from_der(bytes).ok()?;
        let (signed, algorithm) = parts(bytes).ok()?;
        Some(Self { content, signed, algorithm })
    }

    /// Whether it is of the first version, which knows no extensions.
    pub(super) fn is_of_version_1(&self) -> bool {
        self.content.tbs_certificate.version == Version::V1
    }

    /// The key in it, in DER.
    pub(super) fn public_key(&self) -> Option<Vec<u8>> {
        self.key().to_der().ok()
    }

    fn key(&self) -> &SubjectPublicKeyInfoOwned {
        &self.content.tbs_certificate.subject_public_key_info
    }

    /// # Errors
    /// As a verifier says it: too early or too late.
    pub(super) fn check_time(&self, now: UnixTime) -> Result<(), TlsError> {
        let validity = &self.content.tbs_certificate.validity;
        if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }

    /// Whether `authority` has signed it, and may.
    pub(super) fn is_signed_by(&self, authority: &Self, known: &WebPkiSupportedAlgorithms) -> bool {
        let (own, other) = (&self.content.tbs_certificate, &authority.content.tbs_certificate);
        own.issuer == other.subject
            && authority.may_sign()
            && self.content.signature.as_bytes().is_some_and(|signature| {
                let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
                    algorithm.signature_alg_id().as_ref() == self.algorithm
                };
                let algorithms = known.all.iter().filter(fits).copied();
                authority.holds(algorithms, &self.signed, signature)
            })
    }

    /// One of version 1 says nothing of it; it is in the file of roots because somebody put it there.
    fn may_sign(&self) -> bool {
        let constraints = self.extension::<BasicConstraints>();
        self.is_of_version_1() || constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Whether the signature was made over the message with this certificate's key.
    fn holds<'a>(
        &self,
        mut algorithms: impl Iterator<Item = &'a dyn SignatureVerificationAlgorithm>,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let Some(kind) = self.key().algorithm.to_der().ok().and_then(|der| content(&der).ok())
        else {
            return false;
        };
        let key = self.key().subject_public_key.raw_bytes();
        algorithms.any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == kind
                && algorithm.verify_signature(key, message, signature).is_ok()
        })
    }

    /// Whether a handshake's message (of TLS 1.2) was signed with this certificate's key.
    pub(super) fn has_signed(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        known: &WebPkiSupportedAlgorithms,
    ) -> bool {
        let mapped = known.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let algorithms = mapped.into_iter().flat_map(|(_, algorithms)| algorithms.iter().copied());
        self.holds(algorithms, message, signed.signature())
    }

    /// Whether the subject's common name is that of the server, and may count.
    pub(super) fn names(&self, server: &ServerName<'_>) -> bool {
        let wanted = match server {
            ServerName::DnsName(name) => name.as_ref().to_owned(),
            ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
            _ => return false,
        };
        let is_of_kind = |name: &GeneralName| match server {
            ServerName::IpAddress(_) => matches!(name, GeneralName::IpAddress(_)),
            _ => matches!(name, GeneralName::DnsName(_)),
        };
        let alternatives = self.extension::<SubjectAltName>();
        if alternatives.is_some_and(|names| names.0.iter().any(is_of_kind)) {
            return false;
        }
        self.common_name().is_some_and(|name| fits(&name, &wanted))
    }

    fn common_name(&self) -> Option<String> {
        let subject = &self.content.tbs_certificate.subject;
        let mut attributes = subject.0.iter().flat_map(|part| part.0.iter());
        let name = attributes.find(|attribute| attribute.oid == COMMON_NAME)?;
        String::from_utf8(name.value.value().to_vec()).ok()
    }

    fn extension<'a, T: Decode<'a> + der::oid::AssociatedOid>(&'a self) -> Option<T> {
        let extensions = self.content.tbs_certificate.extensions.as_deref().unwrap_or_default();
        let found = extensions.iter().find(|extension| extension.extn_id == T::OID)?;
        T::from_der(found.extn_value.as_bytes()).ok()
    }
}

/// What is signed, byte by byte, and the content of the signature's algorithm.
fn parts(bytes: &[u8]) -> der::Result<(Vec<u8>, Vec<u8>)> {
    let mut reader = SliceReader::new(bytes)?;
    reader.sequence(|reader| {
        let signed = reader.tlv_bytes()?.to_vec();
        let algorithm = content(reader.tlv_bytes()?)?;
        BitString::decode(reader)?;
        Ok((signed, algorithm))
    })
}

/// The bytes of a value without its head.
fn content(value: &[u8]) -> der::Result<Vec<u8>> {
    let any = der::asn1::AnyRef::from_der(value)?;
    Ok(any.value().to_vec())
}

/// As libpq compares: letters of both cases are alike, a star at the beginning is one part of the name.
fn fits(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let Some(rest) = pattern.strip_prefix('*').filter(|rest| rest.starts_with('.')) else {
        return false;
    };
    name.split_once('.')
        .is_some_and(|(first, after)| !first.is_empty() && after.eq_ignore_ascii_case(&rest[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bit of what is signed makes another certificate of it.
    #[test]
    fn a_signature_holds_for_what_was_signed_only() {
        use rustls::pki_types::pem::PemObject;
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
        let read = |name: &str| CertificateDer::from_pem_file(folder.join(name)).unwrap();
        let (root, server) = (read("recipe_root.pem"), read("recipe_server.pem"));
        let known = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let authority = Certificate::read(&root).unwrap();
        assert!(Certificate::read(&server).unwrap().is_signed_by(&authority, &known));
        let mut bytes = server.to_vec();
        let place = bytes.windows(9).position(|part| part == b"localhost").unwrap();
        bytes[place] ^= 1;
        let other = Certificate::read(&CertificateDer::from(bytes)).unwrap();
        assert!(!other.is_signed_by(&authority, &known));
    }

    #[test]
    fn names_are_compared_as_libpq_does() {
        for (pattern, name, fitting) in [
            ("db.example", "DB.example", true),
            ("*.example", "db.example", true),
            ("*.example", "a.db.example", false),
            ("*.example", ".example", false),
            ("*.example", "example", false),
            ("*example", "dbexample", false),
            ("*", "db", false),
            ("db.*", "db.example", false),
            ("127.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(fits(pattern, name), fitting, "{pattern} {name}");
        }
    }
}
