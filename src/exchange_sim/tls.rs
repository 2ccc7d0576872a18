//! A certificate for loopback, made on the spot and trusted by nobody until it is asked to be.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::options::SimError;

/// An acceptor with a fresh self-signed certificate for `localhost` and the loopback addresses, and that
/// certificate as PEM.
pub(super) fn self_signed() -> Result<(TlsAcceptor, String), SimError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let certified = rcgen::generate_simple_self_signed(names.to_vec())
        .map_err(|error| SimError::Certificate(error.to_string()))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key)
        })
        .map_err(|error| SimError::Certificate(error.to_string()))?;
    Ok((TlsAcceptor::from(Arc::new(config)), certified.cert.pem()))
}
