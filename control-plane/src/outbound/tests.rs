//! Against real sockets on loopback, which must be allowed by name first.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn outbound(allow: &[&str], timeout: Duration) -> Outbound {
    let settings = config::Outbound {
        allow: allow.iter().map(|entry| entry.parse().unwrap()).collect(),
        timeout,
        price_url: Url::parse("http://127.0.0.1:1/prices").unwrap(),
        price_timeout: timeout,
        price_sync: None,
        price_max: 100,
    };
    Outbound::new(settings).unwrap()
}

/// Answers one connection with a text, and says what it was sent; an empty text never answers.
async fn server(answer: &'static str) -> (Url, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/hook?key=secret", listener.local_addr().unwrap().port());
    let work = async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 10_000];
        let read = socket.read(&mut seen).await.unwrap();
        if answer.is_empty() {
            std::future::pending::<()>().await;
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(seen[..read].to_vec()).unwrap()
    };
    #[expect(clippy::disallowed_methods, reason = "a mock that ends with its test")]
    let task = tokio::spawn(work);
    (Url::parse(&url).unwrap(), task)
}

const LONG: Duration = Duration::from_secs(20);

async fn post(outbound: &Outbound, url: &Url) -> Result<Vec<u8>, Error> {
    outbound.post_json(url, HeaderMap::new(), b"{}".to_vec()).await
}

#[tokio::test]
async fn neighbours_are_refused_however_they_are_spelled() {
    let outbound = outbound(&[], LONG);
    for url in [
        "http://127.0.0.1:80/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]:9/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost:5432/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
    ] {
        let error = post(&outbound, &Url::parse(url).unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::Internal(_)), "{url}: {error:?}");
        assert!(!error.is_passing());
    }
    for url in ["file:///etc/passwd", "gopher://x/", "data:text/plain,x"] {
        assert!(matches!(post(&outbound, &Url::parse(url).unwrap()).await, Err(Error::Url)), "{url}");
    }
}

#[tokio::test]
async fn what_is_allowed_is_called_once_and_redirects_are_not_followed() {
    let allowed = outbound(&["127.0.0.0/8"], LONG);
    let (url, seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(post(&allowed, &url).await.unwrap(), b"ok");
    let seen = seen.await.unwrap();
    assert!(
        seen.starts_with("POST /hook?key=secret HTTP/1.1") && seen.contains("application/json"),
        "{seen}"
    );

    let (url, _) =
        server("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n").await;
    assert!(matches!(post(&allowed, &url).await, Err(Error::Status(302))));
    let (url, _) = server("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post(&allowed, &url).await.unwrap_err().is_passing());

    let quick = outbound(&["127.0.0.1"], Duration::from_millis(50));
    let (url, _) = server("").await;
    assert!(matches!(post(&quick, &url).await, Err(Error::Timeout(_))));

    // Nobody listens there any more; the error tells nothing of the URL.
    let (url, task) = server("").await;
    task.abort();
    let _ = task.await;
    let error = post(&allowed, &url).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn a_table_is_bounded() {
    let (url, _) = server(concat!("HTTP/1.1 200 OK\r\ncontent-length: 120\r\n\r\n", "0123456789")).await;
    let settings = config::Outbound {
        allow: vec!["127.0.0.1".parse().unwrap()],
        timeout: LONG,
        price_url: url,
        price_timeout: LONG,
        price_sync: None,
        price_max: 5,
    };
    assert!(matches!(Outbound::new(settings).unwrap().price_table().await, Err(Error::TooLarge(5))));
}
