//! A provider's further fields (the column `extra`) → its options. What is only shown stays behind: `websiteUrl`,
//! `faviconUrl`, and the old columns `tpm`, `rpm`, `rpd` and `cc`, which nobody enforces.

use super::Broken;
use crate::rules::provider::PROXY_SCHEMES;
use contract::table::{AdaptiveThinking, Anthropic, CacheTtl, Codex, Options};
use serde_json::Value;
use url::Url;

/// `None` where all of it is inherited.
pub(super) fn read(extra: &Value) -> Result<Option<Box<Options>>, Broken> {
    let extra = Extra(extra);
    let mcp = extra.text("mcpPassthroughType")?.filter(|kind| kind != "none");
    let options = Options {
        proxy_url: proxy_url(extra)?,
        proxy_fallback_to_direct: extra.flag("proxyFallbackToDirect")?,
        mcp_passthrough_url: extra.text("mcpPassthroughUrl")?,
        mcp_passthrough: mcp,
        swap_cache_ttl_billing: extra.flag("swapCacheTtlBilling")?,
        cache_ttl: extra.forced("cacheTtlPreference")?.map(cache_ttl).transpose()?,
        context_1m: extra.choice("context1mPreference", "force_enable", "disabled")?,
        codex: Codex {
            reasoning_effort: extra.forced("codexReasoningEffortPreference")?,
            reasoning_summary: extra.forced("codexReasoningSummaryPreference")?,
            text_verbosity: extra.forced("codexTextVerbosityPreference")?,
            parallel_tool_calls: extra.choice("codexParallelToolCallsPreference", "true", "false")?,
            service_tier: extra.forced("codexServiceTierPreference")?,
            image_generation: extra.choice("codexImageGenerationPreference", "enabled", "disabled")?,
            instructions: extra.forced("codexInstructionsStrategy")?,
        },
        anthropic: Anthropic {
            max_tokens: extra.number("anthropicMaxTokensPreference")?,
            thinking_budget: extra.number("anthropicThinkingBudgetPreference")?,
            adaptive_thinking: adaptive(extra)?,
        },
        gemini_google_search: extra.choice("geminiGoogleSearchPreference", "enabled", "disabled")?,
    };
    Ok(options.boxed())
}

#[derive(Clone, Copy)]
struct Extra<'a>(&'a Value);

impl Extra<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<String>, Broken> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| Broken::new(name, "is not a text"))?;
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn flag(&self, name: &str) -> Result<bool, Broken> {
        let Some(value) = self.get(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| Broken::new(name, "is neither true nor false"))
    }

    /// A text, unless the caller's is to stay.
    fn forced(&self, name: &str) -> Result<Option<String>, Broken> {
        Ok(self.text(name)?.filter(|word| word != "inherit"))
    }

    fn choice(&self, name: &str, yes: &str, no: &str) -> Result<Option<bool>, Broken> {
        match self.forced(name)? {
            None => Ok(None),
            Some(word) if word == yes => Ok(Some(true)),
            Some(word) if word == no => Ok(Some(false)),
            Some(_) => Err(Broken::new(name, "has an unknown word")),
        }
    }

    /// A number, which may stand as a text.
    fn number(&self, name: &str) -> Result<Option<u32>, Broken> {
        let number = match self.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) if text == "inherit" || text.is_empty() => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        number.map(Some).ok_or_else(|| Broken::new(name, "is not a whole number"))
    }
}

fn proxy_url(extra: Extra<'_>) -> Result<Option<String>, Broken> {
    let field = "proxyUrl";
    let Some(text) = extra.text(field)? else { return Ok(None) };
    let url = Url::parse(&text).map_err(|_| Broken::new(field, "is not an absolute URL"))?;
    let named = !url.username().is_empty() || url.password().is_some();
    if !PROXY_SCHEMES.contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) || named {
        return Err(Broken::new(
            field,
            "is not the URL of an http, https or socks proxy without credentials",
        ));
    }
    Ok(Some(text))
}

fn cache_ttl(word: String) -> Result<CacheTtl, Broken> {
    CacheTtl::parse(&word).ok_or_else(|| Broken::new("cacheTtlPreference", "has an unknown word"))
}

fn adaptive(extra: Extra<'_>) -> Result<Option<AdaptiveThinking>, Broken> {
    let field = "anthropicAdaptiveThinking";
    let Some(value) = extra.get(field) else { return Ok(None) };
    let effort = value["effort"].as_str().ok_or_else(|| Broken::new(field, "has no effort"))?;
    let names = || -> Option<Vec<String>> {
        value["models"].as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let models = match value["modelMatchMode"].as_str() {
        Some("specific") => Some(names().ok_or_else(|| Broken::new(field, "has no list of models"))?),
        _ => None,
    };
    Ok(Some(AdaptiveThinking { effort: effort.to_owned(), models }))
}
