//! The table of all calls that are proxied: method and path → what is wanted. A call that is not in it does not exist
//! here (404). `docs/paths.md` shows it; a test keeps the two equal.

use super::kind::EndpointKind::{self, *};
use contract::usage::Dialect;

/// Whose protocol a path speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Always this one.
    Of(Dialect),
    /// Both vendors have it: the caller's headers decide.
    Callers,
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which methods it holds for.
    pub methods: &'static [&'static str],
    /// The path below `/v1/`. `{id}` stands for one segment, `{name…}` for one or more, a last `…` for any number.
    pub path: &'static str,
    /// Whose protocol it speaks.
    pub family: Family,
    /// What is wanted.
    pub kind: EndpointKind,
    /// Whether the call may be sent again when it is not known what became of it: false for what makes something.
    pub repeatable: bool,
}

const ANTHROPIC: Family = Family::Of(Dialect::Anthropic);
const OPENAI: Family = Family::Of(Dialect::OpenAi);
const RESPONSES: Family = Family::Of(Dialect::Responses);

const GET: &[&str] = &["GET", "HEAD"];
const POST: &[&str] = &["POST"];
/// What makes nothing.
const KEEP: &[&str] = &["GET", "HEAD", "DELETE"];

const fn row(
    methods: &'static [&'static str],
    path: &'static str,
    family: Family,
    kind: EndpointKind,
) -> Row {
    Row { methods, path, family, kind, repeatable: true }
}

/// A call that makes something: sent once.
const fn once(path: &'static str, family: Family, kind: EndpointKind) -> Row {
    Row { methods: POST, path, family, kind, repeatable: false }
}

/// The table, the busiest first. The first row that fits holds.
pub const ROWS: &[Row] = &[
    row(POST, "messages", ANTHROPIC, Messages),
    row(POST, "responses", RESPONSES, Responses),
    row(POST, "chat/completions", OPENAI, ChatCompletions),
    row(POST, "responses/compact", RESPONSES, ResponsesCompact),
    row(POST, "completions", OPENAI, OpenAiOther),
    row(POST, "embeddings", OPENAI, OpenAiOther),
    row(POST, "images/generations", OPENAI, OpenAiOther),
    row(POST, "images/edits", OPENAI, OpenAiOther),
    row(POST, "images/variations", OPENAI, OpenAiOther),
    row(POST, "audio/speech", OPENAI, OpenAiOther),
    row(POST, "audio/transcriptions", OPENAI, OpenAiOther),
    row(POST, "audio/translations", OPENAI, OpenAiOther),
    row(POST, "rerank", OPENAI, OpenAiOther),
    row(POST, "rerankings", OPENAI, OpenAiOther),
    row(POST, "alpha/search", RESPONSES, OpenAiOther),
    // Free.
    row(POST, "messages/count_tokens", ANTHROPIC, CountTokens),
    row(POST, "responses/input_tokens", RESPONSES, InputTokens),
    row(POST, "moderations", OPENAI, Moderations),
    row(GET, "models", Family::Callers, Models),
    row(GET, "responses/models", RESPONSES, Models),
    row(GET, "chat/completions/models", OPENAI, Models),
    row(GET, "models/{id…}", Family::Callers, Model),
    // Resources: what stops something may be said twice, what makes something may not.
    row(POST, "responses/{id}/cancel", RESPONSES, OpenAiResource),
    row(KEEP, "responses/{id}", RESPONSES, OpenAiResource),
    row(GET, "responses/{id}/input_items", RESPONSES, OpenAiResource),
    row(GET, "chat/completions", OPENAI, OpenAiResource),
    row(KEEP, "chat/completions/{id}", OPENAI, OpenAiResource),
    row(GET, "chat/completions/{id}/messages", OPENAI, OpenAiResource),
    once("chat/completions/{id}", OPENAI, OpenAiResource),
    row(POST, "messages/batches/{id}/cancel", ANTHROPIC, AnthropicResource),
    row(KEEP, "messages/batches…", ANTHROPIC, AnthropicResource),
    once("messages/batches", ANTHROPIC, AnthropicResource),
    row(KEEP, "files…", Family::Callers, OpenAiResource),
    once("files…", Family::Callers, OpenAiResource),
    row(POST, "uploads/{id}/cancel", OPENAI, OpenAiResource),
    row(KEEP, "uploads…", OPENAI, OpenAiResource),
    once("uploads…", OPENAI, OpenAiResource),
    row(POST, "batches/{id}/cancel", OPENAI, OpenAiResource),
    row(KEEP, "batches…", OPENAI, OpenAiResource),
    once("batches", OPENAI, OpenAiResource),
    row(KEEP, "conversations…", OPENAI, OpenAiResource),
    once("conversations…", OPENAI, OpenAiResource),
    row(KEEP, "assistants…", OPENAI, OpenAiResource),
    once("assistants…", OPENAI, OpenAiResource),
    row(POST, "threads/{id}/runs/{run}/cancel", OPENAI, OpenAiResource),
    row(KEEP, "threads…", OPENAI, OpenAiResource),
    once("threads…", OPENAI, OpenAiResource),
    row(POST, "vector_stores/{id}/file_batches/{batch}/cancel", OPENAI, OpenAiResource),
    row(KEEP, "vector_stores…", OPENAI, OpenAiResource),
    once("vector_stores…", OPENAI, OpenAiResource),
    row(KEEP, "videos…", OPENAI, OpenAiResource),
    once("videos…", OPENAI, OpenAiResource),
    row(POST, "fine_tuning/jobs/{id}/cancel", OPENAI, OpenAiResource),
    row(KEEP, "fine_tuning…", OPENAI, OpenAiResource),
    once("fine_tuning…", OPENAI, OpenAiResource),
    row(&["DELETE"], "models/{id}", OPENAI, OpenAiResource),
    row(KEEP, "realtime…", OPENAI, OpenAiResource),
    once("realtime…", OPENAI, OpenAiResource),
    row(KEEP, "containers…", OPENAI, OpenAiResource),
    once("containers…", OPENAI, OpenAiResource),
    row(KEEP, "evals…", OPENAI, OpenAiResource),
    once("evals…", OPENAI, OpenAiResource),
    row(KEEP, "skills…", Family::Callers, OpenAiResource),
    once("skills…", Family::Callers, OpenAiResource),
    row(KEEP, "organization…", OPENAI, OpenAiResource),
    once("organization…", OPENAI, OpenAiResource),
    row(KEEP, "organizations…", ANTHROPIC, AnthropicResource),
    once("organizations…", ANTHROPIC, AnthropicResource),
];

/// The row of a call; `rest` is the path below `/v1/`.
pub fn find(method: &str, rest: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.fits(rest) && row.methods.contains(&method))
}

impl Row {
    fn fits(&self, rest: &str) -> bool {
        // Most rows are one literal path.
        if self.path == rest {
            return true;
        }
        let Some(first) = self.path.find(['{', '…']) else { return false };
        rest.starts_with(&self.path[..first]) && fits(&self.path[first..], &rest[first..])
    }
}

/// Compares from the first placeholder on.
fn fits(pattern: &str, rest: &str) -> bool {
    if pattern == "…" {
        return rest.is_empty() || rest.starts_with('/') && rest.len() > 1;
    }
    let mut segments = rest.split('/');
    let mut wanted = pattern.split('/');
    loop {
        match (wanted.next(), segments.next()) {
            (None, None) => return true,
            (Some(word), Some(segment)) if word.starts_with('{') => {
                if segment.is_empty() {
                    return false;
                }
                if word.ends_with("…}") {
                    return true;
                }
            }
            (Some(word), Some(segment)) if word == segment => {}
            _ => return false,
        }
    }
}

/// The table as the documentation shows it.
#[cfg(test)]
pub(super) fn markdown() -> String {
    let mut text = String::from("| method | path | class | may be sent again |\n|---|---|---|---|\n");
    for row in ROWS {
        let Row { methods, path, kind, repeatable, .. } = row;
        let again = if *repeatable { "yes" } else { "no" };
        let path = path.strip_suffix('…').map_or_else(|| (*path).to_owned(), |path| format!("{path}[/…]"));
        let class = kind.class().as_str();
        text.push_str(&format!("| {} | `/v1/{path}` | {class} | {again} |\n", methods.join(", ")));
    }
    text
}
