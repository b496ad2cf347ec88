//! What few providers have: how they are reached, and what they force upon requests. One struct of its own, so that
//! a provider without it carries nothing of it.

/// How long an upstream keeps what it cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheTtl {
    /// Five minutes.
    Minutes5,
    /// One hour.
    Hour1,
}

impl CacheTtl {
    /// The word of the admin API, the wire and Anthropic's `cache_control.ttl`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minutes5 => "5m",
            Self::Hour1 => "1h",
        }
    }

    /// The lifetime of a word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Minutes5, Self::Hour1].into_iter().find(|ttl| ttl.as_str() == word)
    }
}

/// Options of a provider. `None`, false or empty throughout: the caller's own request holds ("inherit").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// http, https, socks4 or socks5; without credentials. `None`: connect directly.
    pub proxy_url: Option<String>,
    /// Connect directly while that proxy cannot be connected to.
    pub proxy_fallback_to_direct: bool,
    /// `minimax`, `glm` or `custom`. Known to the proxy, not acted upon.
    pub mcp_passthrough: Option<String>,
    /// Where to, for `custom`.
    pub mcp_passthrough_url: Option<String>,
    /// It reports cache writes of five minutes as those of an hour and the other way round.
    pub swap_cache_ttl_billing: bool,
    /// For what callers mark to be cached.
    pub cache_ttl: Option<CacheTtl>,
    /// Anthropic's context of a million tokens: force it, or keep callers from it.
    pub context_1m: Option<bool>,
    /// For providers of kind `codex`.
    pub codex: Codex,
    /// For providers of kinds `claude` and `claude-auth`.
    pub anthropic: Anthropic,
    /// The search tool of kinds `gemini` and `gemini-cli`: add it, or take it out.
    pub gemini_google_search: Option<bool>,
}

/// Forced members of a Responses body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codex {
    /// `reasoning.effort`.
    pub reasoning_effort: Option<String>,
    /// `reasoning.summary`.
    pub reasoning_summary: Option<String>,
    /// `text.verbosity`.
    pub text_verbosity: Option<String>,
    /// `parallel_tool_calls`.
    pub parallel_tool_calls: Option<bool>,
    /// `service_tier`.
    pub service_tier: Option<String>,
    /// The tool `image_generation`: add it, or take it out.
    pub image_generation: Option<bool>,
    /// `auto`, `force_official` or `keep_original`.
    pub instructions: Option<String>,
}

/// Forced members of a Messages body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anthropic {
    /// `max_tokens`.
    pub max_tokens: Option<u32>,
    /// `thinking.budget_tokens`.
    pub thinking_budget: Option<u32>,
    /// `thinking.type: adaptive` with an effort.
    pub adaptive_thinking: Option<AdaptiveThinking>,
}

/// Thinking whose depth the model chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveThinking {
    /// `output_config.effort`.
    pub effort: String,
    /// Beginnings of the models that it is for; `None`: all.
    pub models: Option<Vec<String>>,
}

impl Options {
    /// `None` where there is nothing in it, so that nobody looks at it twice.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}
