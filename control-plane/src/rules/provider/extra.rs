//! Fields of a provider that few have. They are kept together in one column and shown; what a proxy may need of them is
//! pushed as the provider's options (`compile/options.rs`).

use super::web_url;
use crate::rules::form::{Field, Form, Members};
use crate::rules::refusal::{Code, Refusal};
use serde_json::{Map, Value};
use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// How one field is checked.
enum Kind {
    Flag,
    Int(i64, i64),
    Words(&'static [&'static str]),
    /// `inherit`, or a whole number within bounds, as a text or a number.
    Forced(i64, i64),
    Url(usize, &'static [&'static str]),
    /// `{effort, modelMatchMode, models}`.
    Adaptive,
}

/// What an upstream may be reached through.
pub const PROXY_SCHEMES: &[&str] = &["http", "https", "socks5", "socks4"];
const WEB: &[&str] = &["http", "https"];
const CACHE: &[&str] = &["inherit", "5m", "1h"];
const SWITCH: &[&str] = &["inherit", "enabled", "disabled"];
const EFFORTS: &[&str] = &["inherit", "none", "minimal", "low", "medium", "high", "xhigh", "max"];
const TIERS: &[&str] = &["inherit", "auto", "default", "flex", "priority", "scale"];
/// Of adaptive thinking.
const DEPTHS: &[&str] = &["low", "medium", "high", "xhigh", "max"];
const MATCH_MODES: &[&str] = &["all", "specific"];
const MODELS_MAX: usize = 50;
const MODEL_MAX: usize = 64;
const LEGACY: Kind = Kind::Int(0, 2_147_483_647);

/// camelCase name and check of every such field.
const FIELDS: &[(&str, Kind)] = &[
    ("proxyUrl", Kind::Url(512, PROXY_SCHEMES)),
    ("proxyFallbackToDirect", Kind::Flag),
    ("mcpPassthroughType", Kind::Words(&["none", "minimax", "glm", "custom"])),
    ("mcpPassthroughUrl", Kind::Url(512, WEB)),
    ("swapCacheTtlBilling", Kind::Flag),
    ("cacheTtlPreference", Kind::Words(CACHE)),
    ("context1mPreference", Kind::Words(&["inherit", "force_enable", "disabled"])),
    ("codexReasoningEffortPreference", Kind::Words(EFFORTS)),
    ("codexReasoningSummaryPreference", Kind::Words(&["inherit", "auto", "concise", "detailed"])),
    ("codexTextVerbosityPreference", Kind::Words(&["inherit", "low", "medium", "high"])),
    ("codexParallelToolCallsPreference", Kind::Words(&["inherit", "true", "false"])),
    ("codexServiceTierPreference", Kind::Words(TIERS)),
    ("codexImageGenerationPreference", Kind::Words(SWITCH)),
    ("codexInstructionsStrategy", Kind::Words(&["auto", "force_official", "keep_original"])),
    ("anthropicMaxTokensPreference", Kind::Forced(1, 64_000)),
    ("anthropicThinkingBudgetPreference", Kind::Forced(1024, 32_000)),
    ("anthropicAdaptiveThinking", Kind::Adaptive),
    ("geminiGoogleSearchPreference", Kind::Words(SWITCH)),
    ("websiteUrl", Kind::Url(512, WEB)),
    ("faviconUrl", Kind::Url(512, WEB)),
    ("tpm", LEGACY),
    ("rpm", LEGACY),
    ("rpd", LEGACY),
    ("cc", LEGACY),
];

/// Shorter names that stand for the same fields.
const ALIASES: &[(&str, &str)] = &[
    ("anthropicMaxTokens", "anthropicMaxTokensPreference"),
    ("anthropicThinkingBudget", "anthropicThinkingBudgetPreference"),
    ("geminiGoogleSearch", "geminiGoogleSearchPreference"),
];

/// These fields in a form: none is held, [`extras`] takes them one by one.
#[derive(Debug)]
pub struct Extras;

impl Form for Extras {
    fn read(_: &Members) -> Result<Self, Refusal> {
        Ok(Self)
    }

    fn names(known: &mut Vec<&'static str>) {
        known.extend(FIELDS.iter().map(|(name, _)| name));
        known.extend(ALIASES.iter().map(|(alias, _)| alias));
    }
}

impl PartialSchema for Extras {
    fn schema() -> RefOr<Schema> {
        let fields = FIELDS.iter();
        fields.fold(ObjectBuilder::new(), |all, (name, kind)| all.property(*name, kind.schema())).into()
    }
}

impl ToSchema for Extras {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ProviderExtras")
    }
}

impl Kind {
    /// As the documentation shows it. Null clears each.
    fn schema(&self) -> Schema {
        let any = |kind: Type| ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]));
        let built = match self {
            Self::Flag => any(Type::Boolean),
            Self::Int(min, max) => any(Type::Integer).minimum(Some(*min)).maximum(Some(*max)),
            Self::Words(words) => {
                let words = words.iter().map(|word| Value::from(*word)).chain([Value::Null]);
                any(Type::String).enum_values(Some(words))
            }
            // Generators of clients name a type of two kinds after both, which no language lets them.
            Self::Forced(min, max) => any(Type::String).pattern(Some("^(inherit|[0-9]{1,5})$")).description(
                Some(format!("`inherit`, or a number from {min} to {max}, as a text or as a number.")),
            ),
            Self::Url(max, _) => any(Type::String).max_length(Some(*max)),
            Self::Adaptive => any(Type::Object),
        };
        built.into()
    }
}

/// `old` with the fields of a body laid over it; null takes a field away.
pub fn extras(members: &Members, old: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let mut all = old.clone();
    for (name, kind) in FIELDS {
        let alias = ALIASES.iter().find(|(_, full)| full == name).map_or(*name, |(alias, _)| alias);
        let field = members.take(&[name, alias])?;
        match checked(&field, kind)? {
            None => {}
            Some(None) => {
                all.remove(*name);
            }
            Some(Some(value)) => {
                all.insert((*name).to_owned(), value);
            }
        }
    }
    let number = |name: &str| {
        let value = all.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    let (budget, max) = ("anthropicThinkingBudgetPreference", "anthropicMaxTokensPreference");
    match (number(budget), number(max)) {
        (Some(thinking), Some(most)) if thinking >= most => {
            Err(Refusal::field(Code::MustBeBelow, budget).with("other", max))
        }
        _ => Ok(all),
    }
}

fn checked(field: &Field, kind: &Kind) -> Result<Option<Option<Value>>, Refusal> {
    if matches!(field.json(), Some(None)) {
        return Ok(Some(None));
    }
    Ok(match kind {
        Kind::Flag => field.flag(false)?.map(|flag| Some(flag.into())),
        Kind::Int(min, max) => field.int(*min..=*max)?.map(|number| number.map(Value::from)),
        Kind::Words(words) => field.word(words)?.map(|word| Some(word.into())),
        Kind::Forced(min, max) => match field.any()? {
            Some(Some(Value::String(text))) if text == "inherit" => Some(Some(text.into())),
            _ => field.int(*min..=*max)?.map(|number| number.map(Value::from)),
        },
        Kind::Url(max, schemes) => {
            let value = text(field, *max)?;
            if let Some(Some(Value::String(url))) = &value {
                web_url(field, url, schemes)?;
            }
            value
        }
        Kind::Adaptive => adaptive(field)?,
    })
}

/// How deep to think is left to the model, for all or for models whose names begin like one of `models`.
fn adaptive(field: &Field) -> Result<Option<Option<Value>>, Refusal> {
    let Some(Some(object)) = field.object()? else { return Ok(field.json().map(|_| None)) };
    let one_of = |words: &[&str], part: &str| match object.get(part).and_then(Value::as_str) {
        Some(word) if words.contains(&word) => Ok(word.to_owned()),
        _ => Err(field.refuse(Code::OneOf).with("words", format!("{part}: {}", words.join(", ")))),
    };
    let effort = one_of(DEPTHS, "effort")?;
    let mode = if object.contains_key("modelMatchMode") {
        one_of(MATCH_MODES, "modelMatchMode")?
    } else {
        "all".into()
    };
    let empty = Vec::new();
    let models = match object.get("models") {
        None | Some(Value::Null) => &empty,
        Some(Value::Array(models)) if models.len() > MODELS_MAX => {
            return Err(field.refuse(Code::MaxItems).with("max", MODELS_MAX));
        }
        Some(Value::Array(models)) => models,
        Some(_) => return Err(field.refuse(Code::NotList)),
    };
    let fits = |model: &Value| {
        model.as_str().is_some_and(|name| !name.is_empty() && name.chars().count() <= MODEL_MAX)
    };
    if !models.iter().all(fits) || mode == "specific" && models.is_empty() {
        return Err(field.refuse(Code::NotList));
    }
    let parts =
        [("effort", effort.into()), ("modelMatchMode", mode.into()), ("models", models.clone().into())];
    Ok(Some(Some(Value::Object(parts.map(|(name, part)| (name.to_owned(), part)).into_iter().collect()))))
}

/// A text; an empty one is none.
fn text(field: &Field, max: usize) -> Result<Option<Option<Value>>, Refusal> {
    let text = field.text(max)?;
    Ok(text.map(|text| text.filter(|text| !text.is_empty()).map(Value::String)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(body: &str, old: &[(&str, Value)]) -> Result<String, Code> {
        let members = Members::parse(body.as_bytes()).unwrap();
        let old = old.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let all = extras(&members, &old).map_err(|refusal| refusal.code)?;
        Ok(Value::Object(all).to_string())
    }

    #[test]
    fn kept_changed_and_taken_away() {
        let old = [("tpm", Value::from(5)), ("websiteUrl", Value::from("https://a"))];
        let cases = [
            ("{}", Ok(r#"{"tpm":5,"websiteUrl":"https://a"}"#)),
            (r#"{"tpm":null}"#, Ok(r#"{"websiteUrl":"https://a"}"#)),
            (r#"{"website_url":"","rpd":9}"#, Ok(r#"{"rpd":9,"tpm":5}"#)),
            (r#"{"websiteUrl":"x"}"#, Err(Code::Url)),
            (r#"{"proxy_url":"socks5://u:p@h:1"}"#, Err(Code::UrlCredentials)),
            (r#"{"mcp_passthrough_type":"x"}"#, Err(Code::OneOf)),
            (r#"{"anthropic_max_tokens":64001}"#, Err(Code::Range)),
            (r#"{"codex_reasoning_effort_preference":"hihg"}"#, Err(Code::OneOf)),
            (r#"{"codex_parallel_tool_calls_preference":true}"#, Err(Code::NotText)),
            (r#"{"anthropic_adaptive_thinking":{"effort":"deep"}}"#, Err(Code::OneOf)),
            (r#"{"anthropic_adaptive_thinking":{"effort":"low","models":"m"}}"#, Err(Code::NotList)),
            (
                r#"{"anthropic_adaptive_thinking":{"effort":"low","modelMatchMode":"specific"}}"#,
                Err(Code::NotList),
            ),
            (
                r#"{"tpm":null,"website_url":null,"anthropic_adaptive_thinking":{"effort":"low","x":1}}"#,
                Ok(r#"{"anthropicAdaptiveThinking":{"effort":"low","modelMatchMode":"all","models":[]}}"#),
            ),
            (
                r#"{"anthropic_max_tokens_preference":"2000","anthropic_thinking_budget":2000}"#,
                Err(Code::MustBeBelow),
            ),
        ];
        for (body, want) in cases {
            assert_eq!(with(body, &old), want.map(str::to_owned), "{body}");
        }
    }
}
