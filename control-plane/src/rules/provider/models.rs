//! A provider's model rules: which names it takes, and what it calls them.

use crate::rules::form::{Field, Patch};
use crate::rules::refusal::{Code, Refusal};
use contract::table::MatchType;
use serde_json::{Value, json};

/// Most rules of one provider.
const RULES_MAX: usize = 500;
/// Longest pattern or name.
const PATTERN_MAX: usize = 255;
/// Compiled size of one expression, in bytes.
const REGEX_MAX: usize = 1 << 20;

/// A map of source to target, or a list of `{matchType, source, target}`; kept as the list.
pub fn redirects(field: &Field) -> Result<Patch<Value>, Refusal> {
    let rules = match field.any()? {
        None => return Ok(None),
        Some(None) => return Ok(Some(None)),
        Some(Some(Value::Object(map))) => {
            let rule = |(source, target): (String, Value)| match target {
                Value::String(target) => checked(field, "exact", &source, Some(&target)),
                _ => Err(wrong(field, "every target must be a text")),
            };
            map.into_iter().map(rule).collect::<Result<Vec<_>, _>>()?
        }
        Some(Some(Value::Array(rules))) => {
            let rule = |rule: &Value| {
                let (Some(source), Some(target)) = (text(rule, "source"), text(rule, "target")) else {
                    return Err(wrong(field, "every rule needs source and target"));
                };
                checked(field, text(rule, "matchType").unwrap_or("exact"), source, Some(target))
            };
            rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?
        }
        Some(Some(_)) => return Err(wrong(field, "must be a list of rules or a map of names")),
    };
    bounded(field, rules)
}

/// A list of names and of `{matchType, pattern}`; names stay as they came.
pub fn allowed_models(field: &Field) -> Result<Patch<Value>, Refusal> {
    let entries = match field.any()? {
        None => return Ok(None),
        Some(None) => return Ok(Some(None)),
        Some(Some(Value::Array(entries))) => entries,
        Some(Some(_)) => return Err(wrong(field, "must be a list")),
    };
    let rule = |entry: Value| match &entry {
        Value::String(name) => checked(field, "exact", name, None).map(|_| entry),
        rule => match text(rule, "pattern") {
            Some(pattern) => checked(field, text(rule, "matchType").unwrap_or("exact"), pattern, None),
            None => Err(wrong(field, "every rule is a name or has a pattern")),
        },
    };
    bounded(field, entries.into_iter().map(rule).collect::<Result<Vec<_>, _>>()?)
}

fn bounded(field: &Field, rules: Vec<Value>) -> Result<Patch<Value>, Refusal> {
    match rules.len() {
        0 => Ok(Some(None)),
        1..=RULES_MAX => Ok(Some(Some(rules.into()))),
        _ => Err(field.refuse(Code::MaxItems).with("max", RULES_MAX)),
    }
}

fn text<'a>(rule: &'a Value, name: &str) -> Option<&'a str> {
    let snake = match name {
        "matchType" => "match_type",
        name => name,
    };
    rule.get(name).or_else(|| rule.get(snake))?.as_str()
}

fn checked(field: &Field, how: &str, pattern: &str, target: Option<&str>) -> Result<Value, Refusal> {
    let Some(match_type) = MatchType::parse(how) else {
        return Err(wrong(field, "matchType must be exact, prefix, suffix, contains or regex"));
    };
    let fits = |name: &str| !name.trim().is_empty() && name.chars().count() <= PATTERN_MAX;
    if !fits(pattern) || !target.is_none_or(fits) {
        return Err(wrong(field, "names and patterns have 1 to 255 characters"));
    }
    if match_type == MatchType::Regex
        && regex::RegexBuilder::new(pattern).size_limit(REGEX_MAX).build().is_err()
    {
        return Err(wrong(field, "a regular expression does not compile"));
    }
    Ok(match target {
        Some(target) => json!({"matchType": match_type.as_str(), "source": pattern, "target": target}),
        None => json!({"matchType": match_type.as_str(), "pattern": pattern}),
    })
}

fn wrong(field: &Field, why: &str) -> Refusal {
    field.refuse(Code::ModelRule).with("why", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn field(json: &str) -> Field {
        Field { name: "x", raw: Some(RawValue::from_string(json.to_owned()).unwrap()) }
    }

    #[test]
    fn rules() {
        let rule = json!([{"matchType": "exact", "source": "a", "target": "b"}]);
        for same in [
            r#"{"a":"b"}"#,
            r#"[{"source":"a","target":"b"}]"#,
            r#"[{"match_type":"exact","source":"a","target":"b"}]"#,
        ] {
            assert_eq!(redirects(&field(same)), Ok(Some(Some(rule.clone()))), "{same}");
        }
        assert_eq!(redirects(&field("{}")), Ok(Some(None)));
        assert_eq!(redirects(&field("null")), Ok(Some(None)));
        for bad in [
            r#"{"a":1}"#,
            r#"[{"source":"a"}]"#,
            r#"[{"matchType":"glob","source":"a","target":"b"}]"#,
            r#"[{"matchType":"regex","source":"(","target":"b"}]"#,
            r#"{"":"b"}"#,
            "5",
        ] {
            assert_eq!(redirects(&field(bad)).map_err(|r| r.code), Err(Code::ModelRule), "{bad}");
        }
        let mixed = r#"["a",{"matchType":"prefix","pattern":"claude-"}]"#;
        assert_eq!(
            allowed_models(&field(mixed)),
            Ok(Some(Some(json!(["a", {"matchType": "prefix", "pattern": "claude-"}]))))
        );
        assert!(allowed_models(&field(r#"["",5]"#)).is_err());
    }
}
