//! TLS of the gRPC port: a certificate of our own, and an authority of the proxies' certificates if they must have one.

use crate::config::GrpcTls;
use std::path::{Path, PathBuf};
use tonic::transport::server::ServerTlsConfig;
use tonic::transport::{Certificate, Identity, Server};

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the settings.
    #[error("{variable}: {path:?} cannot be read")]
    File {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What the files hold.
    #[error("GRPC_CERT_FILE, GRPC_KEY_FILE or GRPC_CLIENT_CA_FILE: not usable PEM files")]
    Unusable(#[source] tonic::transport::Error),
}

/// A server that speaks TLS if the settings say so.
pub(super) fn server(settings: Option<&GrpcTls>) -> Result<Server, Error> {
    let Some(settings) = settings else { return Ok(Server::builder()) };
    let identity =
        Identity::from_pem(pem("GRPC_CERT_FILE", &settings.cert)?, pem("GRPC_KEY_FILE", &settings.key)?);
    let tls = ServerTlsConfig::new().identity(identity).timeout(settings.handshake);
    let tls = match &settings.client_ca {
        None => tls,
        Some(path) => tls.client_ca_root(Certificate::from_pem(pem("GRPC_CLIENT_CA_FILE", path)?)),
    };
    Server::builder().tls_config(tls).map_err(Error::Unusable)
}

fn pem(variable: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { variable, path: path.to_owned(), source })
}
