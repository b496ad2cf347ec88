//! One message to a webhook, now.

use super::sealed::{open, secret, webhook};
use crate::api::answer::{Bare, Failures};
use crate::api::auth::{Admin, Caller};
use crate::api::error::language;
use crate::api::{Ask, Done, Failure, State};
use crate::db::settings;
use crate::outbound::{Message, Target};
use crate::rules::form::form;
use crate::rules::notification::{KEY, Kind, Stored, Topic, render};
use crate::rules::{Code, Refusal};
use actix_web::web::Data;
use actix_web::{HttpRequest, post};
use chrono::Utc;
use serde_json::{Value, json};

form! {
    /// A webhook; without a URL, or with a masked one, the stored one of that type.
    #[schema(example = json!({"webhookUrl": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=your-key",
        "type": "circuit-breaker"}))]
    pub struct TestWebhook {
        /// Where to.
        webhook_url: Option<String> = ["webhookUrl", "url"] {max_length = 2048},
        /// `circuit-breaker`, `daily-leaderboard` or `cost-alert`.
        topic: Option<String> = ["type"] {example = "circuit-breaker"},
        /// Whose form the message takes; `auto` goes by the host.
        kind: Option<String> = ["webhookType"] {pattern = "^(auto|wechat|feishu|dingtalk|telegram|custom)$"},
        /// What DingTalk or Feishu signs with.
        secret: Option<String> = ["webhookSecret"] {max_length = 512},
    }
}

/// Test a webhook (admin)
///
/// One attempt. Addresses that are not public are refused unless `OUTBOUND_ALLOW` names them.
#[utoipa::path(tag = "notifications", operation_id = "testWebhookAction", request_body = TestWebhook, responses(
    (status = 200, description = "The receiver took it", body = Bare), Failures))]
#[post("/actions/notifications/testWebhookAction")]
pub async fn test_webhook(
    admin: Admin,
    state: Data<State>,
    ask: Ask<TestWebhook>,
    request: HttpRequest,
) -> Result<Done, Failure> {
    let topic = ask.form.topic()?;
    let target = target(&state, &admin.0, &ask.form, topic).await?;
    let payload = sample(topic);
    let text = render(topic, &payload, language(request.headers()));
    let now_ms = Utc::now().timestamp_millis();
    let message = Message { topic, text: &text, payload: &payload, id: format!("test-{now_ms}"), now_ms };
    state.settings.outbound.deliver(&target, &message).await.map_err(Refusal::from)?;
    Ok(Done::default())
}

impl TestWebhook {
    fn topic(&self) -> Result<Topic, Refusal> {
        match self.topic.text(64)?.flatten().filter(|text| !text.is_empty()) {
            None => Ok(Topic::CircuitBreaker),
            Some(text) => {
                let all = Topic::ALL.map(Topic::as_str).join(", ");
                Topic::parse(&text).ok_or_else(|| self.topic.refuse(Code::OneOf).with("words", all))
            }
        }
    }
}

async fn target(state: &State, caller: &Caller, form: &TestWebhook, topic: Topic) -> Result<Target, Failure> {
    let kind = form.kind.word(Kind::WORDS)?.map(Kind::parse);
    let secret = secret(&form.secret)?.flatten();
    match webhook(&form.webhook_url)? {
        Some(Some(url)) => return Ok(Target { url, kind: kind.unwrap_or_default(), secret }),
        // A form whose field was emptied asks for nothing that is stored.
        Some(None) if form.webhook_url.json().flatten().is_some() => {
            return Err(form.webhook_url.refuse(Code::Required).into());
        }
        _ => {}
    }
    let value = settings::get(&mut *state.pool.read().await?, caller.owner, KEY).await?;
    let stored = Stored::read(value.as_ref());
    let channel = stored.channels.get(&topic).cloned().unwrap_or_default();
    let stored = open(state, caller.owner, topic, &channel)?;
    let stored = stored.ok_or_else(|| form.webhook_url.refuse(Code::Required))?;
    Ok(Target { kind: kind.unwrap_or(stored.kind), secret: secret.or(stored.secret), ..stored })
}

fn sample(topic: Topic) -> Value {
    match topic {
        Topic::CircuitBreaker => {
            json!({"test": true, "providerId": 0, "providerName": "example", "reason": "failures",
            "failures": 5})
        }
        Topic::DailyLeaderboard => json!({"test": true, "date": Utc::now().format("%Y-%m-%d").to_string(),
            "requests": 100, "cost": "1.23",
            "entries": [{"userName": "example", "requests": 100, "cost": "1.23", "tokens": 45_678}]}),
        Topic::CostAlert => {
            json!({"test": true, "scope": "user", "id": 0, "name": "example", "window": "daily",
            "limit": "10", "current": "8", "percent": "80"})
        }
    }
}
