//! A whole proxy in this process, without a control plane.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const SECRETS: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn config(dir: &std::path::Path, more: &[(&str, &str)]) -> Config {
    let mut pairs = vec![
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("OPS_ADDR", "127.0.0.1:0"),
        ("CONTROL_PLANE_GRPC", "http://127.0.0.1:1"),
        ("CONTROL_TOKEN", "token"),
        ("SECRETS_KEY", SECRETS),
        ("WORKERS", "2"),
        ("LOG_LEVEL", "off"),
        ("DATA_DIR", dir.to_str().unwrap()),
    ];
    pairs.extend(more);
    pairs.reverse();
    Config::from_pairs(&pairs).unwrap()
}

fn dir(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("switchyard-app-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_starts_without_a_control_plane_says_so_and_ends_in_order() {
    let dir = dir("alone");
    let bound = build(config(&dir, &[])).unwrap();
    let (address, ops) = (bound.address, bound.ops_address);
    assert!(get(ops, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get(ops, "/readyz").starts_with("HTTP/1.1 503"));
    assert!(get(ops, "/metrics").contains("switchyard_proxy_config_stale_seconds"));
    // Nobody listens yet: callers are not told to come back by one who cannot say when.
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    let stop = bound.stop();
    let running = std::thread::spawn(move || bound.run());
    let began = Instant::now();
    stop.drain.cancel();
    running.join().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).is_err() && TcpStream::connect(ops).is_err());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_keeps_it_from_starting_names_the_setting() {
    let dir = dir("refused");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (name, value) in [
        ("OPS_ADDR", taken.as_str()),
        ("LISTEN_ADDR", taken.as_str()),
        ("REDIS_URL", "not a url"),
        ("UPSTREAM_CA_FILE", "/nowhere/ca.pem"),
        ("LOG_LEVEL", "a=b=c"),
    ] {
        let error = build(config(&dir, &[(name, value)])).err().unwrap_or_else(|| panic!("{name} was taken"));
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
