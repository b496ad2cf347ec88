//! Sensitive words: every text that a person or a tool's result put in is compared with the owner's rules; what the
//! vendor of the caller's program put in where the owner says so.
//!
//! Only where an owner has rules is the body looked into at all. It is read over its bytes in steps, between which the
//! other tasks of the thread have their turn: neither a long body nor an odd one keeps them waiting.

use super::refuse::Refusal;
use crate::table::{Hit, WordSet};
use llm::request::Ask;
use llm::texts::{Found, Texts, Unreadable, Windows};

/// Bytes between two looks at the other tasks of this thread.
const STEP: usize = 256 * 1024;

/// Looks through `body`; the first hit refuses the request. `vendors`: whether system prompts and descriptions of tools
/// are looked at, too. Cancel-safe: holds nothing.
pub async fn screen(words: &WordSet, vendors: bool, body: &[u8]) -> Result<(), Refusal> {
    let mut steps = Steps::default();
    if !is_json(body) {
        return lines(words, vendors, body, &mut steps).await;
    }
    // Another reader may make sense of what this one cannot read, and then it must not pass unseen.
    let read = document(words, vendors, body, &mut steps).await?;
    read.map_err(|error| Refusal::BodyInvalid(error.to_string()))
}

fn is_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// A JSON text. The inner error: it is none.
async fn document(
    words: &WordSet,
    vendors: bool,
    body: &[u8],
    steps: &mut Steps,
) -> Result<Result<(), Unreadable>, Refusal> {
    let mut texts = Texts::new(body, vendors);
    let mut read = 0;
    loop {
        match texts.step() {
            Err(error) => return Ok(Err(error)),
            Ok(None) => return Ok(Ok(())),
            Ok(Some(Found::Pause)) => {}
            Ok(Some(Found::Text(windows))) => look(words, windows, steps).await?,
        }
        steps.did(texts.at() - read).await;
        read = texts.at();
    }
}

/// An upload: each line that is text, the requests of a batch among them. Lines of other files are none.
async fn lines(words: &WordSet, vendors: bool, body: &[u8], steps: &mut Steps) -> Result<(), Refusal> {
    for line in body.split(|byte| *byte == b'\n') {
        let is_read = is_json(line) && document(words, vendors, line, steps).await?.is_ok();
        if !is_read && std::str::from_utf8(line).is_ok() {
            look(words, Windows::plain(line), steps).await?;
        }
        steps.did(line.len()).await;
    }
    Ok(())
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
    done: usize,
}

impl Steps {
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
            // Uploads, requests of a batch in them.
            ("--b\r\nbad word", "sensitive_word", "sensitive_word"),
            (
                "--b\r\n\r\n{\"body\":{\"input\":\"x\"}}\n{\"body\":{\"input\":\"a b\\u0061d word\"}}\n",
                "sensitive_word",
                "sensitive_word",
            ),
            ("--b\r\n\r\n{\"body\":{\"input\":\"a bad word\"\r\n--b--", "sensitive_word", "sensitive_word"),
            ("--b\r\n\r\nsome\nlines\r\n--b--", "passes", "passes"),
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
