//! A network in memory, for tests of what lies above: hosts by name, each connection a pipe whose other end goes
//! to whoever listens. The whole HTTP/1.1 client runs over it, in paused time.

use super::connect::refused;
use super::failure::Failure;
use super::lookup::nameless;
use super::tunnel::Pipe;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Bytes that a pipe holds before its writer waits.
const PIPE: usize = 64 * 1024;

/// What happens to those who want to connect to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// They are connected.
    Open,
    /// They are told so, by the error number of the operating system.
    Refuses(i32),
    /// They wait for ever.
    Silent,
    /// Its name has no address.
    Nameless,
}

struct Host {
    door: Door,
    listener: mpsc::UnboundedSender<DuplexStream>,
}

/// All hosts. Cheap to clone: handles on the same ones.
#[derive(Clone, Default)]
pub(crate) struct Network(Rc<RefCell<HashMap<String, Host>>>);

impl Network {
    /// A host that takes connections; they come out of the receiver.
    pub(crate) fn listen(&self, name: &str) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (listener, connections) = mpsc::unbounded_channel();
        self.0.borrow_mut().insert(name.to_owned(), Host { door: Door::Open, listener });
        connections
    }

    /// From now on.
    pub(crate) fn door(&self, name: &str, door: Door) {
        self.0.borrow_mut().get_mut(name).unwrap().door = door;
    }

    pub(super) async fn connect(&self, name: &str) -> Result<Pipe, Failure> {
        let door = self.0.borrow().get(name).map_or(Door::Nameless, |host| host.door);
        match door {
            Door::Open => {}
            Door::Refuses(number) => return Err(refused(&io::Error::from_raw_os_error(number), false)),
            Door::Silent => std::future::pending().await,
            Door::Nameless => return Err(nameless()),
        }
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let hosts = self.0.borrow();
        let taken = hosts.get(name).is_some_and(|host| host.listener.send(theirs).is_ok());
        if taken { Ok(Box::new(ours)) } else { Err(refused(&io::ErrorKind::ConnectionRefused.into(), false)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::{provider, settings, upstream};
    use crate::upstream::{Client, FailureClass, Stage};
    use contract::table::Provider;
    use http::Method;
    use http_body_util::BodyExt;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// `ECONNREFUSED`.
    const REFUSED: i32 = 111;

    #[tokio::test(start_paused = true)]
    async fn an_exchange_runs_in_memory_and_a_host_is_what_its_door_says() {
        // The pool's sweeper wants one.
        tokio::task::LocalSet::new().run_until(doors()).await;
    }

    async fn doors() {
        let network = Network::default();
        let up = upstream(Provider { base_url: "http://a".to_owned(), ..provider(1) });
        let client = Client::within(network.clone(), settings());
        let send = || client.send(&up, crate::upstream::tests::post("{}"), Duration::from_secs(60));
        assert_eq!(send().await.err().map(|failure| failure.class), Some(FailureClass::Dns));
        let mut listener = network.listen("a");
        for (door, class) in [
            (Door::Refuses(REFUSED), FailureClass::Connect),
            (Door::Silent, FailureClass::Timeout(Stage::Connect)),
            (Door::Nameless, FailureClass::Dns),
        ] {
            network.door("a", door);
            assert_eq!(send().await.err().map(|failure| failure.class), Some(class), "{door:?}");
        }
        network.door("a", Door::Open);
        let answer = async {
            let mut pipe = listener.recv().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n{}") {
                pipe.read_buf(&mut seen).await.unwrap();
            }
            pipe.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            assert!(seen.starts_with(Method::POST.as_str().as_bytes()));
            pipe
        };
        let exchange = async { send().await.unwrap().into_body().collect().await.unwrap().to_bytes() };
        let (answered, _pipe) = tokio::join!(exchange, answer);
        assert_eq!(answered, "ok");
    }
}
