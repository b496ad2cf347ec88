//! What a stranger, or anybody with a plain key, can do: as a list that can be read from top to bottom. After each line,
//! done several times over, every provider is well, nothing was free, and a neighbour is served at once.

mod lines;

use super::answers::{self, Used, request};
use super::call::{Answer, Call};
use super::host::Seen;
use super::reply::Reply;
use super::walk::{Walk, key, price, run, usd};
use crate::table::fixtures;
use contract::table::{CircuitState, MatchType, ModelRule, OwnerConfig, Word};
use contract::usage::{Dialect, Outcome, UsageRecord};

/// How often each line is done; three refusals are what switches a provider off, five failures what opens it.
const TIMES: usize = 6;
const DIALECTS: [Dialect; 3] = [Dialect::Anthropic, Dialect::OpenAi, Dialect::Responses];
const USED: Used = Used { input: 10, output: 5 };

/// A line of the list.
#[derive(Clone)]
pub struct Line {
    pub does: &'static str,
    pub call: Call,
    pub upstream: fn(&Seen) -> Reply,
    /// The status that the caller may see; none: any.
    pub sees: &'static [u16],
    /// Whether a provider may be asked.
    pub reaches: bool,
    /// How many requests one call may become at providers; none: any number.
    pub most: Option<usize>,
    /// What must be nowhere in the answer.
    pub hides: &'static [&'static str],
    /// Whether the connection is a stranger's afterwards, who rests for seconds and takes a place of its address.
    pub stranger: Option<bool>,
    /// What the owner has set otherwise.
    pub owner: fn(&mut OwnerConfig),
}

/// An honest upstream.
pub fn honest(seen: &Seen) -> Reply {
    let dialect = match seen.path.as_str() {
        path if path.contains("/messages") => Dialect::Anthropic,
        path if path.contains("/responses") => Dialect::Responses,
        _ => Dialect::OpenAi,
    };
    let streams =
        serde_json::from_slice::<serde_json::Value>(&seen.body).is_ok_and(|body| body["stream"] == true);
    if streams { answers::stream(dialect, USED) } else { answers::document(dialect, USED) }
}

/// Two providers of each dialect; key 1 is the plain one, key 2 the neighbour's.
async fn house(set: fn(&mut OwnerConfig)) -> Walk {
    let walk = Walk::new().providers(1..=6, |id, row| {
        row.kind = answers::kind(DIALECTS[usize::try_from((id - 1) / 2).unwrap()]);
        row.priority = i32::try_from(id).unwrap();
        row.disable_session_reuse = true;
    });
    let walk = walk.rows(|rows| {
        let mut owner = OwnerConfig::new(contract::ids::UserId(1), chrono_tz::UTC);
        set(&mut owner);
        rows.owners.push(owner);
        rows.users[0].limits = vec![usd(1_000_000)];
        rows.users.push(fixtures::user(2, "bob"));
        rows.keys.push(key(2, 2));
        rows.prices.push(price("dear", 100, 200));
        rows.words.push(Word {
            id: 1,
            owner_id: contract::ids::UserId(1),
            match_type: MatchType::Contains,
            word: "forbidden".to_owned(),
        });
        // One of user 1's keys may use one model only.
        rows.users
            .push(contract::table::User { allowed_models: vec!["m".to_owned()], ..fixtures::user(3, "eve") });
        rows.keys.push(key(3, 3));
        for row in &mut rows.providers {
            row.redirects = vec![ModelRule {
                match_type: MatchType::Exact,
                pattern: "nothing".to_owned(),
                target: Some("m".to_owned()),
            }];
        }
    });
    walk.start().await
}

fn everybody(walk: &Walk, does: fn(&Seen) -> Reply) {
    (1..=6).for_each(|id| _ = walk.host(id).by(does));
}

/// How many requests reached a provider since the last look.
fn reached(walk: &Walk) -> usize {
    (1..=6).map(|id| walk.host(id).count()).sum()
}

fn shown(answer: &Answer) -> String {
    let headers: Vec<String> =
        answer.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    format!("{} {} {}", answer.status, headers.join(", "), answer.text())
}

async fn done(line: &Line) -> Result<(), String> {
    let walk = house(line.owner).await;
    everybody(&walk, line.upstream);
    for time in 1..=TIMES {
        let answer = walk.send(line.call.clone()).await;
        let text = shown(&answer);
        if !line.sees.is_empty() && !line.sees.contains(&answer.status) {
            return Err(format!("time {time}: the caller sees {text}"));
        }
        if let Some(leak) = line.hides.iter().find(|leak| text.contains(**leak)) {
            return Err(format!("time {time}: {leak} is told in {text}"));
        }
        if line.stranger.is_some_and(|stranger| stranger != answer.stranger) {
            return Err(format!("time {time}: whether it is a stranger after {text}"));
        }
        let reached = reached(&walk);
        if line.most.is_some_and(|most| reached > most) {
            return Err(format!("time {time}: sent {reached} times"));
        }
        if !line.reaches && reached > 0 {
            return Err(format!("time {time}: {reached} requests reached providers"));
        }
    }
    for id in 1..=6 {
        let health = walk.health(id);
        if health.state != CircuitState::Closed || health.failures > 0 {
            return Err(format!("provider {id} is not well: {health:?}"));
        }
    }
    if let Some(free) = walk.records().await.iter().find(|record| is_free(record)) {
        return Err(format!("free: {free:?}"));
    }
    everybody(&walk, honest);
    for (index, dialect) in DIALECTS.into_iter().enumerate() {
        let call = Call::post(answers::path(dialect), request(dialect, "m", true).to_string()).key(2);
        let answer = walk.send(call).await;
        let first = walk.host(i64::try_from(2 * index + 1).unwrap()).count();
        if (answer.status, first) != (200, 1) {
            return Err(format!("the neighbour's {dialect:?} got {} from {first}", shown(&answer)));
        }
    }
    Ok(())
}

/// Whether something was served, or asked for and not waited for, at nobody's cost.
fn is_free(record: &UsageRecord) -> bool {
    let served = matches!(record.outcome, Outcome::Completed | Outcome::Aborted | Outcome::Cut);
    let counted = llm::dialect::EndpointKind::is_metered;
    let route = llm::dialect::route("POST", &record.endpoint, &|_| None);
    let paid = record.cost.is_some_and(|cost| !cost.is_zero()) || record.unpriced.is_some();
    served && route.is_some_and(|route| counted(route.kind)) && !paid
}

#[test]
fn nobody_with_a_plain_key_harms_others_or_is_served_for_nothing() {
    let wrong: Vec<String> = lines::all()
        .into_iter()
        .filter_map(|line| run(done(&line)).err().map(|why| format!("{}: {why}", line.does)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
