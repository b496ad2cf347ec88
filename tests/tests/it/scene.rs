//! What most tests start from: a fleet, one upstream that speaks three dialects, prices, a user with a key.

use anyhow::Result;
use serde_json::{Value, json};
use testkit::client::Caller;
use testkit::fleet::{Fleet, Plan};
use testkit::upstream::Upstream;

/// Anthropic's dialect; price entry T of the reference: 3 in, 15 out, 3.75 and 6 cache writes, 0.30 cache reads
/// per million tokens; above 200,000 prompt tokens 6, 22.5, 7.5, 0.60.
pub const CLAUDE: &str = "claude-t";
/// OpenAI's dialects: 1.25 in, 10 out, 0.125 cache reads per million tokens.
pub const GPT: &str = "gpt-t";
/// A model without a price.
pub const UNPRICED: &str = "claude-nobody-priced-this";
/// Credentials of the three providers.
pub const CLAUDE_CREDENTIAL: &str = "sk-upstream-for-messages-c1a0";
pub const CHAT_CREDENTIAL: &str = "sk-upstream-for-chat-0c4a";
pub const RESPONSES_CREDENTIAL: &str = "sk-upstream-for-responses-4e50";

/// A fleet with one upstream behind three providers.
pub struct Scene {
    pub fleet: Fleet,
    pub upstream: Upstream,
    /// The user Alice.
    pub user: i64,
    /// Her default key.
    pub key: String,
}

impl Scene {
    /// Starts the plan; Alice has no limits.
    pub async fn open(plan: Plan) -> Result<Self> {
        Self::open_for(plan, json!({})).await
    }

    /// Starts the plan; `more` are fields of Alice.
    pub async fn open_for(plan: Plan, more: Value) -> Result<Self> {
        let fleet = plan.start().await?;
        let upstream = Upstream::start().await;
        prices(&fleet).await?;
        let mut alice = json!({"name": "Alice"});
        extend(&mut alice, &more);
        let (user, key) = fleet.admin.user(alice).await?;
        let kinds = [
            ("claude", CLAUDE_CREDENTIAL),
            ("openai-compatible", CHAT_CREDENTIAL),
            ("codex", RESPONSES_CREDENTIAL),
        ];
        for (kind, credential) in kinds {
            fleet.admin.provider(kind, &upstream.url(), json!({"apiKey": credential})).await?;
        }
        fleet.sync().await?;
        Ok(Self { fleet, upstream, user, key })
    }

    /// Alice at a proxy.
    pub fn alice(&self, at: usize) -> Caller {
        self.fleet.caller(at, &self.key)
    }

    /// Another user, known to all proxies.
    pub async fn user(&self, body: Value) -> Result<(i64, String)> {
        let user = self.fleet.admin.user(body).await?;
        self.fleet.sync().await?;
        Ok(user)
    }
}

/// Two upstreams behind two providers of Anthropic's dialect, one proxy.
pub struct Duel {
    pub fleet: Fleet,
    /// Priority 0.
    pub a: Upstream,
    /// Priority 1, unless the test says otherwise.
    pub b: Upstream,
    /// Ids of the providers.
    pub id_a: i64,
    pub id_b: i64,
    /// Alice at the proxy.
    pub alice: Caller,
}

impl Duel {
    /// `more_a` and `more_b` are fields of the providers.
    pub async fn open(more_a: Value, more_b: Value) -> Result<Self> {
        let plan = Fleet::plan().proxies(1).without_redis().proxy_env("RETRY_PAUSE", "5ms");
        Self::open_on(plan, more_a, more_b).await
    }

    /// The same on a plan of the test's own.
    pub async fn open_on(plan: Plan, more_a: Value, more_b: Value) -> Result<Self> {
        let fleet = plan.start().await?;
        let (a, b) = (Upstream::start().await, Upstream::start().await);
        prices(&fleet).await?;
        let (_, key) = fleet.admin.user(json!({"name": "Alice"})).await?;
        let mut body_a = json!({"name": "A", "apiKey": "sk-upstream-a-aaaa", "priority": 0});
        let mut body_b = json!({"name": "B", "apiKey": "sk-upstream-b-bbbb", "priority": 1});
        extend(&mut body_a, &more_a);
        extend(&mut body_b, &more_b);
        let id_a = fleet.admin.provider("claude", &a.url(), body_a).await?;
        let id_b = fleet.admin.provider("claude", &b.url(), body_b).await?;
        fleet.sync().await?;
        let alice = fleet.caller(0, &key);
        Ok(Self { fleet, a, b, id_a, id_b, alice })
    }

    /// How many requests A and B have seen.
    pub fn asked(&self) -> (u64, u64) {
        (self.a.stats().total, self.b.stats().total)
    }

    /// Changes a provider and waits until the proxy knows.
    pub async fn edit(&self, provider: i64, mut more: Value) -> Result<()> {
        more["providerId"] = provider.into();
        self.fleet.admin.action("providers/editProvider", more).await?;
        self.fleet.sync().await
    }
}

/// Uploads the two price entries.
pub async fn prices(fleet: &Fleet) -> Result<()> {
    // As text: these numbers are read exactly, digit by digit.
    let table = format!(
        r#"{{
          "{CLAUDE}": {{"mode": "chat", "litellm_provider": "anthropic",
            "input_cost_per_token": 3e-6, "output_cost_per_token": 1.5e-5,
            "cache_creation_input_token_cost": 3.75e-6, "cache_creation_input_token_cost_above_1hr": 6e-6,
            "cache_read_input_token_cost": 3e-7,
            "input_cost_per_token_above_200k_tokens": 6e-6, "output_cost_per_token_above_200k_tokens": 2.25e-5,
            "cache_creation_input_token_cost_above_200k_tokens": 7.5e-6,
            "cache_read_input_token_cost_above_200k_tokens": 6e-7}},
          "{GPT}": {{"mode": "chat", "litellm_provider": "openai", "input_cost_per_token": 1.25e-6,
            "output_cost_per_token": 1e-5, "cache_read_input_token_cost": 1.25e-7}}
        }}"#
    );
    fleet.admin.action("model-prices/uploadPriceTable", json!({"jsonContent": table})).await?;
    Ok(())
}

/// Adds or replaces the members of `more`.
pub fn extend(body: &mut Value, more: &Value) {
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
}
