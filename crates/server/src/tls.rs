//! Certificates of our own listeners, read again on demand.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use parking_lot::RwLock;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// One listener's certificate, in files.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn read(files: &TlsFiles) -> Result<Arc<Self>> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(Arc::new(certified(files, &provider)?));
        Ok(Arc::new(Self { files: files.clone(), provider, current }))
    }

    /// Reads the files again; when they cannot be used the old certificate stays.
    pub(crate) fn reload(&self) -> Result<()> {
        let fresh = certified(&self.files, &self.provider)?;
        *self.current.write() = Arc::new(fresh);
        Ok(())
    }

    /// Accepts TLS connections with whatever certificate is current.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .context("TLS versions")?;
        let builder = match &self.files.client_authorities {
            None => builder.with_no_client_auth(),
            Some(file) => builder.with_client_cert_verifier(self.verifier(file)?),
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Lets in who shows a certificate of one of these authorities.
    fn verifier(&self, file: &Path) -> Result<Arc<dyn ClientCertVerifier>> {
        let place = || file.display().to_string();
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(file).with_context(place)? {
            roots.add(authority.with_context(place)?).with_context(place)?;
        }
        let provider = Arc::clone(&self.provider);
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().with_context(place)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

fn certified(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let place = || files.certificate.display().to_string();
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect).with_context(place)?;
    anyhow::ensure!(!chain.is_empty(), "{}: no certificate", place());
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(|| files.key.display().to_string())?;
    let key = provider.key_provider.load_private_key(key).with_context(|| files.key.display().to_string())?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().with_context(|| format!("{} and {}", place(), files.key.display()))?;
    Ok(certified)
}

#[cfg(test)]
mod tests {
    use super::Certificate;
    use crate::config::TlsFiles;

    fn write(files: &TlsFiles) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec!["hs1".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    #[test]
    fn a_reload_takes_the_new_certificate_and_keeps_the_old_one_when_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: dir.path().join("c.pem"),
            key: dir.path().join("k.pem"),
            client_authorities: None,
        };
        assert!(Certificate::read(&files).unwrap_err().to_string().contains("c.pem"));
        let first = write(&files);
        let certificate = Certificate::read(&files).unwrap();
        let current = || certificate.current.read().cert[0].to_vec();
        assert_eq!(current(), first);

        let second = write(&files);
        assert_eq!(current(), first);
        certificate.reload().unwrap();
        assert_eq!(current(), second);

        let other = TlsFiles { key: dir.path().join("other.pem"), ..files.clone() };
        write(&other);
        assert!(certificate.reload().is_err(), "certificate and key of different pairs");
        assert_eq!(current(), second);
    }
}
