//! Certificates of our own listeners, read again on demand.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use chappe_world::Live;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// What one listener shows and asks for, in files.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: Live<ServerConfig>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn read(files: &TlsFiles) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { files: files.clone(), current: Live::new(config(files)?) }))
    }

    /// Reads the files again; when they cannot be used all stays as it was. Connections that are open go on.
    pub(crate) fn reload(&self) -> Result<()> {
        self.current.set(config(&self.files)?);
        Ok(())
    }

    /// Accepts a TLS connection by what the files said last.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.get())
    }
}

fn config(files: &TlsFiles) -> Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let certified = certified(files, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("TLS versions")?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(file) => builder.with_client_cert_verifier(verifier(file, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Lets in who shows a certificate of one of these authorities.
fn verifier(file: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
    let place = || file.display().to_string();
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(file).with_context(place)? {
        roots.add(authority.with_context(place)?).with_context(place)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().with_context(place)
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
    use std::sync::Arc;

    use super::Certificate;
    use crate::config::TlsFiles;

    fn write(files: &TlsFiles) {
        let made = rcgen::generate_simple_self_signed(vec!["hs1".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_reload_takes_new_files_and_keeps_what_was_when_they_are_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = dir.path().join("members.pem");
        let files = TlsFiles {
            certificate: dir.path().join("c.pem"),
            key: dir.path().join("k.pem"),
            client_authorities: Some(authorities.clone()),
        };
        assert!(Certificate::read(&files).unwrap_err().to_string().contains("c.pem"));
        write(&files);
        std::fs::copy(&files.certificate, &authorities).unwrap();
        let certificate = Certificate::read(&files).unwrap();
        let first = certificate.current.get();

        write(&files);
        certificate.reload().unwrap();
        let second = certificate.current.get();
        assert!(!Arc::ptr_eq(&first, &second));

        std::fs::write(&authorities, "").unwrap();
        assert!(certificate.reload().is_err(), "authorities without one");
        std::fs::copy(&files.certificate, &authorities).unwrap();
        let other = TlsFiles { key: dir.path().join("other.pem"), ..files.clone() };
        write(&other);
        assert!(certificate.reload().is_err(), "certificate and key of different pairs");
        assert!(Arc::ptr_eq(&second, &certificate.current.get()));
    }
}
