//! Whom to trust on the upstream side: the built-in authorities and, where configured, one's own.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the authorities could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No such file, or not PEM.
    #[error("UPSTREAM_CA_FILE is wrong: {path} could not be read as PEM certificates")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// It holds none, or one that is broken.
    #[error("UPSTREAM_CA_FILE is wrong: {path} holds no usable certificate")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The library refused its own defaults.
    #[error("TLS could not be set up")]
    Setup(#[from] rustls::Error),
}

/// TLS settings for all upstreams; cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct Tls(pub(super) Arc<ClientConfig>);

impl Tls {
    /// The built-in authorities, and those in `authorities`.
    pub fn new(authorities: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = authorities {
            add(&mut roots, path)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let file = |source| TlsError::File { path: path.to_owned(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<_, _>>().map_err(file)?;
    let (added, refused) = roots.add_parsable_certificates(certificates);
    if added == 0 || refused > 0 {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(())
}
