//! Sensitive words: every text that a person or a tool's result put in is compared with the owner's rules; what the
//! vendor of the caller's program put in where the owner says so.
//!
//! Only where an owner has rules is the body looked into at all. It is read over its bytes in steps, between which the
//! other tasks of the thread have their turn: neither a long body nor an odd one keeps them waiting.

use super::refuse::Refusal;
use crate::table::{Hit, WordSet};
use llm::request::Ask;
use llm::texts::{Found, Texts, Windows};

/// Bytes between two looks at the other tasks of this thread.
const STEP: usize = 256 * 1024;

/// Looks through `body`; the first hit refuses the request. `vendors`: whether system prompts and descriptions of tools
/// are looked at, too. Cancel-safe: holds nothing.
pub async fn screen(words: &WordSet, vendors: bool, body: &[u8]) -> Result<(), Refusal> {
    // What is no JSON has no texts that a rule could be meant for; but another reader may make sense of what this one
    // cannot read, and then it must not pass unseen.
    if !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Ok(());
    }
    let mut texts = Texts::new(body, vendors);
    let mut steps = Steps::default();
    loop {
        let found = texts.step().map_err(|error| Refusal::BodyInvalid(error.to_string()))?;
        match found {
            None => return Ok(()),
            Some(Found::Pause) => {}
            Some(Found::Text(windows)) => look(words, windows, &mut steps).await?,
        }
        steps.reached(texts.at()).await;
    }
}

/// Looks through a body of either kind.
pub async fn looked_into(
    words: &WordSet,
    vendors: bool,
    body: &[u8],
    ask: Option<&Ask<'_>>,
) -> Result<(), Refusal> {
    let Some(form) = ask.and_then(Ask::form) else { return screen(words, vendors, body).await };
    let mut steps = Steps::default();
    for text in form.texts.iter().filter_map(|range| body.get(range.clone())) {
        look(words, Windows::plain(text), &mut steps).await?;
    }
    Ok(())
}

async fn look(words: &WordSet, mut windows: Windows<'_>, steps: &mut Steps) -> Result<(), Refusal> {
    while let Some(window) = windows.step() {
        if let Some(Hit { word, match_type, .. }) = words.find(window) {
            return Err(Refusal::SensitiveWord { word, match_type: match_type.as_str() });
        }
        steps.did(window.text.len()).await;
    }
    Ok(())
}

/// How much was done since the others had their turn.
#[derive(Default)]
struct Steps {
    read: usize,
    done: usize,
}

impl Steps {
    async fn reached(&mut self, at: usize) {
        let more = at - self.read;
        self.read = at;
        self.did(more).await;
    }

    async fn did(&mut self, bytes: usize) {
        self.done += bytes;
        if self.done >= STEP {
            self.done = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::UserId;
    use contract::table::{MatchType, Word};
    use futures_util::FutureExt;
    use std::pin::pin;

    fn words() -> WordSet {
        let word = |word: &str| Word {
            id: 1,
            owner_id: UserId(1),
            match_type: MatchType::Contains,
            word: word.to_owned(),
        };
        WordSet::new(&[word("bad word")])
    }

    /// Kinds of refusals.
    async fn kind(body: &str, vendors: bool) -> &'static str {
        match screen(&words(), vendors, body.as_bytes()).await {
            Ok(()) => "passes",
            Err(refusal) => refusal.kind(),
        }
    }

    #[tokio::test]
    async fn words_are_found_and_other_bodies_pass() {
        for (body, people, all) in [
            (
                r#"{"messages":[{"role":"user","content":"a BAD\u0020Word!"}]}"#,
                "sensitive_word",
                "sensitive_word",
            ),
            (r#"{"system":"a bad word","messages":[]}"#, "passes", "sensitive_word"),
            (r#"{"messages":[{"role":"user","content":"a good word"}]}"#, "passes", "passes"),
            (
                r#"{"messages":[{"role":"user","content":'a bad word'}]}"#,
                "invalid_request",
                "invalid_request",
            ),
            ("--b\r\nbad word", "passes", "passes"),
            ("", "passes", "passes"),
        ] {
            assert_eq!((kind(body, false).await, kind(body, true).await), (people, all), "{body}");
        }
    }

    #[test]
    fn a_long_body_leaves_the_others_their_turn() {
        let numbers = format!(r#"{{"input":[{}0]}}"#, "0,".repeat(2_000_000));
        let text = format!(r#"{{"input":"{}"}}"#, "a good\\nword ".repeat(300_000));
        for body in [numbers, text] {
            let words = words();
            let mut screened = pin!(screen(&words, false, body.as_bytes()));
            let mut turns = 0;
            while screened.as_mut().now_or_never().is_none() {
                turns += 1;
            }
            assert!(turns >= body.len() / (2 * STEP), "{turns}");
        }
    }
}
