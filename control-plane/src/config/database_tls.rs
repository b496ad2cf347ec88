//! Whom connections to Postgres trust.

use super::Invalid;
use super::read::Env;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::sync::Arc;

/// TLS of connections whose URL says `sslmode=require`: the built-in authorities, or those of `DATABASE_CA_FILE`
/// alone. The server's name must be that of its certificate.
#[derive(Clone, Debug)]
pub struct DatabaseTls(Arc<RootCertStore>);

impl Default for DatabaseTls {
    fn default() -> Self {
        Self(Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }))
    }
}

impl DatabaseTls {
    pub(super) fn read(env: &Env<'_>) -> Result<Self, Invalid> {
        env.path("DATABASE_CA_FILE").map_or_else(|| Ok(Self::default()), |path| Self::of(&path))
    }

    /// Trusts those in a PEM file only.
    fn of(path: &Path) -> Result<Self, Invalid> {
        let unusable =
            |_| Invalid::new("DATABASE_CA_FILE", format!("{path:?} is no PEM file that can be read"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(unusable)? {
            let added = roots.add(certificate.map_err(unusable)?);
            added.map_err(|_| {
                Invalid::new("DATABASE_CA_FILE", format!("{path:?} holds a broken certificate"))
            })?;
        }
        match roots.is_empty() {
            true => Err(Invalid::new("DATABASE_CA_FILE", format!("{path:?} holds no certificate"))),
            false => Ok(Self(Arc::new(roots))),
        }
    }

    /// For one connection.
    pub fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions that rustls considers safe")
            .with_root_certificates(Arc::clone(&self.0))
            .with_no_client_auth()
    }
}
