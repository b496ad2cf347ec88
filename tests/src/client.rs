//! Callers: of the admin API and of the proxies.

use anyhow::{Context, Result, bail};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A client without a pool limit and with a patience that no healthy answer needs.
pub fn http() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(Duration::from_secs(60)).build().unwrap_or_default()
}

/// Like [`http()`], but every request has a connection of its own: for callers of a proxy that comes and goes,
/// where a request on a resting connection may meet its end.
pub fn http_without_pool() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().timeout(Duration::from_secs(60)).pool_max_idle_per_host(0);
    builder.build().unwrap_or_default()
}

/// The admin API as one login sees it.
#[derive(Clone)]
pub struct Admin {
    http: Client,
    base: String,
    token: String,
}

impl Admin {
    /// With a bearer token.
    pub fn new(base: &str, token: &str) -> Self {
        Self { http: http(), base: base.to_owned(), token: token.to_owned() }
    }

    /// The raw answer of an action.
    pub async fn call(&self, action: &str, body: &Value) -> Result<Response> {
        let url = format!("{}/api/actions/{action}", self.base);
        Ok(self.http.post(url).bearer_auth(&self.token).json(body).send().await?)
    }

    /// The whole envelope of an action that must succeed.
    pub async fn envelope(&self, action: &str, body: Value) -> Result<Value> {
        let answer = self.call(action, &body).await?;
        let status = answer.status();
        let text = answer.text().await?;
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("{action}: {status} {text}"))?;
        if value["ok"] != json!(true) {
            bail!("{action}: {status} {text}");
        }
        Ok(value)
    }

    /// The data of an action that must succeed.
    pub async fn action(&self, action: &str, body: Value) -> Result<Value> {
        Ok(self.envelope(action, body).await?["data"].take())
    }

    /// The same API as another login sees it.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Status and envelope of an action, whatever they are.
    pub async fn attempt(&self, action: &str, body: Value) -> Result<(u16, Value)> {
        let answer = self.call(action, &body).await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let value = serde_json::from_str(&text).with_context(|| format!("{action}: {status} {text}"))?;
        Ok((status, value))
    }

    /// Another key of a user: id and clear text.
    pub async fn key(&self, user: i64, name: &str, more: Value) -> Result<(i64, String)> {
        let mut body = json!({"userId": user, "name": name});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let data = self.action("keys/addKey", body).await?;
        let id = data["id"].as_i64().context("the new key's id")?;
        let key = data["generatedKey"].as_str().context("the new key")?;
        Ok((id, key.to_owned()))
    }

    /// Rows of `getUsageLogs`, newest first.
    pub async fn logs(&self, filter: Value) -> Result<Vec<Value>> {
        let data = self.action("usage-logs/getUsageLogs", filter).await?;
        data["logs"].as_array().cloned().context("logs")
    }

    /// `GET /api/fleet`.
    pub async fn fleet(&self) -> Result<Value> {
        let answer =
            self.http.get(format!("{}/api/fleet", self.base)).bearer_auth(&self.token).send().await?;
        Ok(answer.error_for_status()?.json::<Value>().await?["data"].take())
    }

    /// A user with its default key.
    pub async fn user(&self, body: Value) -> Result<(i64, String)> {
        let data = self.action("users/addUser", body).await?;
        let id = data["id"].as_i64().context("the new user's id")?;
        let key = data["defaultKey"]["key"].as_str().context("the new user's key")?;
        Ok((id, key.to_owned()))
    }

    /// A provider of `kind` at `url`; `more` overrides or adds fields.
    pub async fn provider(&self, kind: &str, url: &str, more: Value) -> Result<i64> {
        let mut body = json!({
            "name": format!("{kind} at {url}"), "baseUrl": url, "apiKey": "sk-upstream-0001", "type": kind,
            "weight": 1, "priority": 0, "isEnabled": true,
        });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let data = self.action("providers/addProvider", body).await?;
        data["id"].as_i64().context("the new provider's id")
    }
}

/// A caller of one proxy with one key.
#[derive(Clone)]
pub struct Caller {
    http: Client,
    base: String,
    key: String,
}

impl Caller {
    /// With an `x-api-key`.
    pub fn new(base: &str, key: &str) -> Self {
        Self { http: http(), base: base.to_owned(), key: key.to_owned() }
    }

    /// The same caller over connections of their own.
    #[must_use]
    pub fn without_pool(mut self) -> Self {
        self.http = http_without_pool();
        self
    }

    /// The same caller at another proxy.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// A request with any body.
    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).header("x-api-key", &self.key)
    }

    /// A GET.
    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.base)).header("x-api-key", &self.key)
    }

    /// An Anthropic message of one short question.
    pub async fn message(&self, model: &str, stream: bool) -> Result<Response> {
        Ok(self.post("/v1/messages").json(&question(model, stream)).send().await?)
    }

    /// The status of one message, its body read to the end.
    pub async fn status(&self, model: &str) -> Result<u16> {
        let answer = self.message(model, false).await?;
        let status = answer.status().as_u16();
        answer.bytes().await?;
        Ok(status)
    }
}

/// The body of one short question to an Anthropic model; a conversation of its own each time.
pub fn question(model: &str, stream: bool) -> Value {
    json!({
        "model": model, "max_tokens": 100, "stream": stream,
        "messages": [{"role": "user", "content": words()}],
    })
}

/// [`question`] as a part of the conversation `session`.
pub fn turn(model: &str, session: &str) -> Value {
    let mut body = question(model, false);
    body["metadata"] = json!({"user_id": format!("user_test_account__session_{session}")});
    body
}

/// [`question`] in the words of Chat Completions.
pub fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": words()}]})
}

/// [`question`] in the words of Responses.
pub fn response(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "input": words()})
}

fn words() -> String {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    format!("Say hello, number {}.", ASKED.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_conversations_of_their_own() {
        assert_ne!(question("m", false)["messages"], question("m", false)["messages"]);
        let session = turn("m", "s1")["metadata"]["user_id"].as_str().map(str::to_owned);
        assert!(session.is_some_and(|id| id.ends_with("_session_s1")));
    }
}
