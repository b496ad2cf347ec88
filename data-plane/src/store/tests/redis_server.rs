//! A private Redis on a Unix socket in a directory of its own; gone with the value.

use crate::store::Options;
use crate::store::redis::{Clock, RedisStore};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(super) struct RedisServer {
    child: Child,
    directory: PathBuf,
}

fn launch(directory: &Path) -> Child {
    let child = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock", "--dir"])
        .arg(directory)
        .current_dir(directory)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !answers(directory) {
        assert!(Instant::now() < deadline, "redis-server did not start");
        std::thread::yield_now();
    }
    child
}

fn answers(directory: &Path) -> bool {
    let talk = || -> std::io::Result<bool> {
        let mut socket = UnixStream::connect(directory.join("redis.sock"))?;
        socket.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        socket.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    talk().unwrap_or(false)
}

impl RedisServer {
    pub(super) fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sw-redis-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("directory");
        Self { child: launch(&directory), directory }
    }

    pub(super) fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.join("redis.sock").display())
    }

    /// Dies as by `kill -9`; what it knew is lost.
    pub(super) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Comes back, empty.
    pub(super) fn restart(&mut self) {
        let _ = std::fs::remove_file(self.directory.join("redis.sock"));
        self.child = launch(&self.directory);
    }

    /// Stops answering without closing anything, or goes on.
    pub(super) fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(done.expect("kill").success());
    }

    pub(super) async fn store(&self) -> RedisStore {
        RedisStore::open(&self.url(), &options(), Clock::Caller).await.expect("store")
    }

    pub(super) async fn server_clock(&self) -> RedisStore {
        RedisStore::open(&self.url(), &options(), Clock::Server).await.expect("store")
    }

    /// One command, its answer as text lines, for looking behind the store's back.
    pub(super) fn command(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .arg("-s")
            .arg(self.directory.join("redis.sock"))
            .args(words)
            .output()
            .expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Nothing is left in Redis for ever, and all of one owner's lies in one slot.
pub(super) fn every_key_expires(server: &RedisServer) {
    for key in server.command(&["--scan"]).lines() {
        let ttl: i64 = server.command(&["PTTL", key]).trim().parse().expect("number");
        assert!(ttl > 0, "{key} has no time to live: {ttl}");
        let is_home = key.starts_with("sw:{o1}:") || key.starts_with("sw:{o2}:");
        assert!(is_home, "{key} lies in another slot");
    }
}

/// Times of the tests; generous where a slow machine must not fail.
pub(super) fn options() -> Options {
    Options {
        redis_timeout: Duration::from_secs(5),
        session_ttl: super::SESSION_TTL,
        reservation_ttl: super::RESERVATION_TTL,
        ..Options::default()
    }
}
