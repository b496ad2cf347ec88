//! One HTTP/2 connection to the control plane, shared by all calls; it heals itself.

use super::ledger::Remote;
use crate::config::Config;
use crate::store::Ledger;
use contract::pb::config_discovery_client::ConfigDiscoveryClient;
use contract::pb::usage_ingest_client::UsageIngestClient;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// Largest message taken: a section is about 1 MiB at most, and one that is larger must not stop the rest.
const MAX_MESSAGE: usize = 16 << 20;
/// HTTP/2 pings while the connection rests, and how long an answer may take.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow control windows: a first table of some MiB should not need a round trip per 64 KiB.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Why there can be no connection at all. A control plane that is merely away is none of these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the TLS settings.
    #[error("{variable}: {path:?} cannot be read")]
    File {
        /// The setting.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("CONTROL_CERT_FILE and CONTROL_KEY_FILE go together")]
    HalfIdentity,
    /// The URL or the certificates do not work.
    #[error("CONTROL_PLANE_GRPC or its certificates are not usable")]
    Endpoint(#[source] tonic::transport::Error),
    /// The token has characters that no header can carry.
    #[error("CONTROL_TOKEN must be printable ASCII")]
    Token,
}

/// Adds the bearer token to every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Bearer>;

/// The way to the control plane. Cheap to clone; opened with the first call and again whenever it breaks.
#[derive(Clone)]
pub struct Link {
    channel: Channel,
    bearer: Bearer,
    timeout: Duration,
}

impl Link {
    /// Prepares the connection; its driver lives on the runtime of `side`, whoever calls.
    pub fn new(config: &Config, side: &Handle) -> Result<Self, Error> {
        let url = config.control_plane_grpc.as_str().to_owned();
        let mut endpoint = Endpoint::from_shared(url)
            .map_err(Error::Endpoint)?
            .connect_timeout(config.control_timeout)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .tcp_nodelay(true);
        if config.control_plane_grpc.scheme() == "https" {
            endpoint = endpoint.tls_config(tls(config)?).map_err(Error::Endpoint)?;
        }
        let mut token: MetadataValue<Ascii> =
            format!("Bearer {}", config.control_token.expose()).parse().map_err(|_| Error::Token)?;
        token.set_sensitive(true);
        let _runtime = side.enter();
        Ok(Self { channel: endpoint.connect_lazy(), bearer: Bearer(token), timeout: config.control_timeout })
    }

    /// Asks the control plane what was spent, to seed counters that Redis lost.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(Remote(self.clone()))
    }

    /// Longest wait for one answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn discovery(&self) -> ConfigDiscoveryClient<Service> {
        ConfigDiscoveryClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn ingest(&self) -> UsageIngestClient<Service> {
        UsageIngestClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }
}

fn tls(config: &Config) -> Result<ClientTlsConfig, Error> {
    let tls = ClientTlsConfig::new();
    let tls = match &config.control_ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(pem("CONTROL_CA_FILE", path)?)),
        None => tls.trust_anchors(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    };
    match (&config.control_cert_file, &config.control_key_file) {
        (None, None) => Ok(tls),
        (Some(cert), Some(key)) => {
            Ok(tls
                .identity(Identity::from_pem(pem("CONTROL_CERT_FILE", cert)?, pem("CONTROL_KEY_FILE", key)?)))
        }
        _ => Err(Error::HalfIdentity),
    }
}

fn pem(variable: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { variable, path: path.to_owned(), source })
}

/// A status in a few words: code, the server's text, and the cause where there is one on this side.
pub(super) fn brief(status: &Status) -> String {
    let text: String = status.message().chars().take(200).collect();
    let causes = std::iter::successors(status.source(), |error| (*error).source());
    match causes.last() {
        Some(cause) => format!("{:?}: {text} ({cause})", status.code()),
        None => format!("{:?}: {text}", status.code()),
    }
}
