//! The certificate that clients are shown. It can be renewed while serving: new
//! connections get the new one, and a new one that cannot be used leaves the old in place.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{InconsistentKeys, RootCertStore};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::config::load::read_file;

/// The certificate in force and its key. Cheap to clone: all clones show the same.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<Shown>);

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    /// Reads it from its files.
    ///
    /// # Errors
    /// In words, with the file: it cannot be read, is no PEM, or the two do not belong
    /// together.
    pub fn read(files: &TlsConfig) -> Result<Self, String> {
        Ok(Self(Arc::new(Shown(ArcSwap::from_pointee(certified(files)?)))))
    }

    /// Reads it anew, from these files; `false` if it is the one in force already.
    ///
    /// # Errors
    /// As [`Certificate::read`]; the old one stays in force.
    pub fn renew(&self, files: &TlsConfig) -> Result<bool, String> {
        let new = certified(files)?;
        let changed = new.cert != self.0.0.load().cert;
        self.0.0.store(Arc::new(new));
        Ok(changed)
    }

    /// What speaks TLS with clients, over HTTP/1.1 and HTTP/2.
    ///
    /// # Errors
    /// In words, if TLS itself cannot be set up.
    pub fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let provider = Arc::new(ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| format!("cannot set up TLS: {why}"))?
            .with_no_client_auth()
            .with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Why a PEM file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What is wrong with it; quotes nothing of the file.
    pub why: String,
    /// What to do about it; empty if `why` says it all.
    pub hint: &'static str,
}

impl Unfit {
    fn new(why: impl Into<String>, hint: &'static str) -> Self {
        Self { why: why.into(), hint }
    }
}

/// The chain in a certificate's file; the first can be read, and is the one that is shown.
///
/// # Errors
/// There is none, or the first cannot be read.
pub fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let all = certificates(pem)?;
    match ParsedCertificate::try_from(&all[0]) {
        Ok(_) => Ok(all),
        Err(why) => Err(Unfit::new(format!("the first certificate in it cannot be read: {why}"), "")),
    }
}

/// The certificates in a PEM file, unread; at least one.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|why| Unfit::new(format!("not PEM: {why}"), ""))?;
    if all.is_empty() {
        let hint = "they stand between BEGIN CERTIFICATE and END CERTIFICATE; is it the right file?";
        return Err(Unfit::new("holds no certificate", hint));
    }
    Ok(all)
}

/// The private key in a key's file.
///
/// # Errors
/// There is none, or it is of a kind that cannot be used.
pub fn key(pem: &str) -> Result<Arc<dyn SigningKey>, Unfit> {
    let hint = "an RSA, ECDSA or Ed25519 key in PEM, without a passphrase; is it the right file?";
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    let der = der.map_err(|_| Unfit::new("holds no private key in PEM", hint))?;
    ring::sign::any_supported_type(&der).map_err(|why| Unfit::new(format!("cannot be used: {why}"), hint))
}

/// The two together.
///
/// # Errors
/// The key is another certificate's.
pub fn pair(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Result<CertifiedKey, Unfit> {
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key that does not tell its public half is found out at the first handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let hint = "it must be the key that the first certificate in the chain was made for";
            Err(Unfit::new("is not the key of this certificate", hint))
        }
        Err(why) => Err(Unfit::new(why.to_string(), "")),
    }
}

/// The authorities in a PEM file.
///
/// # Errors
/// There is none, or one cannot be trusted as such.
pub fn authorities(pem: &str) -> Result<RootCertStore, Unfit> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in certificates(pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|why| {
            Unfit::new(format!("certificate {} in it cannot be an authority: {why}", at + 1), "")
        })?;
    }
    Ok(roots)
}

fn certified(files: &TlsConfig) -> Result<CertifiedKey, String> {
    let bad = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let read = |path: &Path| read_file(path).map_err(|why| bad(path, &why));
    let chain = chain(&read(&files.cert)?).map_err(|unfit| bad(&files.cert, &unfit.why))?;
    let key = key(&read(&files.key)?).map_err(|unfit| bad(&files.key, &unfit.why))?;
    pair(chain, key).map_err(|unfit| bad(&files.key, &unfit.why))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write and remove files of their own")]
mod tests {
    use super::*;

    // Self-signed, for tests only: made with `openssl req -x509 -newkey ed25519 -nodes`.
    const ONE: (&str, &str) = (include_str!("../tests/tls/one.crt"), include_str!("../tests/tls/one.key"));
    const TWO: (&str, &str) = (include_str!("../tests/tls/two.crt"), include_str!("../tests/tls/two.key"));

    struct Files(std::path::PathBuf);

    impl Files {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("seawall-tls-{}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("a folder");
            Self(dir)
        }

        fn write(&self, (cert, key): (&str, &str)) -> TlsConfig {
            let files = TlsConfig { cert: self.0.join("crt"), key: self.0.join("key") };
            std::fs::write(&files.cert, cert).expect("written");
            std::fs::write(&files.key, key).expect("written");
            files
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_certificate_is_renewed_as_a_whole_or_not_at_all() {
        let files = Files::new();
        let certificate = Certificate::read(&files.write(ONE)).expect("good");
        certificate.acceptor().expect("it can be shown");
        let shown = || certificate.0.0.load_full().cert.clone();
        let first = shown();
        assert_eq!(certificate.renew(&files.write(ONE)), Ok(false));
        for bad in [(TWO.0, ONE.1), ("", TWO.1), (TWO.0, "no key"), (ONE.1, ONE.0)] {
            let why = certificate.renew(&files.write(bad)).expect_err("bad");
            assert!(why.contains("seawall-tls-"), "the file is named: {why}");
            assert_eq!(shown(), first, "the old one stays");
        }
        assert_eq!(certificate.renew(&files.write(TWO)), Ok(true));
        assert_ne!(shown(), first);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_of_that_file() {
        let shell = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
        for (pem, word) in [("", "no certificate"), (ONE.1, "no certificate"), (shell, "BadEncoding")] {
            let whys = [chain(pem).expect_err("bad").why, authorities(pem).expect_err("bad").why];
            assert!(whys.iter().all(|why| why.contains(word)), "{whys:?}");
        }
        let second = format!("{}{shell}", ONE.0);
        assert!(authorities(&second).expect_err("bad").why.contains("certificate 2"));
        for pem in ["", ONE.0, "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n"] {
            assert!(key(pem).is_err(), "{pem}");
        }
        assert_eq!(authorities(&format!("{}{}", ONE.0, TWO.0)).expect("two").len(), 2);
        let (ours, theirs) = (chain(ONE.0).expect("good"), key(TWO.1).expect("good"));
        assert!(pair(ours, theirs).expect_err("bad").why.contains("not the key"));
    }
}
