use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn needed<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("CONTROL_TOKEN", "t0ken"), ("SECRETS_KEY", KEY)], more].concat()
}

#[test]
fn defaults_are_right() {
    let config = Config::from_pairs(&needed(&[])).unwrap();
    assert_eq!(config.listen_addr.port(), 8080);
    assert_eq!(config.session_ttl, Duration::from_secs(300));
    assert_eq!(config.redis_timeout, Duration::from_secs(1));
    assert!(config.workers.0 >= 1);
    assert!(config.proxy_id.ends_with(":8080"));
    assert!(config.redis_url.is_none() && config.otlp_endpoint.is_none());
    assert_eq!(config.quota_status.code(), 402);
}

#[test]
fn one_sentence_names_the_variable() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "LISTEN_ADDR",
            "8080",
            "LISTEN_ADDR is wrong: expected an IP address and a port, such as 127.0.0.1:8080",
        ),
        ("CONNECT_TIMEOUT", "soon", "CONNECT_TIMEOUT is wrong: expected a time such as 100ms, 30s, 5m or 1h"),
        (
            "CONNECT_TIMEOUT",
            "99999999999999999h",
            "CONNECT_TIMEOUT is wrong: expected a time such as 100ms, 30s, 5m or 1h",
        ),
        ("QUOTA_STATUS", "500", "QUOTA_STATUS is wrong: expected 402 or 429"),
        ("WORKERS", "0", "WORKERS is wrong: expected a number of threads from 1 to 1024"),
        ("SECRETS_KEY", "s3cret", "SECRETS_KEY is wrong: expected 64 hexadecimal digits"),
        (
            "CONTROL_PLANE_GRPC",
            "localhost:1",
            "CONTROL_PLANE_GRPC is wrong: expected a URL that begins with http:// or https://",
        ),
        ("ACCESS_LOG", "maybe", "ACCESS_LOG is wrong: expected true or false"),
        ("SPOOL_FSYNC_INTERVAL", "0", "SPOOL_FSYNC_INTERVAL is wrong: expected a time above 0"),
        ("FAILOVER_TIMEOUT", "0s", "FAILOVER_TIMEOUT is wrong: expected a time above 0"),
    ];
    for (name, value, expected) in cases {
        let mut pairs = vec![(*name, *value)];
        pairs.extend(needed(&[]));
        assert_eq!(Config::from_pairs(&pairs).unwrap_err().to_string(), *expected);
    }
    let missing = Config::from_pairs(&[("SECRETS_KEY", KEY)]).unwrap_err().to_string();
    assert_eq!(missing, "CONTROL_TOKEN is not set: The bearer token that the control plane asks of proxies.");
}

#[test]
fn times_have_units() {
    for (text, millis) in
        [("7", 7_000), ("7s", 7_000), ("7ms", 7), ("7m", 420_000), ("1h", 3_600_000), ("0", 0)]
    {
        assert_eq!(Duration::parse(text), Ok(Duration::from_millis(millis)), "{text}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let config = Config::from_pairs(&needed(&[("REDIS_URL", "redis://:pa55@localhost")])).unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains("t0ken") && !printed.contains("pa55") && !printed.contains(KEY), "{printed}");
}
