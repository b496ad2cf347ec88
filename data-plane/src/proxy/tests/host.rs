//! A scripted upstream in memory: it reads each request, remembers it and plays the answer that it was given.

use super::reply::{Reply, Step};
use crate::tasks;
use crate::upstream::memory::{Door, Network};
use bytes::Bytes;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A request as the upstream got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Usual = Rc<dyn Fn(&Seen) -> Reply>;

struct Inner {
    name: String,
    network: Network,
    next: RefCell<VecDeque<Reply>>,
    usual: RefCell<Usual>,
    seen: RefCell<Vec<Seen>>,
    connections: Cell<usize>,
    left: Cell<usize>,
}

/// A handle on one upstream.
#[derive(Clone)]
pub struct Host(Rc<Inner>);

impl Host {
    /// Listens under `name`; must be called within a `LocalSet`. Until it is told more it answers 500.
    pub fn open(network: &Network, name: &str) -> Self {
        let host = Self(Rc::new(Inner {
            name: name.to_owned(),
            network: network.clone(),
            next: RefCell::default(),
            usual: RefCell::new(Rc::new(|_| Reply::error(500, "api_error", "nothing was scripted"))),
            seen: RefCell::default(),
            connections: Cell::default(),
            left: Cell::default(),
        }));
        let mut listener = network.listen(name);
        let inner = Rc::clone(&host.0);
        tasks::spawn_local("upstream", async move {
            while let Some(pipe) = listener.recv().await {
                inner.connections.set(inner.connections.get() + 1);
                tasks::spawn_local("connection", talk(Rc::clone(&inner), pipe));
            }
        });
        host
    }

    /// The next request that has none yet is answered so.
    pub fn next(&self, reply: Reply) -> &Self {
        self.0.next.borrow_mut().push_back(reply);
        self
    }

    /// Whatever else comes is answered so.
    pub fn always(&self, reply: Reply) -> &Self {
        self.by(move |_| reply.clone())
    }

    /// Whatever else comes is answered as its request asks for.
    pub fn by(&self, usual: impl Fn(&Seen) -> Reply + 'static) -> &Self {
        *self.0.usual.borrow_mut() = Rc::new(usual);
        self
    }

    /// What happens to new connections.
    pub fn door(&self, door: Door) -> &Self {
        self.0.network.door(&self.0.name, door);
        self
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.borrow().clone()
    }

    /// How many there were since this was asked last.
    pub fn count(&self) -> usize {
        std::mem::take(&mut *self.0.seen.borrow_mut()).len()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.0.connections.get()
    }

    /// Answers that the other side did not want to the end.
    pub fn left(&self) -> usize {
        self.0.left.get()
    }
}

async fn talk(inner: Rc<Inner>, mut pipe: DuplexStream) {
    while let Some(seen) = read(&mut pipe).await {
        let next = inner.next.borrow_mut().pop_front();
        let usual = Rc::clone(&inner.usual.borrow());
        let reply = next.unwrap_or_else(|| usual(&seen));
        inner.seen.borrow_mut().push(seen);
        for step in reply.steps() {
            match play(&mut pipe, step).await {
                Ended::No => {}
                Ended::ByScript => return,
                Ended::ByCaller => return inner.left.set(inner.left.get() + 1),
            }
        }
    }
}

enum Ended {
    No,
    ByScript,
    ByCaller,
}

async fn play(pipe: &mut DuplexStream, step: Step) -> Ended {
    let waits = match step {
        Step::Send(bytes) => {
            return if pipe.write_all(&bytes).await.is_ok() { Ended::No } else { Ended::ByCaller };
        }
        Step::Cut => return Ended::ByScript,
        Step::Wait(pause) if pause.is_zero() => return Ended::No,
        Step::Wait(pause) => Some(pause),
        Step::Silence => None,
    };
    let over = async {
        match waits {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
    };
    let mut byte = [0];
    tokio::select! {
        () = over => Ended::No,
        // One request at a time goes over a connection, so what comes meanwhile is its end.
        _ = pipe.read(&mut byte) => Ended::ByCaller,
    }
}

/// One request with its body; `None` at the end of the connection.
async fn read(pipe: &mut DuplexStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse().unwrap());
            break (head, length);
        }
        if pipe.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    while bytes.len() < length {
        if pipe.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Some(Seen { method, path, headers, body: bytes.into() })
}
