//! Providers behind a proxy: mock proxies on real sockets, one per protocol, that join two connections.

use super::*;
use contract::table::Options;
use std::net::SocketAddr;
use tokio::io::copy_bidirectional;

/// What a mock proxy does with a connection.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Connect,
    Socks4,
    Socks5,
    Refuses,
    Silent,
}

impl Manner {
    fn scheme(self) -> &'static str {
        match self {
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
            _ => "http",
        }
    }
}

/// A proxy that leads everybody to `to`, and the hosts that it was asked for.
async fn proxy(manner: Manner, to: SocketAddr) -> (String, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{}://{}", manner.scheme(), listener.local_addr().unwrap());
    let asked = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Rc::clone(&log);
            tokio::task::spawn_local(async move {
                let _ = join(manner, stream, to, &log).await;
            });
        }
    });
    (url, asked)
}

async fn join(
    manner: Manner,
    mut near: TcpStream,
    to: SocketAddr,
    log: &RefCell<Vec<String>>,
) -> std::io::Result<()> {
    let (host, answer): (String, &[u8]) = match manner {
        Manner::Silent => return std::future::pending().await,
        Manner::Refuses | Manner::Connect => {
            let head = read_request(&mut near).await.unwrap_or_default();
            let host = head.split(' ').nth(1).unwrap_or_default().to_owned();
            assert!(head.starts_with("connect "), "{head}");
            let refuses = manner == Manner::Refuses;
            (host, if refuses { b"HTTP/1.1 403 No\r\n\r\n" } else { b"HTTP/1.1 200 Go\r\n\r\n" })
        }
        Manner::Socks4 => {
            let mut head = [0; 9];
            near.read_exact(&mut head).await?;
            assert_eq!(head[..2], [4, 1]);
            let port = u16::from_be_bytes([head[2], head[3]]);
            (format!("{}.{}.{}.{}:{port}", head[4], head[5], head[6], head[7]), &[0, 90, 0, 0, 0, 0, 0, 0])
        }
        Manner::Socks5 => {
            let mut hello = [0; 3];
            near.read_exact(&mut hello).await?;
            assert_eq!(hello, [5, 1, 0]);
            near.write_all(&[5, 0]).await?;
            let mut head = [0; 4];
            near.read_exact(&mut head).await?;
            assert_eq!(head[..3], [5, 1, 0]);
            let mut host = vec![0; if head[3] == 1 { 4 } else { usize::from(near.read_u8().await?) }];
            near.read_exact(&mut host).await?;
            let port = near.read_u16().await?;
            let named = head[3] == 3;
            let host = if named { String::from_utf8_lossy(&host).into() } else { format!("{host:?}") };
            (format!("{host}:{port}"), &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        }
    };
    log.borrow_mut().push(host);
    near.write_all(answer).await?;
    if manner == Manner::Refuses {
        return Ok(());
    }
    let mut far = TcpStream::connect(to).await?;
    copy_bidirectional(&mut near, &mut far).await.map(|_| ())
}

/// A provider at `base`, behind a proxy.
fn behind(proxy: &str, base: &str, fallback: bool) -> Upstream {
    let proxy_url = Some(proxy.to_owned());
    let options = Options { proxy_url, proxy_fallback_to_direct: fallback, ..Options::default() };
    upstream(Provider { base_url: base.to_owned(), options: options.boxed(), ..provider(1) })
}

fn address(up: &Upstream) -> SocketAddr {
    up.base.as_str().trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
}

/// Nobody listens there.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn every_kind_of_proxy_leads_to_the_upstream() {
    // SOCKS 4 gets an address; the others look the name up themselves.
    for (manner, host, asked_for) in [
        (Manner::Connect, "nowhere.invalid:8080", "nowhere.invalid:8080"),
        (Manner::Connect, "nowhere.invalid", "nowhere.invalid:80"),
        (Manner::Socks5, "nowhere.invalid:8080", "nowhere.invalid:8080"),
        (Manner::Socks4, "127.0.0.1:8080", "127.0.0.1:8080"),
    ] {
        local(Box::pin(async move {
            let (up, connections) = play(|_, stream| answer_all(stream, OK)).await;
            let (url, asked) = proxy(manner, address(&up)).await;
            let up = behind(&url, &format!("http://{host}"), false);
            let client = client(|_| {});
            for round in 0..3 {
                let response = client.send(&up, post("{}"), PATIENCE).await.unwrap();
                assert_eq!(response.body().reused(), round > 0);
                assert_eq!(text(response).await, "ok");
            }
            assert_eq!((connections.get(), &asked.borrow()[..]), (1, &[asked_for.to_owned()][..]));
        }))
        .await;
    }
}

#[tokio::test]
async fn tls_is_spoken_with_the_upstream_inside_the_tunnel() {
    local(async {
        let (hello, greeted) = tokio::sync::oneshot::channel();
        let hello = Cell::new(Some(hello));
        let (up, _) = play(move |_, mut stream| {
            let hello = hello.take();
            async move {
                let first = stream.read_u8().await;
                let _ = hello.map(|hello| hello.send(first.unwrap()));
            }
        })
        .await;
        let (url, asked) = proxy(Manner::Connect, address(&up)).await;
        // A TLS that fails is the upstream's, not the proxy's: there is no second way.
        let up = behind(&url, "https://nowhere.invalid", true);
        let failure = client(|_| {}).send(&up, post("{}"), PATIENCE).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Tls, "{failure}");
        assert_eq!(greeted.await, Ok(22), "the record type of a handshake");
        assert_eq!(asked.borrow()[..], ["nowhere.invalid:443"]);
    })
    .await;
}

#[tokio::test]
async fn ways_to_one_host_do_not_mix() {
    local(Box::pin(async {
        let (direct, connections) = play(|_, stream| answer_all(stream, OK)).await;
        let (one, _) = proxy(Manner::Connect, address(&direct)).await;
        let (two, asked_of_two) = proxy(Manner::Socks5, address(&direct)).await;
        let base = direct.row.base_url.as_str();
        let (one, two, fallen) =
            (behind(&one, base, false), behind(&two, base, true), behind(&dead().await, base, true));
        let client = client(|_| {});
        for (up, reused, open) in [
            (&direct, false, 1),
            (&one, false, 2),
            (&two, false, 3),
            (&one, true, 3),
            (&two, true, 3),
            // What is made directly instead never stands in for the proxy later, but is as direct as any other.
            (&fallen, false, 4),
            // It is not asked again for a while.
            (&fallen, true, 4),
            (&direct, true, 4),
        ] {
            let response = client.send(up, post("{}"), PATIENCE).await.unwrap();
            assert_eq!(response.body().reused(), reused, "{}", up.lane);
            assert_eq!(text(response).await, "ok");
            assert_eq!(connections.get(), open, "{}", up.lane);
        }
        assert_eq!(asked_of_two.borrow().len(), 1);
    }))
    .await;
}

#[tokio::test]
async fn a_proxy_that_fails_is_passed_by_only_where_that_is_allowed() {
    for manner in [None, Some(Manner::Refuses), Some(Manner::Silent)] {
        for fallback in [false, true] {
            local(Box::pin(async move {
                let (direct, connections) = play(|_, stream| answer_all(stream, OK)).await;
                let url = match manner {
                    None => dead().await,
                    Some(manner) => proxy(manner, address(&direct)).await.0,
                };
                let client = client(|settings| settings.connect_timeout = Duration::from_millis(400));
                let up = behind(&url, &direct.row.base_url, fallback);
                match client.send(&up, post("{}"), PATIENCE).await {
                    Ok(response) => assert_eq!((fallback, &*text(response).await), (true, "ok")),
                    Err(failure) => {
                        let class = match manner {
                            Some(Manner::Silent) => FailureClass::Timeout(Stage::Connect),
                            _ => FailureClass::Connect,
                        };
                        assert_eq!((fallback, failure.class), (false, class), "{failure}");
                        assert!(failure.retry);
                    }
                }
                assert_eq!(connections.get(), usize::from(fallback));
            }))
            .await;
        }
    }
}
