//! A private Redis of one test, on a free port of the loopback interface; ended with the test.

use crate::process::{Process, free_port};
use anyhow::{Context, Result};
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpStream;

/// A running Redis.
pub struct Redis {
    process: Option<Process>,
    /// Its port; the same after a restart.
    pub port: u16,
}

impl Redis {
    /// Starts an empty Redis.
    pub async fn start() -> Result<Self> {
        let mut redis = Self { process: None, port: free_port()? };
        redis.restart().await?;
        Ok(redis)
    }

    /// For clients.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// kill -9; what it held is lost.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Back, and empty.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--dir", "/tmp"]);
        self.process = Some(Process::start("redis", command, None)?);
        let port = self.port;
        crate::eventually(Duration::from_secs(10), || async move {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await
        .context("Redis did not start")
    }

    /// One command, its answer as lines of text, for looking behind everybody's back.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// All keys and values as text, to search them for what must not be there.
    pub fn dump(&self) -> Result<String> {
        let script = "local out={} for _,k in ipairs(redis.call('KEYS','*')) do out[#out+1]=k \
            local t=redis.call('TYPE',k).ok \
            if t=='string' then out[#out+1]=redis.call('GET',k) \
            elseif t=='hash' then for _,v in ipairs(redis.call('HGETALL',k)) do out[#out+1]=v end \
            elseif t=='zset' then for _,v in ipairs(redis.call('ZRANGE',k,0,-1)) do out[#out+1]=v end end end return out";
        let output =
            Command::new("redis-cli").args(["-p", &self.port.to_string(), "EVAL", script, "0"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
