//! Reading an uploaded price table. Every number is read from its own digits.

use super::check;
use crate::rules::amount;
use crate::rules::refusal::{Code, Refusal};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The entry that LiteLLM's own file begins with; it explains the fields.
const SAMPLE: &str = "sample_spec";
/// Longest model name.
const NAME_MAX: usize = 255;
/// Deepest nesting of an entry.
const DEPTH: usize = 6;

/// A table as it was read.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    /// The usable entries.
    pub entries: BTreeMap<String, Value>,
    /// The others.
    pub failed: Vec<Failed>,
}

/// An entry that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Model name.
    pub model: String,
    /// What is wrong.
    pub why: String,
}

fn broken(error: serde_json::Error) -> Refusal {
    Refusal::new(Code::PriceJson).with("line", error.line()).with("column", error.column())
}

/// A map of model name to LiteLLM's fields.
pub fn parse_table(text: &str) -> Result<Table, Refusal> {
    let raw: &RawValue = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(broken)?;
    if !raw.get().starts_with('{') {
        return Err(Code::PriceObject.into());
    }
    let models: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get()).map_err(broken)?;
    let mut table = Table::default();
    for (model, raw) in models {
        if model == SAMPLE {
            continue;
        }
        match entry(&model, raw) {
            Ok(data) => {
                table.entries.insert(model, data);
            }
            Err(why) => table.failed.push(Failed { model, why }),
        }
    }
    Ok(table)
}

fn entry(model: &str, raw: &RawValue) -> Result<Value, String> {
    if model.trim().is_empty() || model.chars().count() > NAME_MAX || model.contains('\0') {
        return Err(format!("the name must have 1 to {NAME_MAX} characters"));
    }
    let data = exact(raw, DEPTH)?;
    let fields = data.as_object().ok_or("must be an object")?;
    if fields.get("mode").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err("mode is required".to_owned());
    }
    check(&data).map_err(|error| error.to_string())?;
    Ok(data)
}

/// The same JSON, with every number that is not whole as its decimal text.
fn exact(raw: &RawValue, depth: usize) -> Result<Value, String> {
    let text = raw.get();
    if depth == 0 {
        return Err("is nested too deeply".to_owned());
    }
    let bad = |error: serde_json::Error| error.to_string();
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(bad)?;
            let members = members.into_iter().map(|(name, raw)| Ok((name, exact(raw, depth - 1)?)));
            Value::Object(members.collect::<Result<Map<_, _>, String>>()?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(bad)?;
            Value::Array(items.into_iter().map(|raw| exact(raw, depth - 1)).collect::<Result<_, _>>()?)
        }
        Some(b'-' | b'0'..=b'9') => match text.parse::<i64>() {
            Ok(whole) => whole.into(),
            Err(_) => amount::parse(text)
                .map(|number| number.normalize().to_string().into())
                .ok_or_else(|| format!("the number {} has too many digits", &text[..text.len().min(40)]))?,
        },
        _ => serde_json::from_str(text).map_err(bad)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let table = parse_table(
            r#"{"sample_spec":{"x":1},
                "m":{"mode":"chat","input_cost_per_token":3e-6,"output_cost_per_token":1.50e-5,"max_tokens":8192,
                     "search":{"low":0.01},"supports":[true,"x"]},
                "no-mode":{"input_cost_per_token":1},
                "text":"x",
                "negative":{"mode":"chat","input_cost_per_token":-1e-6},
                "":{"mode":"chat"}}"#,
        )
        .unwrap();
        let m = &table.entries["m"];
        assert_eq!(m["input_cost_per_token"], "0.000003");
        assert_eq!(m["output_cost_per_token"], "0.000015");
        assert_eq!(m["max_tokens"], 8192);
        assert_eq!(m["search"]["low"], "0.01");
        let failed: Vec<_> = table.failed.iter().map(|failed| failed.model.as_str()).collect();
        assert_eq!(failed, ["", "negative", "no-mode", "text"]);
        assert_eq!(table.entries.len(), 1);
        assert_eq!(parse_table("{").map_err(|r| r.code), Err(Code::PriceJson));
        assert_eq!(parse_table("").map_err(|r| r.code), Err(Code::PriceJson));
        assert_eq!(parse_table("[]").map_err(|r| r.code), Err(Code::PriceObject));
    }
}
