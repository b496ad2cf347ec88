//! Token counts of every dialect, brought into the disjoint classes of the contract.
//!
//! Lenient about what is there: numbers as floats, nulls and missing members are what upstreams send.

use contract::usage::{Dialect, TokenCounts};
use serde_json::Value;

/// What has been reported so far.
#[derive(Debug, Default)]
pub(super) struct Reported {
    anthropic: Anthropic,
    counts: Option<TokenCounts>,
    tier: Option<String>,
    fast: Option<bool>,
    /// The report that closes the answer has come.
    last: bool,
}

impl Reported {
    /// Takes a usage object in; `last` if it is the one that closes an answer.
    pub(super) fn report(&mut self, dialect: Dialect, usage: &Value, last: bool) {
        if !usage.is_object() {
            return;
        }
        if let Some(tier) = usage.get("service_tier").and_then(Value::as_str) {
            self.tier = Some(tier.to_owned());
        }
        match dialect {
            Dialect::Anthropic => {
                let speed = usage.get("speed").and_then(Value::as_str);
                self.fast = speed.map(|speed| speed == "fast").or(self.fast);
                self.anthropic.merge(usage);
                self.last |= last;
            }
            Dialect::OpenAi | Dialect::Responses => self.replace(openai(usage)),
            Dialect::Gemini => self.replace(gemini(usage)),
        }
    }

    /// Running totals: the last report holds for all.
    fn replace(&mut self, counts: Option<TokenCounts>) {
        self.last |= counts.is_some();
        self.counts = counts.or(self.counts);
    }

    pub(super) fn counts(&self) -> TokenCounts {
        self.counts.unwrap_or_else(|| self.anthropic.counts())
    }

    /// Whether input and output have been reported. Anthropic says the input first, with an output that
    /// is only a beginning.
    pub(super) fn known(&self) -> (bool, bool) {
        match self.counts {
            Some(_) => (true, true),
            None => (self.anthropic.input.is_some(), self.last && self.anthropic.output.is_some()),
        }
    }

    /// Whether it was said for how long what was written to a cache is kept.
    pub(super) fn lifetimes(&self) -> bool {
        self.anthropic.cache_write_5m.is_some() || self.anthropic.cache_write_1h.is_some()
    }

    /// Whether it was said to be served in fast mode.
    pub(super) fn fast(&self) -> Option<bool> {
        self.fast
    }

    pub(super) fn service_tier(&self) -> Option<String> {
        self.tier.clone()
    }
}

/// Anthropic's numbers, each from the last report that had it.
#[derive(Debug, Default)]
struct Anthropic {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
}

impl Anthropic {
    fn merge(&mut self, usage: &Value) {
        let split = usage.get("cache_creation").unwrap_or(&Value::Null);
        for (field, reported) in [
            (&mut self.input, count(usage, "input_tokens")),
            (&mut self.output, count(usage, "output_tokens")),
            (&mut self.cache_read, count(usage, "cache_read_input_tokens")),
            (&mut self.cache_write, count(usage, "cache_creation_input_tokens")),
            (&mut self.cache_write_5m, count(split, "ephemeral_5m_input_tokens")),
            (&mut self.cache_write_1h, count(split, "ephemeral_1h_input_tokens")),
        ] {
            *field = reported.or(*field);
        }
    }

    /// The total of cache writes holds; what of it is not said to be for an hour is for five minutes.
    fn counts(&self) -> TokenCounts {
        let split_1h = self.cache_write_1h.unwrap_or(0);
        let written = self.cache_write.unwrap_or(split_1h + self.cache_write_5m.unwrap_or(0));
        let cache_write_1h = split_1h.min(written);
        TokenCounts {
            input: self.input.unwrap_or(0),
            output: self.output.unwrap_or(0),
            cache_read: self.cache_read.unwrap_or(0),
            cache_write_5m: written - cache_write_1h,
            cache_write_1h,
            ..TokenCounts::default()
        }
    }
}

/// Chat Completions, Responses and their relatives, where the totals include everything.
fn openai(usage: &Value) -> Option<TokenCounts> {
    let prompt = first(usage, &["prompt_tokens", "input_tokens"]);
    let completion = first(usage, &["completion_tokens", "output_tokens"]);
    let total = count(usage, "total_tokens");
    // Rerank and some embeddings say the total only.
    let all_in = match (prompt, completion) {
        (None, None) => total?,
        _ => prompt.unwrap_or(0),
    };
    let input = details(usage, &["prompt_tokens_details", "input_tokens_details", "input_token_details"]);
    let output =
        details(usage, &["completion_tokens_details", "output_tokens_details", "output_token_details"]);
    let cache_read = first(input, &["cached_tokens"])
        .or_else(|| first(usage, &["prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"]))
        .unwrap_or(0)
        .min(all_in);
    let cache_write =
        first(input, &["cache_write_tokens", "cache_creation_tokens"]).unwrap_or(0).min(all_in - cache_read);
    let input_audio = count(input, "audio_tokens").unwrap_or(0);
    let input_image = count(input, "image_tokens").unwrap_or(0);
    let output_audio = count(output, "audio_tokens").unwrap_or(0);
    let output_image = count(output, "image_tokens").unwrap_or(0);
    let reasoning = count(output, "reasoning_tokens").unwrap_or(0);
    let mut all_out = completion.unwrap_or(0);
    // xAI counts reasoning beside the completion; its total gives it away.
    if reasoning > 0 && total == Some(all_in + all_out + reasoning) {
        all_out += reasoning;
    }
    let output = all_out.saturating_sub(output_audio + output_image);
    Some(TokenCounts {
        input: (all_in - cache_read - cache_write).saturating_sub(input_audio + input_image),
        output,
        reasoning: reasoning.min(output),
        cache_read,
        cache_write_5m: cache_write,
        cache_write_1h: 0,
        input_audio,
        output_audio,
        input_image,
        output_image,
    })
}

/// Gemini: thoughts stand beside the candidates, cached content inside the prompt.
fn gemini(usage: &Value) -> Option<TokenCounts> {
    let prompt = count(usage, "promptTokenCount");
    let candidates = count(usage, "candidatesTokenCount");
    count(usage, "totalTokenCount").or(prompt).or(candidates)?;
    let reasoning = count(usage, "thoughtsTokenCount").unwrap_or(0);
    let all_in = prompt.unwrap_or(0);
    let cache_read = count(usage, "cachedContentTokenCount").unwrap_or(0).min(all_in);
    let modality = |list: &str, wanted: &str| -> u64 {
        let items = usage.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let of_kind =
            items.iter().filter(|item| item.get("modality").and_then(Value::as_str) == Some(wanted));
        of_kind.filter_map(|item| count(item, "tokenCount")).sum()
    };
    let input_audio = modality("promptTokensDetails", "AUDIO");
    let output_audio = modality("candidatesTokensDetails", "AUDIO");
    let output_image = modality("candidatesTokensDetails", "IMAGE");
    let tools = count(usage, "toolUsePromptTokenCount").unwrap_or(0);
    Some(TokenCounts {
        input: (all_in - cache_read).saturating_sub(input_audio) + tools,
        output: candidates.unwrap_or(0).saturating_sub(output_audio + output_image) + reasoning,
        reasoning,
        cache_read,
        input_audio,
        output_audio,
        output_image,
        ..TokenCounts::default()
    })
}

/// More than any answer has, and so little that sums of counts never overflow.
const MOST: u64 = 1 << 40;

fn count(object: &Value, name: &str) -> Option<u64> {
    let value = object.get(name)?;
    // Some upstreams count in floats; a count has no fraction and stays far below 2^53.
    let count = value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64));
    count.map(|count| count.min(MOST))
}

fn first(object: &Value, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| count(object, name))
}

fn details<'a>(usage: &'a Value, names: &[&str]) -> &'a Value {
    names.iter().find_map(|name| usage.get(*name).filter(|value| value.is_object())).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(dialect: Dialect, reports: &[Value]) -> TokenCounts {
        let mut reported = Reported::default();
        for usage in reports {
            reported.report(dialect, usage, true);
        }
        reported.counts()
    }

    #[test]
    fn openai_totals_become_disjoint_classes() {
        let cases = [
            (
                json!({"prompt_tokens": 10, "completion_tokens": 4}),
                TokenCounts { input: 10, output: 4, ..TokenCounts::default() },
            ),
            (
                json!({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
                    "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10},
                    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 5}}),
                TokenCounts {
                    input: 30,
                    output: 45,
                    reasoning: 30,
                    cache_read: 60,
                    input_audio: 10,
                    output_audio: 5,
                    ..TokenCounts::default()
                },
            ),
            (
                json!({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 64}, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}}),
                TokenCounts { input: 36, output: 7, reasoning: 3, cache_read: 64, ..TokenCounts::default() },
            ),
            (
                json!({"prompt_tokens": 20, "completion_tokens": 1, "prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 16}}),
                TokenCounts { input: 4, output: 1, cache_read: 16, ..TokenCounts::default() },
            ),
            (
                json!({"prompt_tokens": 20, "completion_tokens": 1, "prompt_cache_hit_tokens": 16}),
                TokenCounts { input: 4, output: 1, cache_read: 16, ..TokenCounts::default() },
            ),
            (
                json!({"prompt_tokens": 8, "total_tokens": 8}),
                TokenCounts { input: 8, ..TokenCounts::default() },
            ),
            (json!({"total_tokens": 8}), TokenCounts { input: 8, ..TokenCounts::default() }),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 17, "completion_tokens_details": {"reasoning_tokens": 5}}),
                TokenCounts { input: 10, output: 7, reasoning: 5, ..TokenCounts::default() },
            ),
            (
                json!({"prompt_tokens": 5.0, "completion_tokens": null, "prompt_tokens_details": null}),
                TokenCounts { input: 5, ..TokenCounts::default() },
            ),
            (
                json!({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}),
                TokenCounts { cache_read: 5, ..TokenCounts::default() },
            ),
            (
                json!({"input_tokens": 50, "output_tokens": 4160, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}, "output_tokens_details": {"image_tokens": 4160}}),
                TokenCounts { input: 10, input_image: 40, output_image: 4160, ..TokenCounts::default() },
            ),
        ];
        for (usage, expected) in cases {
            assert_eq!(of(Dialect::OpenAi, std::slice::from_ref(&usage)), expected, "{usage}");
        }
    }

    #[test]
    fn anthropic_later_numbers_override_earlier_ones() {
        let start = json!({"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}});
        let written =
            TokenCounts { cache_write_5m: 10, cache_write_1h: 20, cache_read: 100, ..TokenCounts::default() };
        assert_eq!(
            of(Dialect::Anthropic, &[start.clone(), json!({"output_tokens": 9})]),
            TokenCounts { input: 5, output: 9, ..written }
        );
        assert_eq!(
            of(
                Dialect::Anthropic,
                &[start, json!({"input_tokens": 0, "output_tokens": 9, "cache_read_input_tokens": null})]
            ),
            TokenCounts { input: 0, output: 9, ..written }
        );
        let unsplit = json!({"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 7});
        assert_eq!(
            of(Dialect::Anthropic, &[unsplit]),
            TokenCounts { input: 1, output: 2, cache_write_5m: 7, ..TokenCounts::default() }
        );
        let only_split =
            json!({"cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}});
        assert_eq!(
            of(Dialect::Anthropic, &[only_split]),
            TokenCounts { cache_write_5m: 3, cache_write_1h: 4, ..TokenCounts::default() }
        );
    }

    #[test]
    fn gemini_last_report_holds() {
        let last = json!({"promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 20, "thoughtsTokenCount": 5, "totalTokenCount": 125});
        let expected =
            TokenCounts { input: 60, output: 25, reasoning: 5, cache_read: 40, ..TokenCounts::default() };
        assert_eq!(of(Dialect::Gemini, &[json!({"promptTokenCount": 100}), last]), expected);
    }
}
