//! TLS towards the exchanges, for feeds and REST alike.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::start::StartError;

/// Trusts the web's roots, and what `ca_file` holds beside them.
pub(super) fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, StartError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        add(&mut roots, path).map_err(|why| StartError {
            what: format!("feeds_ca_file {} cannot be used: {why}", path.display()),
            cure: "give a PEM file of one or more certificates, or leave it out".to_owned(),
        })?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| StartError { what: e.to_string(), cure: "report this".to_owned() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())? {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.len() == before { Err("it holds no certificate".to_owned()) } else { Ok(()) }
}

/// Why a TLS connection was not made, with the cure where there is one here.
pub(super) fn refusal(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => format!(
            "TLS: {error}: nobody who is trusted here has signed it; if you trust who did, name his certificate \
             in feeds_ca_file"
        ),
        _ => format!("TLS: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let said = || tls_config(Some(&path)).unwrap_err().to_string();
        let missing = said();
        assert!(missing.contains("ca.pem cannot be used: ") && missing.contains("PEM file"), "{missing}");
        std::fs::write(&path, "no certificate at all").unwrap();
        assert!(said().contains("it holds no certificate"), "{}", said());
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(said().contains("feeds_ca_file"), "{}", said());
    }
}
