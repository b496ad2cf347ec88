//! What a notification says, in both languages.

use super::Topic;
use crate::rules::refusal::Language;
use serde_json::Value;
use std::fmt::Write;

/// Longest body: WeCom takes 4,096 bytes.
const TEXT_MAX: usize = 3_800;

/// A message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// One line.
    pub title: String,
    /// Some lines.
    pub body: String,
}

/// The text of a payload. What the payload does not have is left out.
pub fn render(topic: Topic, payload: &Value, language: Language) -> Text {
    let chinese = language == Language::Chinese;
    let pick =
        |english: &'static str, chinese_text: &'static str| if chinese { chinese_text } else { english };
    let word = |name: &str| shown(&payload[name]);
    let mut body = String::new();
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(body, "{label}{} {value}", if chinese { "：" } else { ":" });
        }
    };
    let title = match topic {
        Topic::CircuitBreaker => {
            line(pick("Provider", "供应商"), format!("{} (#{})", word("providerName"), word("providerId")));
            line(pick("Reason", "原因"), reason(&payload["reason"], chinese));
            line(pick("Failures", "失败次数"), word("failures"));
            line(pick("Closed again at", "预计恢复"), word("until"));
            pick("A provider is resting", "供应商熔断告警")
        }
        Topic::DailyLeaderboard => {
            line(pick("Day", "日期"), word("date"));
            line(pick("Requests", "请求数"), word("requests"));
            line(pick("Cost", "总费用"), format!("${}", word("cost")));
            for (place, entry) in payload["entries"].as_array().into_iter().flatten().enumerate() {
                let of = |name: &str| shown(&entry[name]);
                let what = match chinese {
                    true => format!("${}，{} 次请求，{} tokens", of("cost"), of("requests"), of("tokens")),
                    false => format!("${}, {} requests, {} tokens", of("cost"), of("requests"), of("tokens")),
                };
                line(&format!("{}. {}", place + 1, of("userName")), what);
            }
            pick("Usage of yesterday", "每日用量排行榜")
        }
        Topic::CostAlert => {
            let scope = match payload["scope"].as_str() {
                Some("user") => pick("User", "用户"),
                Some("key") => pick("Key", "密钥"),
                _ => pick("Provider", "供应商"),
            };
            line(scope, format!("{} (#{})", word("name"), word("id")));
            line(
                pick("Limit", "限额"),
                format!("${} ({})", word("limit"), window(&payload["window"], chinese)),
            );
            line(pick("Used", "已用"), format!("${} ({}%)", word("current"), word("percent")));
            pick("A cost limit is nearly used up", "费用预警")
        }
    };
    if payload["test"] == true {
        line(pick("Note", "说明"), pick("this is a test", "这是一条测试消息").to_owned());
    }
    let end = body.floor_char_boundary(TEXT_MAX.min(body.len()));
    Text { title: title.to_owned(), body: body[..end].trim_end().to_owned() }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn reason(value: &Value, chinese: bool) -> String {
    match (value.as_str(), chinese) {
        (Some("credential"), false) => "its credential was refused; it is switched off".to_owned(),
        (Some("credential"), true) => "凭证被拒绝，已停用".to_owned(),
        (Some("failures"), false) => "too many failures in a row".to_owned(),
        (Some("failures"), true) => "连续失败次数过多".to_owned(),
        (other, _) => other.unwrap_or_default().to_owned(),
    }
}

fn window(value: &Value, chinese: bool) -> &'static str {
    match (value.as_str(), chinese) {
        (Some("5h"), false) => "5 hours",
        (Some("5h"), true) => "5 小时",
        (Some("daily"), false) => "daily",
        (Some("daily"), true) => "每日",
        (Some("weekly"), false) => "weekly",
        (Some("weekly"), true) => "每周",
        (Some("monthly"), false) => "monthly",
        (Some("monthly"), true) => "每月",
        (_, false) => "total",
        (_, true) => "总额",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts() {
        let breaker = json!({"providerId": 3, "providerName": "glm", "reason": "failures", "failures": 5,
            "until": "2026-01-01T00:00:00.000Z"});
        let text = render(Topic::CircuitBreaker, &breaker, Language::English);
        assert_eq!(text.title, "A provider is resting");
        assert_eq!(
            text.body,
            "Provider: glm (#3)\nReason: too many failures in a row\nFailures: 5\nClosed again at: 2026-01-01T00:00:00.000Z"
        );
        let board = json!({"date": "2026-01-01", "requests": 3, "cost": "1.5", "test": true,
            "entries": [{"userName": "Ann", "requests": 3, "cost": "1.5", "tokens": 70}]});
        let text = render(Topic::DailyLeaderboard, &board, Language::Chinese);
        assert_eq!(
            text.body,
            "日期： 2026-01-01\n请求数： 3\n总费用： $1.5\n1. Ann： $1.5，3 次请求，70 tokens\n说明： 这是一条测试消息"
        );
        let cost = json!({"scope": "key", "id": 9, "name": "k".repeat(5_000), "window": "5h", "limit": "10",
            "current": "8.5", "percent": "85"});
        assert!(render(Topic::CostAlert, &cost, Language::English).body.len() <= TEXT_MAX);
    }
}
