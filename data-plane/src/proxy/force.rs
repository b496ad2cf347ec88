//! What the options of a provider, and of the caller's key, mean for one request: members of its body, flags in its
//! head, and how its cache writes are counted. Pure.
//!
//! Only calls that generate are changed: others refuse members that they do not know. Not acted upon: the
//! passing on of MCP calls, `codexInstructionsStrategy`, and Gemini's search, whose paths are not served yet.

use super::attempt::Exchange;
use crate::table::Upstream;
use contract::table::{Anthropic, CacheTtl, Codex, Options};
use contract::usage::{Dialect, TokenCounts};
use http::{HeaderMap, HeaderName, HeaderValue};
use llm::EndpointKind;
use llm::request::{Ask, Force, MIN_THINKING};
use serde_json::Value;

const BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// Anthropic's flag for a context of a million tokens; callers may send another date.
const CONTEXT_1M: &str = "context-1m-2025-08-07";
const CONTEXT_1M_OF_ANY_DATE: &str = "context-1m-";
/// Models that have it; others may refuse the flag.
const CONTEXT_1M_MODELS: [&str; 3] = ["claude-sonnet-4", "claude-opus-4-6", "claude-opus-4-7"];
/// Anthropic's flag for what is cached for an hour.
const CACHE_1H: &str = "extended-cache-ttl-2025-04-11";
/// What the body of a request to this provider must say, `model` being the one that it is asked for and `of_key` the
/// wish of the caller's key.
pub fn members(
    up: &Upstream,
    kind: EndpointKind,
    of_key: Option<CacheTtl>,
    ask: &Ask<'_>,
    model: &str,
) -> Vec<Force> {
    let (options, mut forced) = (up.row.options.as_deref(), Vec::new());
    match kind {
        EndpointKind::Messages => {
            forced.extend(lifetime(up, of_key).map(|ttl| Force::CacheTtl(ttl.as_str())));
            forced.extend(options.into_iter().flat_map(|options| anthropic(options, ask, model)));
        }
        EndpointKind::Responses => {
            forced.extend(options.into_iter().flat_map(|options| codex(&options.codex)))
        }
        _ => {}
    }
    forced
}

/// How long is kept what a request marks: the wish of its key comes before the provider's.
fn lifetime(up: &Upstream, of_key: Option<CacheTtl>) -> Option<CacheTtl> {
    of_key.or_else(|| up.row.options.as_deref()?.cache_ttl)
}

fn json(text: &str) -> String {
    Value::from(text).to_string()
}

fn anthropic(options: &Options, ask: &Ask<'_>, model: &str) -> Vec<Force> {
    let Anthropic { max_tokens, thinking_budget, adaptive_thinking } = &options.anthropic;
    let mut forced = Vec::new();
    forced.extend(max_tokens.map(|most| Force::Member("max_tokens", most.to_string())));
    let adaptive = adaptive_thinking.as_ref().filter(|adaptive| {
        adaptive.models.as_ref().is_none_or(|models| models.iter().any(|name| is_of(model, name)))
    });
    if let Some(adaptive) = adaptive {
        forced.push(Force::Member("thinking", r#"{"type":"adaptive"}"#.to_owned()));
        forced.push(Force::Inside("output_config", vec![("effort", json(&adaptive.effort))]));
        return forced;
    }
    // It must stay below what may be said at all.
    let most = max_tokens.map(u64::from).or(ask.max_output).unwrap_or(u64::MAX);
    let budget = thinking_budget.map(|budget| u64::from(budget).min(most.saturating_sub(1)));
    match budget.filter(|budget| *budget >= MIN_THINKING) {
        Some(budget) => {
            let parts = vec![("type", json("enabled")), ("budget_tokens", budget.to_string())];
            forced.push(Force::Inside("thinking", parts));
        }
        None => forced.extend(max_tokens.map(|most| Force::ThinkingBelow(most.into()))),
    }
    forced
}

fn codex(codex: &Codex) -> Vec<Force> {
    let part = |name: &'static str, value: &Option<String>| value.as_deref().map(|text| (name, json(text)));
    let reasoning: Vec<_> =
        [part("effort", &codex.reasoning_effort), part("summary", &codex.reasoning_summary)]
            .into_iter()
            .flatten()
            .collect();
    let mut forced = Vec::new();
    if !reasoning.is_empty() {
        forced.push(Force::Inside("reasoning", reasoning));
    }
    forced.extend(
        part("verbosity", &codex.text_verbosity).map(|verbosity| Force::Inside("text", vec![verbosity])),
    );
    forced.extend(codex.parallel_tool_calls.map(|on| Force::Member("parallel_tool_calls", on.to_string())));
    forced.extend(codex.service_tier.as_deref().map(|tier| Force::Member("service_tier", json(tier))));
    forced.extend(codex.image_generation.map(|on| Force::Tool("image_generation", on)));
    forced
}

/// Adds to `headers`, which replace the caller's, the flags that differ from the caller's; empty where none is left.
pub fn flags(up: &Upstream, exchange: &Exchange<'_>, model: &str, headers: &mut HeaderMap) {
    let hour = lifetime(up, exchange.cache_ttl) == Some(CacheTtl::Hour1);
    let context_1m = up.row.options.as_deref().and_then(|options| options.context_1m);
    if exchange.route.dialect != Dialect::Anthropic || !hour && context_1m.is_none() {
        return;
    }
    let given = exchange.head.headers.get_all(BETA);
    let given = given.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let given: Vec<&str> = given.map(str::trim).filter(|flag| !flag.is_empty()).collect();
    let mut flags = given.clone();
    let million = |flag: &str| flag.starts_with(CONTEXT_1M_OF_ANY_DATE);
    match context_1m {
        Some(false) => flags.retain(|flag| !million(flag)),
        Some(true)
            if CONTEXT_1M_MODELS.iter().any(|name| is_of(model, name))
                && !flags.iter().any(|flag| million(flag)) =>
        {
            flags.push(CONTEXT_1M);
        }
        _ => {}
    }
    if hour && exchange.route.kind == EndpointKind::Messages && !flags.contains(&CACHE_1H) {
        flags.push(CACHE_1H);
    }
    if flags != given
        && let Ok(value) = HeaderValue::try_from(flags.join(","))
    {
        headers.insert(BETA, value);
    }
}

/// Cache writes by the lifetimes that they are billed for. `told`: the upstream says which are kept for how long.
/// `of_key`: the wish of the caller's key.
pub fn cache_writes(up: &Upstream, of_key: Option<CacheTtl>, tokens: &mut TokenCounts, told: bool) {
    if lifetime(up, of_key) == Some(CacheTtl::Hour1) && !told {
        tokens.cache_write_1h += std::mem::take(&mut tokens.cache_write_5m);
    }
    if up.row.options.as_deref().is_some_and(|options| options.swap_cache_ttl_billing) {
        std::mem::swap(&mut tokens.cache_write_5m, &mut tokens.cache_write_1h);
    }
}

/// Whether a model is one, or a version, of that name.
fn is_of(model: &str, name: &str) -> bool {
    model.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests;
