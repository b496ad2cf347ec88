//! What may be said about the settings.

use super::sealed::{seal, secret, webhook};
use crate::api::{Failure, State};
use crate::rules::form::form;
use crate::rules::notification::{Kind, Stored, Topic, secret_aad, webhook_aad};
use crate::rules::{Code, Field, Language, Refusal, amount};

form! {
    /// Only what is named changes.
    #[schema(example = json!({"enabled": true, "circuitBreakerEnabled": true,
        "circuitBreakerWebhook": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=your-key"}))]
    pub struct UpdateNotificationSettings {
        /// The switch of all.
        enabled: Option<bool> = ["enabled"] {example = true},
        /// Kept and shown; changes nothing.
        use_legacy_mode: Option<bool> = ["useLegacyMode"],
        /// Of the texts. At first that of whoever saves the settings.
        language: Option<String> = ["language"] {pattern = "^(zh|en)$"},
        /// Whether an opened circuit is told.
        breaker_enabled: Option<bool> = ["circuitBreakerEnabled"],
        /// Where it goes; `[REDACTED]` keeps the old one, null or "" clears it.
        breaker_webhook: Option<String> = ["circuitBreakerWebhook"] {max_length = 2048},
        /// Whose form the message takes; `auto` goes by the host.
        breaker_type: Option<String> = ["circuitBreakerWebhookType"]
            {pattern = "^(auto|wechat|feishu|dingtalk|telegram|custom)$"},
        /// What DingTalk or Feishu signs with.
        breaker_secret: Option<String> = ["circuitBreakerWebhookSecret"] {max_length = 512},
        /// Whether the day's leaderboard is told.
        board_enabled: Option<bool> = ["dailyLeaderboardEnabled"],
        /// Where it goes; `[REDACTED]` keeps the old one, null or "" clears it.
        board_webhook: Option<String> = ["dailyLeaderboardWebhook"] {max_length = 2048},
        /// Whose form the message takes; `auto` goes by the host.
        board_type: Option<String> = ["dailyLeaderboardWebhookType"]
            {pattern = "^(auto|wechat|feishu|dingtalk|telegram|custom)$"},
        /// What DingTalk or Feishu signs with.
        board_secret: Option<String> = ["dailyLeaderboardWebhookSecret"] {max_length = 512},
        /// HH:mm in the configured time zone.
        board_time: Option<String> = ["dailyLeaderboardTime"] {pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
        /// Places.
        board_top: Option<i32> = ["dailyLeaderboardTopN"] {minimum = 1, maximum = 20},
        /// Whether a nearly used up limit is told.
        cost_enabled: Option<bool> = ["costAlertEnabled"],
        /// Where it goes; `[REDACTED]` keeps the old one, null or "" clears it.
        cost_webhook: Option<String> = ["costAlertWebhook"] {max_length = 2048},
        /// Whose form the message takes; `auto` goes by the host.
        cost_type: Option<String> = ["costAlertWebhookType"]
            {pattern = "^(auto|wechat|feishu|dingtalk|telegram|custom)$"},
        /// What DingTalk or Feishu signs with.
        cost_secret: Option<String> = ["costAlertWebhookSecret"] {max_length = 512},
        /// Share of a limit, from 0 to 1.
        cost_threshold: Option<String> = ["costAlertThreshold"] {example = "0.80"},
        /// Minutes between two looks at the limits.
        cost_interval: Option<i32> = ["costAlertCheckInterval"] {minimum = 10, maximum = 1440},
        /// Not supported; only false is accepted.
        cache_alert: Option<bool> = ["cacheHitRateAlertEnabled"],
        /// For all three at once, where their own is not named.
        webhook_url: Option<String> = ["webhookUrl"] {max_length = 2048},
        /// Switches the three: those in the list on, the others off.
        enabled_events: Option<Vec<String>> = ["enabledEvents"] {max_items = 10},
        // Of the alert that cannot be switched on; forms that are saved whole have them.
        => ["cacheHitRateAlertWebhook", "cacheHitRateAlertWindowMode", "cacheHitRateAlertCheckInterval",
            "cacheHitRateAlertHistoricalLookbackDays", "cacheHitRateAlertLookbackDays",
            "cacheHitRateAlertMinEligibleRequests", "cacheHitRateAlertMinEligibleTokens", "cacheHitRateAlertAbsMin",
            "cacheHitRateAlertDropRel", "cacheHitRateAlertDropAbs", "cacheHitRateAlertCooldownMinutes",
            "cacheHitRateAlertTopN", "id", "createdAt", "updatedAt",
        ],
    }
}

/// The fields of one topic.
struct Fields<'a> {
    topic: Topic,
    enabled: &'a Field,
    webhook: &'a Field,
    kind: &'a Field,
    secret: &'a Field,
}

impl UpdateNotificationSettings {
    /// Lays what was said over `stored`.
    pub(super) fn apply(
        &self,
        state: &State,
        owner: i64,
        language: Language,
        mut stored: Stored,
    ) -> Result<Stored, Failure> {
        if self.cache_alert.flag(false)? == Some(true) {
            return Err(self.cache_alert.refuse(Code::NotSupported).into());
        }
        let events = self.events()?;
        for fields in self.topics() {
            self.apply_topic(state, owner, &fields, &mut stored)?;
            if let (Some(events), false) = (&events, fields.enabled.is_given()) {
                stored.channels.entry(fields.topic).or_default().enabled = events.contains(&fields.topic);
            }
        }
        // An older client knows only the list: naming an event switches everything on.
        let listed = events.map(|events| !events.is_empty());
        stored.enabled = self.enabled.flag(false)?.or(listed).unwrap_or(stored.enabled);
        stored.use_legacy_mode = self.use_legacy_mode.flag(false)?.unwrap_or(stored.use_legacy_mode);
        if let Some(language) = self.language.word(&["en", "zh"])? {
            stored.language = Some(language.to_owned());
        }
        let caller = if language == Language::Chinese { "zh" } else { "en" };
        stored.language.get_or_insert_with(|| caller.to_owned());
        let default = Stored::default();
        if let Some(time) = self.board_time.clock()? {
            stored.leaderboard_time = time.unwrap_or(default.leaderboard_time);
        }
        if let Some(top) = self.board_top.int32(1..=20)? {
            stored.leaderboard_top = top.map_or(default.leaderboard_top, i32::unsigned_abs);
        }
        if let Some(share) = self.cost_threshold.usd(1)? {
            stored.cost_threshold =
                share.map_or(default.cost_threshold, |share| two_places(amount::plain(&share)));
        }
        if let Some(minutes) = self.cost_interval.int32(10..=1440)? {
            stored.cost_interval = minutes.map_or(default.cost_interval, i32::unsigned_abs);
        }
        Ok(stored)
    }

    fn topics(&self) -> [Fields<'_>; 3] {
        [
            Fields {
                topic: Topic::CircuitBreaker,
                enabled: &self.breaker_enabled,
                webhook: &self.breaker_webhook,
                kind: &self.breaker_type,
                secret: &self.breaker_secret,
            },
            Fields {
                topic: Topic::DailyLeaderboard,
                enabled: &self.board_enabled,
                webhook: &self.board_webhook,
                kind: &self.board_type,
                secret: &self.board_secret,
            },
            Fields {
                topic: Topic::CostAlert,
                enabled: &self.cost_enabled,
                webhook: &self.cost_webhook,
                kind: &self.cost_type,
                secret: &self.cost_secret,
            },
        ]
    }

    fn apply_topic(
        &self,
        state: &State,
        owner: i64,
        fields: &Fields<'_>,
        stored: &mut Stored,
    ) -> Result<(), Failure> {
        let own = fields.webhook.is_given();
        let url = if own { webhook(fields.webhook)? } else { webhook(&self.webhook_url)? };
        let channel = stored.channels.entry(fields.topic).or_default();
        if let Some(Some(url)) = &url {
            state.settings.outbound.check_literal(url)?;
        }
        if let Some(url) = url {
            let identity = webhook_aad(owner, fields.topic);
            channel.webhook = url.map(|url| seal(state, url.as_str(), &identity)).transpose()?;
        }
        if let Some(secret) = secret(fields.secret)? {
            let identity = secret_aad(owner, fields.topic);
            channel.secret = secret.map(|secret| seal(state, &secret, &identity)).transpose()?;
        }
        if let Some(kind) = fields.kind.word(Kind::WORDS)? {
            channel.kind = Kind::parse(kind);
        }
        if let Some(enabled) = fields.enabled.flag(false)? {
            channel.enabled = enabled;
        }
        Ok(())
    }

    fn events(&self) -> Result<Option<Vec<Topic>>, Refusal> {
        let Some(words) = self.enabled_events.list(10, 64)? else { return Ok(None) };
        let all = Topic::ALL.map(Topic::as_str).join(", ");
        let wrong = || self.enabled_events.refuse(Code::OneOf).with("words", all.clone());
        words.iter().map(|word| Topic::parse(word).ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
    }
}

/// `0.8` → `0.80`, as it was always shown.
fn two_places(text: String) -> String {
    let places = text.split_once('.').map_or(0, |(_, places)| places.len());
    match places {
        0 => format!("{text}.00"),
        1 => format!("{text}0"),
        _ => text,
    }
}
