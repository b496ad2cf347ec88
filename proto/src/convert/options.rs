//! Options of a provider.

use super::Invalid;
use crate::pb;
use crate::table::{AdaptiveThinking, Anthropic, CacheTtl, Codex, Options};

pub(super) fn cache_ttl(word: Option<&str>) -> Result<Option<CacheTtl>, Invalid> {
    let parse = |word| CacheTtl::parse(word).ok_or_else(|| Invalid::new("cache_ttl", "unknown"));
    word.map(parse).transpose()
}

impl TryFrom<pb::ProviderOptions> for Options {
    type Error = Invalid;

    fn try_from(wire: pb::ProviderOptions) -> Result<Self, Invalid> {
        let codex = wire.codex.unwrap_or_default();
        let anthropic = wire.anthropic.unwrap_or_default();
        let adaptive = |wire: pb::AdaptiveThinking| AdaptiveThinking {
            effort: wire.effort,
            models: (!wire.all_models).then_some(wire.models),
        };
        Ok(Self {
            proxy_url: wire.proxy_url,
            proxy_fallback_to_direct: wire.proxy_fallback_to_direct,
            mcp_passthrough: wire.mcp_passthrough,
            mcp_passthrough_url: wire.mcp_passthrough_url,
            swap_cache_ttl_billing: wire.swap_cache_ttl_billing,
            cache_ttl: cache_ttl(wire.cache_ttl.as_deref())?,
            context_1m: wire.context_1m,
            codex: Codex {
                reasoning_effort: codex.reasoning_effort,
                reasoning_summary: codex.reasoning_summary,
                text_verbosity: codex.text_verbosity,
                parallel_tool_calls: codex.parallel_tool_calls,
                service_tier: codex.service_tier,
                image_generation: codex.image_generation,
                instructions: codex.instructions,
            },
            anthropic: Anthropic {
                max_tokens: anthropic.max_tokens,
                thinking_budget: anthropic.thinking_budget,
                adaptive_thinking: anthropic.adaptive_thinking.map(adaptive),
            },
            gemini_google_search: wire.gemini_google_search,
        })
    }
}

impl From<&Options> for pb::ProviderOptions {
    fn from(row: &Options) -> Self {
        let (codex, anthropic) = (row.codex.clone(), row.anthropic.clone());
        let adaptive = |row: AdaptiveThinking| pb::AdaptiveThinking {
            effort: row.effort,
            all_models: row.models.is_none(),
            models: row.models.unwrap_or_default(),
        };
        Self {
            proxy_url: row.proxy_url.clone(),
            proxy_fallback_to_direct: row.proxy_fallback_to_direct,
            mcp_passthrough: row.mcp_passthrough.clone(),
            mcp_passthrough_url: row.mcp_passthrough_url.clone(),
            swap_cache_ttl_billing: row.swap_cache_ttl_billing,
            cache_ttl: row.cache_ttl.map(|ttl| ttl.as_str().to_owned()),
            context_1m: row.context_1m,
            codex: Some(pb::CodexOptions {
                reasoning_effort: codex.reasoning_effort,
                reasoning_summary: codex.reasoning_summary,
                text_verbosity: codex.text_verbosity,
                parallel_tool_calls: codex.parallel_tool_calls,
                service_tier: codex.service_tier,
                image_generation: codex.image_generation,
                instructions: codex.instructions,
            }),
            anthropic: Some(pb::AnthropicOptions {
                max_tokens: anthropic.max_tokens,
                thinking_budget: anthropic.thinking_budget,
                adaptive_thinking: anthropic.adaptive_thinking.map(adaptive),
            }),
            gemini_google_search: row.gemini_google_search,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn full() -> Options {
        let word = |text: &str| Some(text.to_owned());
        Options {
            proxy_url: word("socks5://h:1"),
            proxy_fallback_to_direct: true,
            mcp_passthrough: word("custom"),
            mcp_passthrough_url: word("https://mcp"),
            swap_cache_ttl_billing: true,
            cache_ttl: Some(CacheTtl::Hour1),
            context_1m: Some(false),
            codex: Codex {
                reasoning_effort: word("high"),
                reasoning_summary: word("auto"),
                text_verbosity: word("low"),
                parallel_tool_calls: Some(false),
                service_tier: word("flex"),
                image_generation: Some(true),
                instructions: word("auto"),
            },
            anthropic: Anthropic {
                max_tokens: Some(2000),
                thinking_budget: Some(1024),
                adaptive_thinking: Some(AdaptiveThinking { effort: "high".into(), models: None }),
            },
            gemini_google_search: Some(false),
        }
    }

    #[test]
    fn they_arrive_as_they_were_sent() {
        let mut some_models = full();
        some_models.anthropic.adaptive_thinking =
            Some(AdaptiveThinking { effort: "low".into(), models: Some(vec!["claude-opus-4-6".into()]) });
        for options in [Options::default(), full(), some_models] {
            let sent = pb::ProviderOptions::from(&options).encode_to_vec();
            let came = pb::ProviderOptions::decode(sent.as_slice()).unwrap();
            assert_eq!(Options::try_from(came), Ok(options));
        }
        assert_eq!((Options::default().boxed(), full().boxed()), (None, Some(Box::new(full()))));
    }

    #[test]
    fn an_unknown_lifetime_is_refused() {
        let wire = pb::ProviderOptions { cache_ttl: Some("2h".to_owned()), ..Default::default() };
        assert_eq!(Options::try_from(wire).map_err(|error| error.path), Err("cache_ttl".to_owned()));
    }
}
