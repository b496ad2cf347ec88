//! The addresses of hosts: remembered for a while, looked up once at a time. That the resolver does not answer is
//! remembered, too, for some seconds: else each request would wait for it anew before it is tried elsewhere.

use super::failure::{Failure, FailureClass, Local, is_short};
use super::trouble::Trouble;
use crate::clock::Instant;
use crate::table::origin;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use url::{Host, Url};

/// Names that are remembered; far more than there are providers. Beyond, all are forgotten.
const MAX_NAMES: usize = 4096;
/// Where a SOCKS proxy listens that names no port.
const SOCKS_PORT: u16 = 1080;
/// How long a resolver that did not answer is not asked for the same name again.
const UNANSWERED: Duration = Duration::from_secs(5);

type Addresses = Rc<[SocketAddr]>;

/// What came of a look-up: addresses, or when it was given up.
type Looked = Rc<OnceCell<Result<Addresses, Instant>>>;

/// See the module.
pub(super) struct Lookups {
    ttl: Duration,
    names: RefCell<HashMap<Rc<str>, (Instant, Looked)>>,
    trouble: Arc<Trouble>,
}

impl Lookups {
    pub(super) fn new(ttl: Duration, trouble: Arc<Trouble>) -> Self {
        Self { ttl, names: RefCell::default(), trouble }
    }

    /// The addresses of a URL's host.
    pub(super) async fn resolve(&self, base: &Url, within: Duration) -> Result<Addresses, Failure> {
        let port = base.port_or_known_default().unwrap_or(SOCKS_PORT);
        match base.host() {
            Some(Host::Ipv4(ip)) => Ok(Rc::new([SocketAddr::from((ip, port))])),
            Some(Host::Ipv6(ip)) => Ok(Rc::new([SocketAddr::from((ip, port))])),
            Some(Host::Domain(name)) => {
                self.once(base, async || self.look_up((name, port), within).await).await
            }
            None => Err(Failure::because(FailureClass::Request, "the base URL has no host")),
        }
    }

    /// The name may have moved: it is looked up again next time.
    pub(super) fn forget(&self, url: &Url) {
        self.names.borrow_mut().remove(origin(url));
    }

    async fn look_up(&self, host: (&str, u16), within: Duration) -> Result<Addresses, Failure> {
        // A resolver that says nothing is given up before the whole wait for a connection is over, which would be the
        // host's fault.
        let looking = tokio::time::timeout(within / 8 * 7, tokio::net::lookup_host(host));
        let found = looking.await.map_err(|_| Failure::new(FailureClass::NoResolver))?;
        let found: Addresses = found.map_err(|error| unresolved(&error))?.collect();
        self.trouble.resolved();
        if found.is_empty() { Err(nameless()) } else { Ok(found) }
    }

    /// What is remembered; else one caller looks it up while the others wait.
    async fn once(
        &self,
        base: &Url,
        look_up: impl AsyncFnOnce() -> Result<Addresses, Failure>,
    ) -> Result<Addresses, Failure> {
        let remembered = self.remembered(base);
        let look = async || match look_up().await {
            Err(failure) if failure.class == FailureClass::NoResolver => Ok(Err(Instant::now())),
            found => found.map(Ok),
        };
        match remembered.get_or_try_init(look).await? {
            Ok(found) => Ok(Rc::clone(found)),
            Err(_) => Err(Failure::new(FailureClass::NoResolver)),
        }
    }

    fn remembered(&self, base: &Url) -> Looked {
        let mut names = self.names.borrow_mut();
        if let Some((since, looked)) = names.get(origin(base)) {
            let holds = match looked.get() {
                Some(Err(given_up)) => given_up.elapsed() < UNANSWERED,
                _ => since.elapsed() < self.ttl,
            };
            if holds {
                return Rc::clone(looked);
            }
        }
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        let looked = Looked::default();
        names.insert(origin(base).into(), (Instant::now(), Rc::clone(&looked)));
        looked
    }
}

/// What it means that a name has no address.
pub(super) fn nameless() -> Failure {
    Failure::new(FailureClass::Dns)
}

/// What it means that a look-up failed. The library gives only a text for most of it.
fn unresolved(error: &io::Error) -> Failure {
    let text = error.to_string();
    match () {
        () if is_short(error) => Failure::new(FailureClass::Local(Local::Descriptors)),
        () if ["Temporary failure", "Try again"].iter().any(|again| text.contains(again)) => {
            Failure::new(FailureClass::NoResolver)
        }
        () => nameless(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_does_not_answer_is_not_waited_for_again_at_once() {
        let ttl = Duration::from_secs(60);
        let names = Lookups::new(ttl, Arc::default());
        let [one, two] = ["http://one.example", "http://two.example"].map(|url| url.parse().expect("a URL"));
        let asked = Cell::new(0);
        let ask = async |url: &Url, class: Option<FailureClass>| {
            let answer = async || {
                asked.set(asked.get() + 1);
                tokio::time::sleep(Duration::from_secs(8)).await;
                class.map_or_else(|| Ok(Rc::from([])), |class| Err(Failure::new(class)))
            };
            let began = Instant::now();
            let got = names.once(url, answer).await.map_err(|failure| failure.class).err();
            (got, asked.take(), began.elapsed().as_secs())
        };
        let silent = Some(FailureClass::NoResolver);
        // All who come meanwhile wait for the same look-up.
        let (first, second) = tokio::join!(ask(&one, silent), ask(&one, silent));
        assert_eq!([first, second].map(|(got, _, took)| (got, took)), [(silent, 8); 2]);
        assert_eq!(first.1 + second.1, 1);
        assert_eq!(ask(&one, None).await, (silent, 0, 0), "known already");
        assert_eq!(
            ask(&two, None).await,
            (None, 1, 8),
            "another name; it takes longer than the other is remembered"
        );
        assert_eq!(ask(&one, None).await, (None, 1, 8), "asked again");
        tokio::time::advance(ttl - Duration::from_secs(9)).await;
        assert_eq!(ask(&one, silent).await, (None, 0, 0), "addresses are remembered for longer");
        names.forget(&one);
        assert_eq!(ask(&one, Some(FailureClass::Dns)).await, (Some(FailureClass::Dns), 1, 8));
        assert_eq!(
            ask(&one, None).await,
            (None, 1, 8),
            "what the resolver answered is not remembered as silence"
        );
    }
}
