//! Messages to webhooks, in the form that each service takes. A service that answers 200 and says no in its body
//! did not take the message.

use super::{Error, Outbound};
use crate::rules::notification::{Kind, Text, Topic};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderMap;
use ring::hmac;
use serde_json::{Value, json};
use url::Url;

/// Longest answer of a service that is told to people.
const SAID_MAX: usize = 200;

/// Where a message goes.
#[derive(Clone)]
pub struct Target {
    /// The webhook; a secret.
    pub url: Url,
    /// Whose form.
    pub kind: Kind,
    /// What the message is signed with, where the service knows that.
    pub secret: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What is said.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// About what.
    pub topic: Topic,
    /// For people.
    pub text: &'a Text,
    /// For programs.
    pub payload: &'a Value,
    /// The same for every attempt, so that a receiver can tell a repetition.
    pub id: String,
    /// Unix milliseconds.
    pub now_ms: i64,
}

impl Outbound {
    /// One attempt.
    pub async fn deliver(&self, target: &Target, message: &Message<'_>) -> Result<(), Error> {
        let kind = target.kind.of_host(target.url.host_str().unwrap_or_default());
        let (url, body) = request(target, kind, message);
        let answer = self.post_json(&url, HeaderMap::new(), body.to_string().into_bytes()).await?;
        taken(kind, &answer)
    }
}

fn request(target: &Target, kind: Kind, message: &Message<'_>) -> (Url, Value) {
    let Text { title, body } = message.text;
    let mut url = target.url.clone();
    let secret = target.secret.as_deref();
    let content = match kind {
        Kind::Wechat => {
            json!({"msgtype": "markdown", "markdown": {"content": format!("**{title}**\n{body}")}})
        }
        Kind::Feishu => {
            let mut card = json!({"msg_type": "interactive", "card": {
                "config": {"wide_screen_mode": true},
                "header": {"title": {"tag": "plain_text", "content": title}, "template": color(message.topic)},
                "elements": [{"tag": "markdown", "content": body}],
            }});
            if let Some(secret) = secret {
                // Feishu's key is what others sign, and it signs nothing.
                let seconds = message.now_ms / 1000;
                card["timestamp"] = seconds.to_string().into();
                card["sign"] = signature(&format!("{seconds}\n{secret}"), "").into();
            }
            card
        }
        Kind::Dingtalk => {
            if let Some(secret) = secret {
                let sign = signature(secret, &format!("{}\n{secret}", message.now_ms));
                url.query_pairs_mut()
                    .append_pair("timestamp", &message.now_ms.to_string())
                    .append_pair("sign", &sign);
            }
            // One line end is a space in its Markdown.
            let text = format!("### {title}\n\n{}", body.replace('\n', "\n\n"));
            json!({"msgtype": "markdown", "markdown": {"title": title, "text": text}})
        }
        Kind::Telegram => {
            let mut content = serde_json::Map::new();
            for (name, value) in target.url.query_pairs() {
                content.insert(name.into_owned(), value.into_owned().into());
            }
            url.set_query(None);
            content.insert("text".to_owned(), format!("{title}\n{body}").into());
            content.insert("disable_web_page_preview".to_owned(), true.into());
            Value::Object(content)
        }
        Kind::Custom | Kind::Auto => json!({
            "id": message.id, "type": message.topic.as_str(), "title": title, "text": body,
            "timestamp": message.now_ms, "data": message.payload,
        }),
    };
    (url, content)
}

fn color(topic: Topic) -> &'static str {
    match topic {
        Topic::CircuitBreaker => "red",
        Topic::DailyLeaderboard => "blue",
        Topic::CostAlert => "orange",
    }
}

/// Base64 of HMAC-SHA256.
fn signature(key: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

/// Whether the service says that it took the message; one that says nothing did.
fn taken(kind: Kind, answer: &[u8]) -> Result<(), Error> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let code = |name: &str| answer[name].as_i64().unwrap_or(0);
    let is_taken = match kind {
        Kind::Wechat | Kind::Dingtalk => code("errcode") == 0,
        Kind::Feishu => code("code") == 0 && code("StatusCode") == 0,
        Kind::Telegram => answer["ok"] != false,
        Kind::Custom | Kind::Auto => true,
    };
    if is_taken {
        return Ok(());
    }
    let said = ["errmsg", "msg", "description"].iter().find_map(|name| answer[*name].as_str());
    let said = said.unwrap_or("no reason").chars().filter(|c| !c.is_control()).take(SAID_MAX).collect();
    Err(Error::NotTaken(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(kind: Kind, url: &str, secret: Option<&str>) -> (String, Value) {
        let text = Text { title: "T".to_owned(), body: "a\nb".to_owned() };
        let payload = json!({"providerId": 1});
        let (id, topic) = ("n-1".to_owned(), Topic::CircuitBreaker);
        let message = Message { topic, text: &text, payload: &payload, id, now_ms: 1_700_000_000_123 };
        let target = Target { url: url.parse().unwrap(), kind, secret: secret.map(str::to_owned) };
        let kind = kind.of_host(target.url.host_str().unwrap());
        let (url, body) = request(&target, kind, &message);
        (url.to_string(), body)
    }

    #[test]
    fn every_service_gets_its_form() {
        let (url, body) = sent(Kind::Auto, "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=k", None);
        assert_eq!(url, "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=k");
        assert_eq!(body, json!({"msgtype": "markdown", "markdown": {"content": "**T**\na\nb"}}));

        let (_, body) = sent(Kind::Auto, "https://open.feishu.cn/open-apis/bot/v2/hook/x", Some("s"));
        assert_eq!(body["card"]["header"]["title"]["content"], "T");
        assert_eq!(body["card"]["elements"][0]["content"], "a\nb");
        assert_eq!(body["timestamp"], "1700000000");
        // printf '' | openssl dgst -sha256 -hmac $'1700000000\ns' -binary | base64
        assert_eq!(body["sign"], signature("1700000000\ns", ""));

        let (url, body) =
            sent(Kind::Auto, "https://oapi.dingtalk.com/robot/send?access_token=t", Some("SEC1"));
        assert!(url.contains("access_token=t&timestamp=1700000000123&sign="), "{url}");
        assert_eq!(body["markdown"]["text"], "### T\n\na\n\nb");

        let (url, body) = sent(Kind::Auto, "https://api.telegram.org/bot1:x/sendMessage?chat_id=-5", None);
        assert_eq!(url, "https://api.telegram.org/bot1:x/sendMessage");
        assert_eq!(body, json!({"chat_id": "-5", "text": "T\na\nb", "disable_web_page_preview": true}));

        let (_, body) = sent(Kind::Auto, "https://hooks.example/x", None);
        assert_eq!((&body["type"], &body["data"]["providerId"]), (&json!("circuit-breaker"), &json!(1)));
        assert_eq!((&body["id"], &body["text"]), (&json!("n-1"), &json!("a\nb")));
    }

    #[test]
    fn the_signature_is_the_usual_one() {
        // RFC 4231, test case 2.
        let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let got = STANDARD.decode(signature("Jefe", "what do ya want for nothing?")).unwrap();
        assert_eq!(hex::encode(got), want);
    }

    #[test]
    fn a_no_in_the_body_is_a_no() {
        let said = |kind, answer: &str| taken(kind, answer.as_bytes()).map_err(|error| error.to_string());
        for (kind, yes, no) in [
            (Kind::Wechat, r#"{"errcode":0}"#, r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#),
            (Kind::Dingtalk, r#"{"errcode":0}"#, r#"{"errcode":310000,"errmsg":"sign not match"}"#),
            (Kind::Feishu, r#"{"StatusCode":0,"code":0}"#, r#"{"code":19021,"msg":"sign match fail"}"#),
            (Kind::Telegram, r#"{"ok":true}"#, r#"{"ok":false,"description":"chat not found"}"#),
        ] {
            assert_eq!(said(kind, yes), Ok(()), "{kind:?}");
            assert!(said(kind, no).is_err_and(|text| text.len() > 20), "{kind:?}");
        }
        assert_eq!(said(Kind::Custom, "whatever"), Ok(()));
    }
}
