//! Notifications: an owner's settings as they are stored, and the texts. Webhooks and their secrets stand in the
//! settings sealed; what they are sealed under is named here.

mod text;

pub use text::{Text, render};

use super::refusal::Language;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of the settings table.
pub const KEY: &str = "notifications";

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// A provider's circuit opened, or its credential was refused.
    CircuitBreaker,
    /// Who used most yesterday.
    DailyLeaderboard,
    /// A limit is nearly used up.
    CostAlert,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 3] = [Self::CircuitBreaker, Self::DailyLeaderboard, Self::CostAlert];

    /// The word of the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitBreaker => "circuit-breaker",
            Self::DailyLeaderboard => "daily-leaderboard",
            Self::CostAlert => "cost-alert",
        }
    }

    /// By its word, in any spelling: `circuit_breaker`, `circuitBreaker`, `circuit-breaker`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
        Self::ALL.into_iter().find(|topic| plain(topic.as_str()) == plain(text))
    }
}

/// Whose form a message takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// As the host of the webhook says.
    #[default]
    Auto,
    /// WeCom.
    Wechat,
    /// Feishu and Lark.
    Feishu,
    /// DingTalk.
    Dingtalk,
    /// A Telegram bot; the URL names `chat_id`.
    Telegram,
    /// Our own JSON.
    Custom,
}

impl Kind {
    /// The words of the API, with the default first.
    pub const WORDS: &'static [&'static str] =
        &["auto", "wechat", "feishu", "dingtalk", "telegram", "custom"];

    /// By its word.
    pub fn parse(word: &str) -> Self {
        match word {
            "wechat" => Self::Wechat,
            "feishu" => Self::Feishu,
            "dingtalk" => Self::Dingtalk,
            "telegram" => Self::Telegram,
            "custom" => Self::Custom,
            _ => Self::Auto,
        }
    }

    /// What `Auto` means for a host.
    pub fn of_host(self, host: &str) -> Self {
        match (self, host) {
            (Self::Auto, "qyapi.weixin.qq.com") => Self::Wechat,
            (Self::Auto, "open.feishu.cn" | "open.larksuite.com") => Self::Feishu,
            (Self::Auto, "oapi.dingtalk.com") => Self::Dingtalk,
            (Self::Auto, "api.telegram.org") => Self::Telegram,
            (Self::Auto, _) => Self::Custom,
            (named, _) => named,
        }
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Wechat => "wechat",
            Self::Feishu => "feishu",
            Self::Dingtalk => "dingtalk",
            Self::Telegram => "telegram",
            Self::Custom => "custom",
        }
    }
}

/// Where a topic goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Channel {
    /// Its own switch, below the switch of all.
    pub enabled: bool,
    /// Sealed, in hexadecimal.
    pub webhook: Option<String>,
    /// Whose form.
    pub kind: Kind,
    /// What DingTalk and Feishu sign with; sealed, in hexadecimal.
    pub secret: Option<String>,
}

/// An owner's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stored {
    /// The switch of all.
    pub enabled: bool,
    /// Kept for clients; changes nothing.
    pub use_legacy_mode: bool,
    /// `zh` or `en`; the language of whoever first saved the settings.
    pub language: Option<String>,
    /// By topic.
    pub channels: BTreeMap<Topic, Channel>,
    /// HH:mm in the configured time zone.
    pub leaderboard_time: String,
    /// Places of the leaderboard.
    pub leaderboard_top: u32,
    /// Share of a limit, as a decimal text.
    pub cost_threshold: String,
    /// Minutes between two looks at the limits.
    pub cost_interval: u32,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            enabled: false,
            use_legacy_mode: false,
            language: None,
            channels: BTreeMap::new(),
            leaderboard_time: "09:00".to_owned(),
            leaderboard_top: 5,
            cost_threshold: "0.80".to_owned(),
            cost_interval: 60,
        }
    }
}

impl Stored {
    /// From the settings table; what cannot be read counts as never set.
    pub fn read(value: Option<&serde_json::Value>) -> Self {
        value.and_then(|value| Self::deserialize(value).ok()).unwrap_or_default()
    }

    /// A topic's channel, if both switches are on and there is a webhook.
    pub fn active(&self, topic: Topic) -> Option<&Channel> {
        let channel = self.channels.get(&topic)?;
        (self.enabled && channel.enabled && channel.webhook.is_some()).then_some(channel)
    }

    /// The language of the texts.
    pub fn language(&self) -> Language {
        match self.language.as_deref() {
            Some("zh") => Language::Chinese,
            _ => Language::English,
        }
    }
}

/// What a webhook is sealed under.
pub fn webhook_aad(owner: i64, topic: Topic) -> String {
    format!("notification:{owner}:{}:webhook", topic.as_str())
}

/// What a webhook's secret is sealed under.
pub fn secret_aad(owner: i64, topic: Topic) -> String {
    format!("notification:{owner}:{}:secret", topic.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_survive_their_table() {
        let mut stored = Stored { enabled: true, ..Stored::default() };
        let channel = Channel { enabled: true, webhook: Some("00".into()), ..Channel::default() };
        stored.channels.insert(Topic::CostAlert, channel);
        let json = serde_json::to_value(&stored).unwrap();
        assert_eq!(Stored::read(Some(&json)), stored);
        assert!(stored.active(Topic::CostAlert).is_some() && stored.active(Topic::CircuitBreaker).is_none());
        stored.enabled = false;
        assert!(stored.active(Topic::CostAlert).is_none(), "the switch of all");
        assert_eq!(Stored::read(Some(&json!({"enabled": 5}))), Stored::default());
        assert_eq!(Stored::read(Some(&json!({"enabled": true}))).leaderboard_time, "09:00");
    }

    #[test]
    fn words() {
        for text in ["circuit-breaker", "circuit_breaker", "circuitBreaker"] {
            assert_eq!(Topic::parse(text), Some(Topic::CircuitBreaker), "{text}");
        }
        assert_eq!(Topic::parse("cache-hit-rate-alert"), None);
        for word in Kind::WORDS {
            assert_eq!(Kind::parse(word).as_str(), *word);
        }
        assert_eq!(Kind::Auto.of_host("open.feishu.cn"), Kind::Feishu);
        assert_eq!(Kind::Auto.of_host("hooks.example"), Kind::Custom);
        assert_eq!(Kind::Dingtalk.of_host("127.0.0.1"), Kind::Dingtalk);
    }
}
