//! Counters in Redis: one script reserves, one settles, one seeds; all counters of a user in one round trip.
//!
//! A command waits `redis_timeout` at most and fails at once while there is no connection; the client goes on
//! connecting for ever. One client per worker thread, made inside that thread's runtime.

use super::lease::{Lent, Wish};
use super::naming::{Keep, Pack, Parts, member_ttl, owners, words};
use super::{
    Answer, Charge, Known, LEDGER_SLACK_MS, Options, Over, Reserve, Seed, Slot, Store, StoreError, ms,
};
use contract::ids::ProviderId;
use contract::table::Measure;
use fred::bytes_utils::Str;
use fred::interfaces::LuaInterface;
use fred::prelude::{
    Builder, Client, ClientLike, Config, Error, ErrorKind, Expiration, Key, KeysInterface, ReconnectPolicy,
    TcpConfig, Value,
};
use std::cell::OnceCell;
use std::time::Duration;

/// Waits between attempts to connect, in ms: doubled from the first to the second.
const RECONNECT_MS: (u32, u32) = (50, 2_000);
/// A connection on which an answer is missing for so long is given up and made anew.
const UNRESPONSIVE: Duration = Duration::from_secs(2);
/// One attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Whose clock decides what has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Redis', so that proxies with different clocks agree.
    Server,
    /// The caller's: for tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests move the time"))]
    Caller,
}

/// A script and, once Redis has it, its hash.
struct Script {
    text: &'static str,
    hash: OnceCell<Str>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self { text, hash: OnceCell::new() }
    }
}

pub(super) struct RedisStore {
    client: Client,
    clock: Clock,
    session_ttl: Duration,
    reservation_ttl: Duration,
    provisional_ttl: Duration,
    reserve: Script,
    settle: Script,
    seed: Script,
    lease: Script,
}

impl RedisStore {
    /// Starts connecting; waits for the connection as long as for any command, so that the first requests find
    /// it. Fails only for a URL that makes no sense.
    pub(super) async fn open(url: &str, options: &Options, clock: Clock) -> Result<Self, StoreError> {
        let mut config =
            Config::from_url(url).map_err(|error| StoreError::Protocol(error.details().into()))?;
        // The first connection is made like any later one: for as long as it takes.
        config.fail_fast = false;
        let client = Builder::from_config(config)
            .with_performance_config(|performance| {
                performance.default_command_timeout = options.redis_timeout;
            })
            .with_connection_config(|connection| {
                connection.connection_timeout = CONNECT_TIMEOUT;
                connection.internal_command_timeout = CONNECT_TIMEOUT;
                connection.max_command_attempts = 1;
                connection.unresponsive.max_timeout = Some(UNRESPONSIVE);
                connection.unresponsive.interval = UNRESPONSIVE / 4;
                connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            })
            .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2))
            .build()
            .map_err(|error| StoreError::Protocol(error.details().into()))?;
        client.connect();
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, client.wait_for_connect()).await;
        if !matches!(connected, Ok(Ok(()))) {
            tracing::warn!("Redis cannot be reached yet");
        }
        Ok(Self {
            client,
            clock,
            session_ttl: options.session_ttl,
            reservation_ttl: options.reservation_ttl,
            provisional_ttl: options.provisional_ttl,
            reserve: Script::new(concat!(include_str!("count.lua"), include_str!("reserve.lua"))),
            settle: Script::new(include_str!("settle.lua")),
            seed: Script::new(include_str!("seed.lua")),
            lease: Script::new(concat!(include_str!("count.lua"), include_str!("lease.lua"))),
        })
    }

    /// Whether Redis answers at all.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.connected()?;
        self.client.ping::<()>(None).await.map_err(failure)
    }

    fn connected(&self) -> Result<(), StoreError> {
        if self.client.is_connected() { Ok(()) } else { Err(StoreError::Disconnected) }
    }

    /// Runs a script whose first `keys` parts are keys. EVALSHA; EVAL where the server does not have it (any
    /// more), which also gives it to the server.
    async fn run(&self, script: &Script, parts: &Parts, keys: usize) -> Result<Value, StoreError> {
        self.connected()?;
        let hash = match script.hash.get() {
            Some(hash) => hash.clone(),
            None => {
                let text = Str::from_static(script.text);
                let hash: Str = self.client.script_load(text).await.map_err(failure)?;
                script.hash.get_or_init(|| hash).clone()
            }
        };
        let key_list = || parts.iter().take(keys).map(Key::from).collect::<Vec<_>>();
        let arguments = || Value::Array(parts.iter().skip(keys).map(Value::Bytes).collect());
        match self.client.evalsha(hash, key_list(), arguments()).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let text = Str::from_static(script.text);
                self.client.eval(text, key_list(), arguments()).await.map_err(failure)
            }
            answer => answer.map_err(failure),
        }
    }

    fn now(&self, now_ms: i64) -> i64 {
        match self.clock {
            Clock::Server => 0,
            Clock::Caller => now_ms,
        }
    }

    fn keep(&self, session: Duration) -> Keep {
        Keep { session, reservation: self.reservation_ttl }
    }

    /// Lends a slice of the counters.
    pub(super) async fn lend(&self, wish: &Wish<'_>) -> Result<Lent, StoreError> {
        let slot = Slot::User(wish.user);
        let words = words(slot, wish.counters, self.keep(self.session_ttl));
        let mut pack = Pack::new();
        words.iter().for_each(|words| pack.counter_key(words));
        owners(wish.counters, &words).for_each(|words| pack.entity_keys(words));
        for (session, _) in wish.sessions {
            pack.binding_key(slot, Some(session));
        }
        let keys = pack.len();
        pack.bytes(wish.holder.0.as_bytes());
        pack.number(self.now(wish.now_ms));
        pack.number(wish.keep.max(0));
        pack.number(ms(self.reservation_ttl));
        pack.number(wish.requests.max(0));
        pack.number(wish.nano.max(0));
        pack.number(wish.length_ms);
        pack.number(wish.share);
        pack.number(wish.last.bucket);
        pack.number(wish.last.unused());
        pack.number(ms(self.session_ttl));
        pack.number(ms(self.session_ttl));
        pack.number(wish.least.0);
        pack.number(wish.least.1);
        pack.specs(words.iter().map(|words| &**words));
        pack.number(i64::try_from(wish.sessions.len()).unwrap_or_default());
        for (session, provider) in wish.sessions {
            pack.member(wish.holder, Some(session));
            match provider {
                Some(provider) => pack.number(provider.0),
                None => pack.bytes(b""),
            }
        }
        match self.run(&self.lease, &pack.seal(), keys).await? {
            Value::Array(words) if words.len() == 3 => {
                let number = |at: usize| words[at].as_i64().ok_or_else(odd);
                Ok(Lent { requests: number(0)?, nano: number(1)?, bucket: number(2)? })
            }
            _ => Err(odd()),
        }
    }

    /// The provider bound to a session, when no counter is asked.
    async fn binding(&self, reserve: &Reserve<'_>) -> Result<Answer, StoreError> {
        self.connected()?;
        let mut pack = Pack::new();
        pack.binding_key(reserve.slot, reserve.session);
        let key = Key::from(pack.seal().whole());
        let value: Value = self.client.get(key).await.map_err(failure)?;
        Ok(Answer::Taken { bound: value.as_i64().map(ProviderId) })
    }

    /// Refreshes a session's binding, when there is no counter to settle.
    async fn bind(&self, charge: &Charge<'_>, provider: ProviderId) -> Result<(), StoreError> {
        self.connected()?;
        let mut pack = Pack::new();
        pack.binding_key(charge.slot, charge.session);
        let key = Key::from(pack.seal().whole());
        let ttl = Expiration::PX(ms(self.session_ttl));
        self.client.set::<(), _, _>(key, provider.0, Some(ttl), None, false).await.map_err(failure)
    }
}

impl Store for RedisStore {
    async fn reserve(&self, reserve: &Reserve<'_>) -> Result<Answer, StoreError> {
        if reserve.counters.is_empty() {
            return match reserve.session {
                Some(_) => self.binding(reserve).await,
                None => Ok(Answer::Taken { bound: None }),
            };
        }
        let keep = self.keep(reserve.session_ttl);
        let words = words(reserve.slot, reserve.counters, keep);
        let mut pack = Pack::new();
        pack.binding_key(reserve.slot, reserve.session);
        words.iter().for_each(|words| pack.counter_key(words));
        owners(reserve.counters, &words).for_each(|words| pack.entity_keys(words));
        let keys = pack.len();
        pack.bytes(reserve.mode_word().as_bytes());
        pack.number(self.now(reserve.now_ms));
        pack.bytes(reserve.request.0.as_bytes());
        pack.number(reserve.estimate.0.max(0));
        pack.number(ms(self.reservation_ttl));
        pack.member(reserve.request, reserve.session);
        pack.number(member_ttl(reserve.session, keep));
        pack.specs(words.iter().map(|words| &**words));
        answer(self.run(&self.reserve, &pack.seal(), keys).await?)
    }

    async fn seed(&self, reserve: &Reserve<'_>, seeds: &[Seed]) -> Result<(), StoreError> {
        let provisional: Vec<&Seed> = seeds.iter().filter(|seed| seed.known.is_none()).collect();
        let known: Vec<&Seed> = seeds.iter().filter(|seed| seed.known.is_some()).collect();
        for (seeds, ttl) in [(known, 0), (provisional, ms(self.provisional_ttl))] {
            if seeds.is_empty() {
                continue;
            }
            let words = words(reserve.slot, reserve.counters, self.keep(reserve.session_ttl));
            let mut pack = Pack::new();
            seeds.iter().for_each(|seed| pack.counter_key(&words[seed.index]));
            pack.number(self.now(reserve.now_ms));
            pack.number(ttl);
            for seed in &seeds {
                pack.spec(&words[seed.index]);
                pack.known(seed.known.as_ref());
            }
            self.run(&self.seed, &pack.seal(), seeds.len()).await?;
        }
        Ok(())
    }

    async fn settle(&self, charge: &Charge<'_>) -> Result<bool, StoreError> {
        // Requests were counted when they were admitted, and stay counted.
        let counted = charge.counters.iter().any(|counter| counter.limit.measure != Measure::Requests);
        let bind = charge.bind.filter(|_| charge.session.is_some());
        if !counted {
            if let Some(provider) = bind {
                self.bind(charge, provider).await?;
            }
            return Ok(true);
        }
        let keep = self.keep(self.session_ttl);
        let words = words(charge.slot, charge.counters, keep);
        let counted = || {
            let pairs = charge.counters.iter().zip(&words);
            pairs.filter(|(counter, _)| counter.limit.measure != Measure::Requests).map(|(_, words)| &**words)
        };
        let mut pack = Pack::new();
        pack.settled_key(charge.slot, charge.request);
        pack.binding_key(charge.slot, charge.session);
        counted().for_each(|words| pack.counter_key(words));
        owners(charge.counters, &words).for_each(|words| pack.entity_keys(words));
        let keys = pack.len();
        pack.number(self.now(charge.now_ms));
        pack.number(charge.now_ms);
        pack.bytes(charge.request.0.as_bytes());
        pack.number(charge.actual.0.max(0));
        pack.member(charge.request, charge.session);
        pack.number(member_ttl(charge.session, keep));
        match bind {
            Some(provider) => pack.number(provider.0),
            None => pack.bytes(b""),
        }
        pack.number(ms(self.session_ttl));
        pack.number(ms(self.reservation_ttl));
        pack.number(LEDGER_SLACK_MS);
        pack.specs(counted());
        let first = self.run(&self.settle, &pack.seal(), keys).await?;
        Ok(first.as_i64() == Some(1))
    }
}

impl Pack {
    fn known(&mut self, known: Option<&Known>) {
        match known {
            Some(Known::Sum(sum)) => self.number(*sum),
            Some(Known::Buckets(buckets)) => {
                let text: Vec<String> = buckets.iter().map(|(at, sum)| format!("{at} {sum}")).collect();
                self.bytes(text.join(" ").as_bytes());
            }
            Some(Known::Started(Some((start, sum)))) => self.text(format_args!("{start} {sum}")),
            Some(Known::Started(None)) | None => self.bytes(b""),
        }
    }
}

fn failure(error: Error) -> StoreError {
    match error.kind() {
        ErrorKind::Timeout => StoreError::Timeout,
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => {
            StoreError::Disconnected
        }
        _ => StoreError::Protocol(error.details().chars().take(200).collect()),
    }
}

/// The answer of `reserve.lua`.
fn answer(value: Value) -> Result<Answer, StoreError> {
    let Value::Array(words) = value else { return Err(odd()) };
    let number = |at: usize| words.get(at).and_then(Value::as_i64);
    let index = |value: i64| usize::try_from(value).ok();
    match number(0) {
        Some(0) => Ok(Answer::Taken { bound: number(1).map(ProviderId) }),
        Some(1) => {
            let known = |at| number(at).filter(|value| *value > 0);
            let over = || {
                Some(Over {
                    index: index(number(1)?)?,
                    current: number(2)?,
                    reset_ms: known(3),
                    wait_ms: known(4),
                })
            };
            over().map(Answer::Over).ok_or_else(odd)
        }
        Some(2) => {
            let list = (1..words.len()).map(|at| number(at).and_then(index)).collect::<Option<_>>();
            list.map(Answer::Unseeded).ok_or_else(odd)
        }
        _ => Err(odd()),
    }
}

fn odd() -> StoreError {
    StoreError::Protocol("the script's answer has another form".to_owned())
}
