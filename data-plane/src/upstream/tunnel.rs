//! A way through a proxy, over a connection to it that stands: HTTP CONNECT, SOCKS 4 or 5, each as hyper-util speaks
//! it. Credentials for proxies are not kept, so none are sent. The caller bounds the time.

use super::failure::{Failure, FailureClass};
use http::Uri;
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use std::fmt::Display;
use std::future::{self, Ready};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;
use url::Url;

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection of any kind.
pub(super) type Pipe = Box<dyn Duplex>;

/// Asks `proxy`, at the other end of `pipe`, for the host of `base`, or for `address` if there is one.
pub(super) async fn open(
    proxy: &Url,
    base: &Url,
    address: Option<SocketAddr>,
    pipe: Pipe,
) -> Result<Pipe, Failure> {
    let host = match address {
        Some(address) => address.to_string(),
        None => {
            let port = base.port_or_known_default().unwrap_or(443);
            format!("{}:{port}", base.host_str().unwrap_or_default())
        }
    };
    let to = Uri::try_from(host).map_err(|_| wrong("the upstream's host is not for proxies"))?;
    let (proxy, standing) = (proxy.scheme().to_owned(), Standing(Some(TokioIo::new(pipe))));
    // What the connectors would connect to; it stands already.
    let nowhere = Uri::default();
    let opened = match proxy.as_str() {
        "socks5" => SocksV5::new(nowhere, standing).call(to).await.map_err(refused),
        "socks4" => SocksV4::new(nowhere, standing).call(to).await.map_err(refused),
        _ => Tunnel::new(nowhere, standing).call(to).await.map_err(refused),
    };
    opened.map(TokioIo::into_inner)
}

fn wrong(what: &str) -> Failure {
    Failure::because(FailureClass::Request, what)
}

/// The library's words hold neither host nor secret.
fn refused(error: impl Display) -> Failure {
    Failure::because(FailureClass::Connect, format_args!("the provider's proxy: {error}"))
}

/// A connector that hands out the one connection that it has.
struct Standing(Option<TokioIo<Pipe>>);

impl Service<Uri> for Standing {
    type Response = TokioIo<Pipe>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
