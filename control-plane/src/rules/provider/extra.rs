//! Fields of a provider that are kept and shown, and take effect with the feature that reads them. Each is
//! checked as if it already did, so that what is stored is sound.

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
    Text(usize),
    Url(usize, &'static [&'static str]),
    Object,
}

const WEB: &[&str] = &["http", "https"];
const CACHE: &[&str] = &["inherit", "5m", "1h"];
const LEGACY: Kind = Kind::Int(0, 2_147_483_647);

/// camelCase name and check of every such field.
const FIELDS: &[(&str, Kind)] = &[
    ("proxyUrl", Kind::Url(512, &["http", "https", "socks5", "socks4"])),
    ("proxyFallbackToDirect", Kind::Flag),
    ("mcpPassthroughType", Kind::Words(&["none", "minimax", "glm", "custom"])),
    ("mcpPassthroughUrl", Kind::Url(512, WEB)),
    ("swapCacheTtlBilling", Kind::Flag),
    ("cacheTtlPreference", Kind::Words(CACHE)),
    ("context1mPreference", Kind::Words(&["inherit", "force_enable", "disabled"])),
    ("codexReasoningEffortPreference", Kind::Text(32)),
    ("codexReasoningSummaryPreference", Kind::Text(32)),
    ("codexTextVerbosityPreference", Kind::Text(32)),
    ("codexParallelToolCallsPreference", Kind::Text(32)),
    ("codexServiceTierPreference", Kind::Text(32)),
    ("codexImageGenerationPreference", Kind::Text(32)),
    ("codexInstructionsStrategy", Kind::Text(32)),
    ("anthropicMaxTokensPreference", Kind::Forced(1, 64_000)),
    ("anthropicThinkingBudgetPreference", Kind::Forced(1024, 32_000)),
    ("anthropicAdaptiveThinking", Kind::Object),
    ("geminiGoogleSearchPreference", Kind::Text(32)),
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
            Self::Text(max) => any(Type::String).max_length(Some(*max)),
            Self::Url(max, _) => any(Type::String).max_length(Some(*max)),
            Self::Object => any(Type::Object),
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
        Kind::Text(max) => text(field, *max)?,
        Kind::Url(max, schemes) => {
            let value = text(field, *max)?;
            if let Some(Some(Value::String(url))) = &value {
                web_url(field, url, schemes)?;
            }
            value
        }
        Kind::Object => field.object()?.map(|object| object.map(Value::Object)),
    })
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
