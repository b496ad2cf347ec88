//! One traffic thread: its own runtime, listener, limiter and upstream connections. Nothing on it is shared
//! except through [`Common`].

use super::opening::Open;
use super::parts::Common;
use super::{Error, Stop};
use crate::probe::Prober;
use crate::proxy::{self, Proxy};
use crate::server::{LastWords, Server};
use crate::store::{self, Limiter, Settler};
use crate::tasks;
use crate::upstream::Client;
use bytes::Bytes;
use socket2::Socket;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Threads for name look-ups, per traffic thread; each look-up blocks one.
const BLOCKING_THREADS: usize = 8;
/// How long the last settlements may take.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts one thread per socket and waits until each stands.
pub(super) fn start(
    sockets: Vec<Socket>,
    common: &Common,
    stop: &Stop,
    open: &Open,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let (stands, standing) = mpsc::channel();
    let count = sockets.len();
    let mut threads = Vec::with_capacity(count);
    for (index, socket) in sockets.into_iter().enumerate() {
        let (common, stop, stands) = (common.clone(), stop.clone(), stands.clone());
        let door = Door { socket, open: open.clone() };
        let thread = std::thread::Builder::new().name(format!("traffic-{index}"));
        threads.push(thread.spawn(move || {
            if let Err(error) = run((index, door), &common, &stop, &stands) {
                // Without this thread the proxy would go on with less; better to say so and end.
                tracing::error!(%error, "a traffic thread cannot run");
                stop.drain.cancel();
            }
        })?);
    }
    drop(stands);
    for _ in 0..count {
        match standing.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(stop, threads, error.into())),
            Err(_) => {
                return Err(failed(stop, threads, io::Error::other("a traffic thread ended at once").into()));
            }
        }
    }
    Ok(threads)
}

fn failed(stop: &Stop, threads: Vec<JoinHandle<()>>, error: Error) -> Error {
    stop.drain.cancel();
    stop.hurry.cancel();
    for thread in threads {
        // Its own end is in the log; the first error is what is reported.
        let _ = thread.join();
    }
    error
}

type Stands = mpsc::Sender<Result<(), store::OpenError>>;

fn run(seat: (usize, Door), common: &Common, stop: &Stop, stands: &Stands) -> io::Result<()> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        match Limiter::open(common.limits.clone()).await {
            Ok((limiter, settler)) => {
                let _ = stands.send(Ok(()));
                serve(seat, common, stop, limiter, settler).await
            }
            Err(error) => {
                let _ = stands.send(Err(error));
                Ok(())
            }
        }
    })
}

impl LastWords for proxy::Body {
    fn last_words(&mut self) -> Option<Bytes> {
        Self::last_words(self)
    }
}

/// A thread's part of the traffic port.
struct Door {
    socket: Socket,
    open: Open,
}

impl Door {
    /// The listener, once callers can connect; `None` if the proxy is to end before.
    async fn opened(mut self, drain: &CancellationToken) -> Option<TcpListener> {
        let open = drain.run_until_cancelled(self.open.wait_for(|open| *open)).await?;
        open.is_ok().then(|| self.socket.into())
    }
}

async fn serve(
    (index, door): (usize, Door),
    common: &Common,
    stop: &Stop,
    limiter: Limiter,
    settler: Settler,
) -> io::Result<()> {
    let (settled, all_settled) = oneshot::channel::<()>();
    tasks::spawn_vital_local("settler", &stop.vital, async move {
        settler.run().await;
        drop(settled);
    });
    if index == 0 {
        let (parts, limiter, upstream) = (common.probe(), limiter.clone(), common.upstream.clone());
        let drain = stop.drain.clone();
        // Who is refused comes back by it alone.
        tasks::keep_local("prober", move || {
            let prober = Prober::new(parts.clone(), limiter.clone(), Client::new(upstream.clone()));
            let drain = drain.clone();
            async move {
                drain.run_until_cancelled(prober.run()).await;
            }
        });
    }
    let client = Client::new(common.upstream.clone());
    let proxy = Proxy::new(common.proxy.clone(), limiter, client);
    let handler = move |request, peer| Rc::clone(&proxy).handle(request, peer);
    let server = Server::new(common.server(stop.hurry.clone()));
    if let Some(listener) = door.opened(&stop.drain).await {
        let cut = server.run(listener, handler, stop.drain.clone()).await?;
        if cut > 0 {
            tracing::warn!(cut, "connections were cut at the drain deadline");
        }
    } else {
        drop(handler);
    }
    // The proxy is gone and with it the limiter: the settler ends when its queue is empty.
    if timeout(SETTLE_TIMEOUT, all_settled).await.is_err() {
        tracing::warn!("the last settlements did not reach Redis; their reservations expire");
    }
    Ok(())
}
