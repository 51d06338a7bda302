//! The certificate that clients are shown. It can be renewed while serving: new
//! connections get the new one, and a new one that cannot be used leaves the old in place.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
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

fn certified(files: &TlsConfig) -> Result<CertifiedKey, String> {
    let bad = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let read = |path: &Path| read_file(path).map_err(|why| bad(path, &why));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(read(&files.cert)?.as_bytes()).collect();
    let chain = chain.map_err(|why| bad(&files.cert, &why))?;
    let key = PrivateKeyDer::from_pem_slice(read(&files.key)?.as_bytes());
    let key = key.map_err(|why| bad(&files.key, &why))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|why| bad(&files.cert, &why))
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
}
