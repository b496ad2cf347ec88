//! The list of models as each dialect's clients expect it.

use bytes::Bytes;
use contract::usage::Dialect;
use serde_json::{Value, json};

/// A model that the caller may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Name, as it is asked for.
    pub id: String,
    /// Unix seconds since which it is known.
    pub created: i64,
}

/// The whole list, in the order given.
pub fn render_list(dialect: Dialect, models: &[Model]) -> Bytes {
    let data: Vec<Value> = models.iter().map(|model| entry(dialect, model)).collect();
    let list = match dialect {
        Dialect::OpenAi | Dialect::Responses => json!({"object": "list", "data": data}),
        Dialect::Anthropic => json!({
            "data": data,
            "has_more": false,
            "first_id": models.first().map(|model| &model.id),
            "last_id": models.last().map(|model| &model.id),
        }),
        Dialect::Gemini => json!({"models": data}),
    };
    Bytes::from(list.to_string())
}

/// One model by its name; `None` if it is not in the list.
pub fn render_one(dialect: Dialect, models: &[Model], id: &str) -> Option<Bytes> {
    let model = models.iter().find(|model| model.id == id)?;
    Some(Bytes::from(entry(dialect, model).to_string()))
}

fn entry(dialect: Dialect, model: &Model) -> Value {
    let id = &model.id;
    match dialect {
        Dialect::OpenAi | Dialect::Responses => {
            json!({"id": id, "object": "model", "created": model.created, "owned_by": "switchyard"})
        }
        Dialect::Anthropic => {
            json!({"type": "model", "id": id, "display_name": id, "created_at": rfc3339(model.created)})
        }
        Dialect::Gemini => json!({
            "name": format!("models/{id}"),
            "displayName": id,
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
    }
}

/// Unix seconds as `2026-11-21T04:05:06Z`. Days to date after the era arithmetic of the proleptic
/// Gregorian calendar, with years that begin in March so that the leap day comes last.
fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let day = days + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Vec<Model> {
        [("claude-sonnet-4-5", 1_759_104_000), ("gpt-5", 0)]
            .map(|(id, created)| Model { id: id.to_owned(), created })
            .to_vec()
    }

    #[test]
    fn lists_in_each_dialect() {
        let lists: Vec<String> = Dialect::ALL
            .iter()
            .map(|dialect| String::from_utf8(render_list(*dialect, &models()).to_vec()).unwrap())
            .collect();
        insta::assert_snapshot!(lists.join("\n"), @r###"
        {"data":[{"created_at":"2025-09-29T00:00:00Z","display_name":"claude-sonnet-4-5","id":"claude-sonnet-4-5","type":"model"},{"created_at":"1970-01-01T00:00:00Z","display_name":"gpt-5","id":"gpt-5","type":"model"}],"first_id":"claude-sonnet-4-5","has_more":false,"last_id":"gpt-5"}
        {"data":[{"created":1759104000,"id":"claude-sonnet-4-5","object":"model","owned_by":"switchyard"},{"created":0,"id":"gpt-5","object":"model","owned_by":"switchyard"}],"object":"list"}
        {"data":[{"created":1759104000,"id":"claude-sonnet-4-5","object":"model","owned_by":"switchyard"},{"created":0,"id":"gpt-5","object":"model","owned_by":"switchyard"}],"object":"list"}
        {"models":[{"displayName":"claude-sonnet-4-5","name":"models/claude-sonnet-4-5","supportedGenerationMethods":["generateContent","streamGenerateContent","countTokens"]},{"displayName":"gpt-5","name":"models/gpt-5","supportedGenerationMethods":["generateContent","streamGenerateContent","countTokens"]}]}
        "###);
        assert_eq!(
            render_list(Dialect::Anthropic, &[]),
            r#"{"data":[],"first_id":null,"has_more":false,"last_id":null}"#
        );
    }

    #[test]
    fn finds_one() {
        let found = render_one(Dialect::OpenAi, &models(), "gpt-5").unwrap();
        assert_eq!(found, r#"{"created":0,"id":"gpt-5","object":"model","owned_by":"switchyard"}"#);
        assert_eq!(render_one(Dialect::OpenAi, &models(), "gpt"), None);
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
