//! Counters in Redis: one script reserves, one settles, one seeds; all counters of a user in one round trip.
//!
//! A command waits `redis_timeout` at most and fails at once while there is no connection; the client goes on
//! connecting for ever. One client per worker thread, made inside that thread's runtime.

mod command;

use super::compare::{Sum, Touched};
use super::lease::{Lent, Wish};
use super::naming::{Keep, Pack, Parts, words};
use super::{Answer, Bound, Charge, Known, Options, Over, Reserve, Seed, Slot, Store, StoreError, Taken, ms};
use crate::limit::Counter;
use bytes::Bytes;
use contract::ids::ProviderId;
use contract::table::Measure;
use fred::bytes_utils::Str;
use fred::interfaces::LuaInterface;
use fred::prelude::{
    Builder, Client, ClientLike, Config, Error, ErrorKind, Expiration, Key, KeysInterface, ReconnectPolicy,
    SetOptions, TcpConfig, Value,
};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

/// Waits between attempts to connect, in ms: doubled from the first to the second.
const RECONNECT_MS: (u32, u32) = (50, 2_000);
/// A connection on which an answer is missing for so long is given up and made anew.
const UNRESPONSIVE: Duration = Duration::from_secs(2);
/// One attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What is written to see whether Redis takes writes, and for how long it stays.
const PROBE_KEY: &str = "sw:probe";
const PROBE_TTL_MS: i64 = 1_000;

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
pub(super) struct Script {
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
    pub(super) session_ttl: Duration,
    reservation_ttl: Duration,
    provisional_ttl: Duration,
    reserve: Script,
    settle: Script,
    seed: Script,
    lease: Script,
    pub(super) compare: Script,
    pub(super) note: Script,
    pub(super) compare_every_ms: i64,
    /// Counters that are to be compared with the ledger, since [`RedisStore::touched`] was asked last.
    pub(super) touched: RefCell<Vec<Touched>>,
    /// Those that left a late settlement out, with its end: the ledger has it, or will have it.
    pub(super) passed: RefCell<Vec<(Touched, i64)>>,
    /// Counters of limits that came back, and up to when each was absent when it was seeded again.
    pub(super) caught_up: RefCell<HashMap<Bytes, i64>>,
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
            settle: Script::new(concat!(include_str!("count.lua"), include_str!("settle.lua"))),
            seed: Script::new(include_str!("seed.lua")),
            lease: Script::new(concat!(include_str!("count.lua"), include_str!("lease.lua"))),
            compare: Script::new(concat!(include_str!("count.lua"), include_str!("compare.lua"))),
            note: Script::new(include_str!("note.lua")),
            compare_every_ms: ms(options.compare_every),
            touched: RefCell::default(),
            passed: RefCell::default(),
            caught_up: RefCell::default(),
        })
    }

    /// Whether Redis answers and takes writes.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.connected()?;
        let ttl = Some(Expiration::PX(PROBE_TTL_MS));
        self.client.set::<(), _, _>(PROBE_KEY, 1, ttl, None, false).await.map_err(failure)
    }

    fn connected(&self) -> Result<(), StoreError> {
        if self.client.is_connected() { Ok(()) } else { Err(StoreError::Disconnected) }
    }

    /// Runs a script whose first `keys` parts are keys. EVALSHA; EVAL where the server does not have it (any
    /// more), which also gives it to the server.
    pub(super) async fn run(&self, script: &Script, parts: &Parts, keys: usize) -> Result<Value, StoreError> {
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

    pub(super) fn now(&self, now_ms: i64) -> i64 {
        match self.clock {
            Clock::Server => 0,
            Clock::Caller => now_ms,
        }
    }

    pub(super) fn keep(&self, session: Duration) -> Keep {
        Keep { session, reservation: self.reservation_ttl }
    }

    /// Lends a slice of the counters.
    pub(super) async fn lend(&self, wish: &Wish<'_>) -> Result<Lent, StoreError> {
        let slot = Slot::User(wish.user);
        let words = words(wish.home, slot, wish.counters, self.keep(self.session_ttl));
        self.touch((wish.home, slot), wish.counters, &words, wish.now_ms);
        let mut pack = Pack::new();
        pack.group_keys(wish.counters, &words);
        for (session, _) in wish.sessions {
            pack.binding_key(wish.home, slot, Some(session));
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
        pack.specs(&words);
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
        pack.binding_key(reserve.home, reserve.slot, reserve.session);
        let key = Key::from(pack.seal().whole());
        let value: Value = self.client.get(key).await.map_err(failure)?;
        let bound = value.as_i64().map(ProviderId);
        Ok(Answer::Taken(Taken { bound, ..Taken::default() }))
    }

    /// Takes a name for so long; whether nobody had it.
    pub(super) async fn elected(&self, name: &str, hold: Duration) -> Result<bool, StoreError> {
        self.connected()?;
        let (key, hold) = (format!("sw:only:{name}"), Some(Expiration::PX(ms(hold).max(1))));
        let taken: Value =
            self.client.set(key, 1, hold, Some(SetOptions::NX), false).await.map_err(failure)?;
        Ok(!taken.is_null())
    }

    /// Refreshes a session's binding, when there is no counter to settle.
    async fn bind(&self, charge: &Charge<'_>, provider: ProviderId) -> Result<(), StoreError> {
        self.connected()?;
        let mut pack = Pack::new();
        pack.binding_key(charge.home, charge.slot, charge.session);
        let key = Key::from(pack.seal().whole());
        let ttl = Expiration::PX(ms(self.session_ttl));
        self.client.set::<(), _, _>(key, provider.0, Some(ttl), None, false).await.map_err(failure)
    }
}

impl Store for RedisStore {
    async fn reserve(&self, reserve: &Reserve<'_>) -> Result<Answer, StoreError> {
        if reserve.counters.is_empty() && reserve.line.candidates.is_empty() && reserve.leave.is_none() {
            return match (reserve.session, reserve.bound) {
                (Some(_), Bound::Ask) => Box::pin(self.binding(reserve)).await,
                (_, Bound::Known(bound)) => Ok(Answer::Taken(Taken { bound, ..Taken::default() })),
                (None, Bound::Ask) => Ok(Answer::Taken(Taken::default())),
            };
        }
        let stale = self.stale(reserve);
        if !stale.is_empty() {
            return Ok(Answer::Unseeded(stale));
        }
        let (parts, keys) = self.question(reserve);
        answer(self.run(&self.reserve, &parts, keys).await?)
    }

    async fn seed(&self, reserve: &Reserve<'_>, seeds: &[Seed]) -> Result<(), StoreError> {
        let provisional: Vec<&Seed> = seeds.iter().filter(|seed| seed.known.is_none()).collect();
        let known: Vec<&Seed> = seeds.iter().filter(|seed| seed.known.is_some()).collect();
        for (seeds, ttl) in [(known, 0), (provisional, ms(self.provisional_ttl))] {
            if seeds.is_empty() {
                continue;
            }
            let keep = self.keep(reserve.session_ttl);
            let found: Vec<((&Counter, Slot), &Seed)> =
                seeds.iter().filter_map(|seed| Some((reserve.counter(seed.index)?, *seed))).collect();
            let said: Vec<_> = found
                .iter()
                .map(|((counter, slot), _)| words(reserve.home, *slot, std::slice::from_ref(*counter), keep))
                .collect();
            let mut pack = Pack::new();
            said.iter().flatten().for_each(|words| pack.counter_key(words));
            let keys = pack.len();
            pack.number(self.now(reserve.now_ms));
            pack.number(ttl);
            pack.number(seeds.iter().map(|seed| seed.behind_ms).max().unwrap_or_default());
            for (words, ((counter, _), seed)) in said.iter().flatten().zip(&found) {
                pack.spec(words);
                pack.known(seed.known.as_ref());
                pack.number(
                    counter.limit.absent_until_ms.map_or(i64::MAX / 4, |at| (reserve.now_ms - at).max(0)),
                );
            }
            self.run(&self.seed, &pack.seal(), keys).await?;
            let names = said.iter().flatten().map(|words| words.key.clone());
            names.zip(&found).for_each(|(key, ((counter, _), _))| self.caught_up(key, counter));
        }
        Ok(())
    }

    async fn settle(&self, charge: &Charge<'_>) -> Result<bool, StoreError> {
        // Requests were counted when they were admitted, and stay counted.
        let lasts = |counter: &&Counter| counter.limit.measure != Measure::Requests;
        let bind = charge.bind.filter(|_| charge.session.is_some());
        let provider = charge.provider.filter(|(_, counters, _)| counters.iter().any(|one| lasts(&one)));
        if provider.is_none() && !charge.counters.iter().any(|one| lasts(&one)) {
            if let Some(provider) = bind {
                self.bind(charge, provider).await?;
            }
            return Ok(true);
        }
        let (parts, keys) = self.statement(charge, provider);
        let first = self.run(&self.settle, &parts, keys).await?;
        if first.as_i64() == Some(2) {
            self.passed_over(charge);
        }
        Ok(first.as_i64() != Some(0))
    }
}

impl Pack {
    /// What a counter is compared with; empty: it is only looked at.
    pub(super) fn sum(&mut self, sum: &Sum) {
        self.known(sum.known.as_ref());
    }

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

/// First words of errors by which a server says that it takes no writes, whatever they are.
const UNWRITABLE: [&str; 9] =
    ["READONLY", "OOM", "MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING", "BUSY", "CLUSTERDOWN", "TRYAGAIN"];
/// First words of errors that mean this client, and so all that it asks.
const CLIENT: [&str; 6] = ["NOAUTH", "NOPERM", "WRONGPASS", "MOVED", "ASK", "UNKILLABLE"];

fn failure(error: Error) -> StoreError {
    match error.kind() {
        ErrorKind::Timeout => StoreError::Timeout,
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => {
            StoreError::Disconnected
        }
        _ => said(error.details()),
    }
}

/// What an error that the server itself answered is about. A script's error carries the word of the command that
/// failed in it, so any other word is about the keys that the script was given.
fn said(details: &str) -> StoreError {
    let text = || details.chars().take(200).collect();
    let word = details.trim_start_matches("ERR ").split([' ', ':']).next().unwrap_or_default();
    let any = |words: &[&str]| {
        words.contains(&word) || words.iter().any(|word| details.contains(&format!("-{word} ")))
    };
    if any(&UNWRITABLE) {
        StoreError::Unwritable(text())
    } else if any(&CLIENT) || !(details.contains("script") || word == "WRONGTYPE") {
        StoreError::Protocol(text())
    } else {
        StoreError::Keys(text())
    }
}

/// The answer of `reserve.lua`.
fn answer(value: Value) -> Result<Answer, StoreError> {
    let Value::Array(words) = value else { return Err(odd()) };
    let number = |at: usize| words.get(at).and_then(Value::as_i64);
    let index = |value: i64| usize::try_from(value).ok();
    match number(0) {
        Some(0) => {
            let bound = number(1).map(ProviderId);
            let at = number(2).and_then(|at| index(at - 1));
            Ok(Answer::Taken(Taken { bound, at, fresh: number(3) == Some(1) }))
        }
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
        Some(3) => Ok(Answer::Full),
        _ => Err(odd()),
    }
}

pub(super) fn odd() -> StoreError {
    StoreError::Protocol("the script's answer has another form".to_owned())
}
