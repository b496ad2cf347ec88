//! The gRPC side of the config push: who may subscribe, the first message, and a session for each stream.

use super::health::HealthInbox;
use super::live::LiveInbox;
use super::session::{Around, Session};
use super::{Fleet, Newest, UnpricedInbox};
use crate::config;
use crate::config::Secret;
use crate::tasks::Tasks;
use contract::pb;
use contract::pb::config_discovery_server::ConfigDiscovery;
use contract::pb::from_proxy::Message as Up;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages between a session and its socket; the socket's own window does the rest.
const DOWN_QUEUE: usize = 4;
/// Longest identity that a proxy may give itself.
const MAX_NAME: usize = 200;

/// Lets in who presents `CONTROL_TOKEN`, on every gRPC service.
#[derive(Clone, Debug)]
pub struct Gate(Secret);

impl Gate {
    /// The token that all proxies share.
    pub fn new(token: Secret) -> Self {
        Self(token)
    }
}

impl tonic::service::Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let given = request.metadata().get("authorization").map(|value| value.as_bytes()).unwrap_or_default();
        let token = given.strip_prefix(b"Bearer ").unwrap_or_default();
        match bool::from(token.ct_eq(self.0.expose().as_bytes())) {
            true => Ok(request),
            false => Err(Status::unauthenticated("the control token is missing or wrong")),
        }
    }
}

/// Where what proxies say is kept until it is acted upon. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Health of providers.
    pub health: HealthInbox,
    /// What is open.
    pub live: LiveInbox,
    /// Models without a price.
    pub unpriced: UnpricedInbox,
}

/// The config subscription.
#[derive(Clone)]
pub struct Discovery {
    settings: config::Publish,
    newest: Newest,
    fleet: Fleet,
    heard: Heard,
    tasks: Tasks,
}

impl Discovery {
    /// Serves the tables of `newest`; says in `fleet` who acts on which; puts what proxies say into `heard`.
    pub fn new(settings: config::Publish, newest: Newest, fleet: Fleet, heard: Heard, tasks: Tasks) -> Self {
        Self { settings, newest, fleet, heard, tasks }
    }

    async fn hello(&self, up: &mut Streaming<pb::FromProxy>) -> Result<pb::Hello, Status> {
        let first = timeout(self.settings.hello_timeout, up.message()).await;
        let message = first.map_err(|_| Status::deadline_exceeded("no Hello came in time"))??;
        let Some(pb::FromProxy { message: Some(Up::Hello(hello)) }) = message else {
            return Err(Status::invalid_argument("the first message must be a Hello"));
        };
        let fits = |text: &str| text.len() <= MAX_NAME && !text.contains('\0');
        if hello.proxy_id.is_empty()
            || ![&hello.proxy_id, &hello.boot_id, &hello.version, &hello.address]
                .into_iter()
                .all(|text| fits(text))
        {
            return Err(Status::invalid_argument("hello: a name is missing, too long or not text"));
        }
        if hello.schema < contract::TABLE_SCHEMA {
            let ours = contract::TABLE_SCHEMA;
            let theirs = hello.schema;
            return Err(Status::failed_precondition(format!(
                "hello.schema: this control plane writes schema {ours}, the proxy reads up to {theirs}"
            )));
        }
        Ok(hello)
    }
}

#[tonic::async_trait]
impl ConfigDiscovery for Discovery {
    type SubscribeStream = ReceiverStream<Result<pb::FromControl, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::FromProxy>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        if self.fleet.open() >= self.settings.max_subscribers {
            return Err(Status::resource_exhausted("this replica serves as many proxies as it may"));
        }
        let mut up = request.into_inner();
        let hello = self.hello(&mut up).await?;
        let (down, stream) = mpsc::channel(DOWN_QUEUE);
        tracing::info!(
            proxy_id = hello.proxy_id,
            version = hello.version,
            address = hello.address,
            generation = hello.generation,
            "a proxy subscribed"
        );
        let around = Around {
            settings: self.settings,
            newest: self.newest.clone(),
            heard: self.heard.clone(),
            shutdown: self.tasks.shutdown().clone(),
        };
        let session = Session::new(around, self.fleet.join(&hello), &hello, down);
        drop(self.tasks.spawn("subscriber", session.run(up)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
