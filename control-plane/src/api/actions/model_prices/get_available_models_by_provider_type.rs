//! The chat models that have a price: what a provider's model list can be filled from.

use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::prices;
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use contract::table::ProviderKind;

form! {
    /// Without a type: all.
    #[schema(example = json!({}))]
    pub struct GetAvailableModels {
        /// Only models that such a provider usually serves.
        provider_type: Option<String> = ["providerType", "type"]
            {pattern = "^(claude|claude-auth|codex|gemini|gemini-cli|openai-compatible)$"},
    }
}

/// LiteLLM's vendors behind a kind of provider; empty is any.
fn vendors(kind: ProviderKind) -> &'static [&'static str] {
    match kind {
        ProviderKind::Claude | ProviderKind::ClaudeAuth => &["anthropic"],
        ProviderKind::Codex => &["openai"],
        ProviderKind::Gemini | ProviderKind::GeminiCli => {
            &["gemini", "vertex_ai", "vertex_ai-language-models"]
        }
        ProviderKind::OpenAiCompatible => &[],
    }
}

/// List the chat models that have a price
#[utoipa::path(tag = "model-prices", operation_id = "getAvailableModelsByProviderType",
    request_body = GetAvailableModels, responses(
    (status = 200, description = "Names, in order", body = Envelope<Vec<String>>), Failures))]
#[post("/actions/model-prices/getAvailableModelsByProviderType")]
pub async fn get_available_models_by_provider_type(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetAvailableModels>,
) -> Reply<Vec<String>> {
    let vendors = match ask.form.provider_type.text(32)?.flatten().filter(|text| !text.is_empty()) {
        None => &[],
        Some(text) => {
            let words = ProviderKind::ALL.map(ProviderKind::as_str).join(", ");
            let wrong = || ask.form.provider_type.refuse(Code::OneOf).with("words", words);
            vendors(ProviderKind::parse(&text).ok_or_else(wrong)?)
        }
    };
    let mut conn = state.pool.read().await?;
    Ok(Answer::read(prices::chat_models(&mut conn, caller.0.owner, vendors).await?))
}
