//! Whose fault is it? The one table from what was seen of a failed attempt to who is to blame, what the provider's
//! health hears, and what happens next. Pure: every verdict and every retry comes from here.
//!
//! Relays answer in the words of any vendor, so the words of all dialects are looked for whoever answers. What a
//! caller can bring about with a header, a path or a body never counts against a provider: at most it takes
//! the provider out of the choice for one kind of call and one model, for a minute, while there are others.

use super::Verdict;
use llm::EndpointKind;
use llm::usage::StreamError;
use std::time::Duration;

/// How long a provider that refused a caller is left out of the choice for that kind of call and that model.
pub const REFUSED_REST: Duration = Duration::from_secs(60);
/// Of a text that is no error object, what is searched for words.
const MAX_SEARCHED: usize = 500;

/// Where the error stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the status line.
    Status,
    /// A document under a good status.
    Document,
    /// The first event of a stream, before any content.
    FirstEvent,
    /// An event after content: bytes may have gone to the caller.
    MidStream,
}

/// What was seen of an attempt that gave no answer.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What was called.
    pub kind: EndpointKind,
    /// Whether the call may be sent again although the upstream may have carried it out.
    pub repeatable: bool,
    /// Where the error stood.
    pub place: Place,
    /// The status line's.
    pub status: u16,
    /// The error object, if the answer has one.
    pub error: Option<&'a StreamError>,
    /// The beginning of the answer, for those that have none.
    pub text: &'a str,
    /// As the upstream asked.
    pub retry_after: Option<Duration>,
    /// What the caller sent, to tell its words from the upstream's.
    pub request: &'a [u8],
}

/// What came of an attempt that got no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The request could not be formed for this provider.
    Unformed,
    /// No connection: nothing of the request went out.
    Unsent,
    /// It broke after the request, or a part of it, was sent; no word whether it was carried out.
    Sent,
    /// The answer broke off, or was none.
    Answer,
    /// Trouble of this proxy: no descriptors, no route, no resolver. Nothing was sent.
    Local,
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The caller, whoever would be asked.
    Caller,
    /// The provider's credential or account.
    Credential,
    /// The provider.
    Provider,
    /// Only this model, path or caller at this provider.
    Model,
    /// The provider's limit.
    RateLimit,
    /// This proxy.
    Ours,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The answer is the caller's.
    Return,
    /// The same provider again, up to its attempts.
    Again,
    /// The next provider.
    Next,
}

/// The outcome of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Who is to blame.
    pub whose: Whose,
    /// What the provider's health hears.
    pub verdict: Verdict,
    /// What happens next.
    pub then: Then,
    /// How long the provider is left out of the choice for this kind of call and model.
    pub rest: Option<Duration>,
    /// The status that the error stands for, wherever it stood.
    pub meant: u16,
}

/// Codes of a caller's own fault that some relays wrap in a 5xx.
const CALLERS_CODES: &[&str] = &[
    "context_length_exceeded",
    "invalid_prompt",
    "content_policy_violation",
    "content_filter",
    "string_above_max_length",
    "request_too_large",
];
/// What names something of the caller in a refusal: then it is not the credential.
const CALLERS_DOING: &[&str] = &[
    "cors",
    "browser",
    "mismatched",
    "member of an organization",
    "openai-organization",
    "openai-project",
    "organization header",
    "project header",
    "scope",
    "permission",
    "region",
    "country",
    "model",
    "beta",
    "fewer max_tokens",
    "can only afford",
    "moderation",
    "flagged",
];
/// Types and codes that mean the credential.
const CREDENTIAL_CODES: &[&str] = &[
    "invalid_api_key",
    "account_deactivated",
    "token_expired",
    "token_revoked",
    "token_invalidated",
    "invalid_token",
    "authentication_error",
    "unauthenticated",
    "api_key_invalid",
    "insufficient_quota",
    "insufficient_user_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
];
/// Sentences that mean the credential or its account, in a 401 or 403.
const CREDENTIAL_SENTENCES: &[&str] = &[
    "api key",
    "api-key",
    "x-api-key",
    "bearer token",
    "oauth token",
    "access token",
    "invalid token",
    "token has expired",
    "token is expired",
    "invalid credential",
    "authentication credential",
    "user not found",
    "key limit exceeded",
    "insufficient credits",
    "insufficient balance",
];
/// What names a limit that holds for one model, or for one way to call it, in a 429.
const MODEL_LIMITS: &[&str] = &[
    "extra usage",
    "long context",
    "for this model",
    "for the model",
    "for model",
    "per model",
    "per-model",
    "permodel",
    // They go with a model's name.
    " on tokens per ",
    " on requests per ",
    "perbasemodel",
];
/// Sentences that mean the account. A 400 must begin with one, because elsewhere it quotes what is wrong with the request.
const ACCOUNT_SENTENCES: &[&str] = &[
    "credit balance is too low",
    "organization has been disabled",
    "organization has been suspended",
    "account has been disabled",
    "account has been suspended",
    "account has been deactivated",
    "account is not active",
    "has been reported as leaked",
    "api_key_invalid",
    "api key not valid",
    "api key expired",
    "consumer_suspended",
];

/// The table, for an answer that tells of an error.
pub fn judge(case: &Case<'_>) -> Judgement {
    let meant = match (case.place, case.error) {
        (Place::Status, _) => case.status,
        (_, Some(error)) => error.status(),
        (_, None) => 502,
    };
    let whose = whose(case, meant);
    let (verdict, rest) = told(case, whose, meant);
    Judgement { whose, verdict, then: then(case, whose, meant), rest, meant }
}

/// The table, for an attempt that broke.
pub fn judge_broken(broken: Broken, kind: EndpointKind, repeatable: bool) -> Judgement {
    let (whose, verdict, then) = match broken {
        // A caller's odd path must not put providers to sleep.
        Broken::Unformed => (Whose::Caller, Verdict::Neutral, Then::Next),
        Broken::Local => (Whose::Ours, Verdict::Neutral, Then::Next),
        Broken::Unsent => (Whose::Provider, Verdict::Failure, Then::Again),
        Broken::Sent | Broken::Answer => {
            let verdict = if kind.is_metered() { Verdict::Failure } else { Verdict::Neutral };
            (Whose::Provider, verdict, if repeatable { Then::Again } else { Then::Return })
        }
    };
    // Of what broke after it was sent a gateway says 502.
    Judgement { whose, verdict, then, rest: None, meant: 502 }
}

fn whose(case: &Case<'_>, meant: u16) -> Whose {
    let said = Said::new(case);
    match meant {
        429 if said.is_too_large() => Whose::Caller,
        400 | 401 | 402 | 403 | 429 if means_credential(&said, meant, case.request) => {
            // A call that is not metered (an admin's path, the counting of tokens) may need rights of its own.
            if case.kind.is_metered() { Whose::Credential } else { Whose::Model }
        }
        // It says something of the account, in words that may be the caller's: nobody is blamed.
        400 if said.sentence(ACCOUNT_SENTENCES) => Whose::Model,
        429 if said.sentence(MODEL_LIMITS) => Whose::Model,
        429 => Whose::RateLimit,
        401..=404 => Whose::Model,
        408 => Whose::Provider,
        400..=499 => Whose::Caller,
        _ if said.word(CALLERS_CODES) => Whose::Caller,
        _ => Whose::Provider,
    }
}

/// Whether the refusal says that it is the credential, and names nothing that the caller brought.
fn means_credential(said: &Said, meant: u16, request: &[u8]) -> bool {
    if said.account(meant).is_some_and(|sentence| !stands_in(request, sentence)) {
        return true;
    }
    let by_word = said.word(CREDENTIAL_CODES);
    match meant {
        400 => said.word(&["billing_hard_limit_reached", "billing_not_active", "api_key_invalid"]),
        429 => said.word(&["insufficient_quota", "insufficient_user_quota", "billing_not_active"]),
        401 => (by_word || said.sentence(CREDENTIAL_SENTENCES)) && !said.sentence(CALLERS_DOING),
        // The status says it, if an API says the status.
        402 => said.is_object && !said.sentence(CALLERS_DOING),
        403 => {
            let account = by_word && !said.word(&["authentication_error"]);
            (account || said.sentence(CREDENTIAL_SENTENCES)) && !said.sentence(CALLERS_DOING)
        }
        _ => false,
    }
}

fn told(case: &Case<'_>, whose: Whose, meant: u16) -> (Verdict, Option<Duration>) {
    let rest = Some(REFUSED_REST);
    if case.place == Place::MidStream {
        let verdict = match whose {
            Whose::Provider => Verdict::Failure,
            Whose::RateLimit => Verdict::RateLimited { retry_after: case.retry_after },
            Whose::Caller | Whose::Credential | Whose::Model | Whose::Ours => Verdict::Neutral,
        };
        return (verdict, None);
    }
    match whose {
        Whose::Caller | Whose::Ours => (Verdict::Neutral, None),
        Whose::Credential => (Verdict::CredentialRefused, rest),
        Whose::RateLimit if case.kind.is_metered() => {
            (Verdict::RateLimited { retry_after: case.retry_after }, None)
        }
        Whose::RateLimit => {
            let asked = case.retry_after.unwrap_or(REFUSED_REST);
            (Verdict::Neutral, Some(asked.min(REFUSED_REST)))
        }
        Whose::Model if meant == 429 => {
            (Verdict::Neutral, Some(case.retry_after.unwrap_or(REFUSED_REST).min(REFUSED_REST)))
        }
        // Not there is no refusal: it may be any path or file. What a 400 says may be the caller's words.
        Whose::Model if matches!(meant, 400 | 404) => (Verdict::Neutral, None),
        Whose::Model => (Verdict::Neutral, rest),
        Whose::Provider if case.kind.is_metered() => (Verdict::Failure, None),
        // Providers that do not have a path say 500 or 501 as well.
        Whose::Provider => (Verdict::Neutral, None),
    }
}

fn then(case: &Case<'_>, whose: Whose, meant: u16) -> Then {
    if case.place == Place::MidStream || !case.repeatable {
        return Then::Return;
    }
    match whose {
        // In the guise of a limit or of a broken server another provider may see it otherwise.
        Whose::Caller if meant == 429 || meant >= 500 => Then::Next,
        Whose::Caller => Then::Return,
        Whose::Provider if case.kind.is_metered() => Then::Again,
        Whose::Provider | Whose::Credential | Whose::Model | Whose::RateLimit | Whose::Ours => Then::Next,
    }
}

/// What an answer said, in small letters.
struct Said {
    words: [String; 2],
    sentence: String,
    is_object: bool,
}

impl Said {
    fn new(case: &Case<'_>) -> Self {
        let lower = |text: &str| text.chars().take(MAX_SEARCHED).collect::<String>().to_lowercase();
        match case.error {
            Some(error) => {
                let word = |word: &Option<String>| lower(word.as_deref().unwrap_or_default());
                // Gemini's reason stands in a list of details, besides the message.
                let sentence = lower(if error.message.is_empty() { case.text } else { &error.message });
                Self { words: [word(&error.code), word(&error.kind)], sentence, is_object: true }
            }
            None => Self { words: Default::default(), sentence: lower(case.text), is_object: false },
        }
    }

    /// A request that is larger than the whole limit: no wait cures it. One that only came too soon says how much
    /// was used.
    fn is_too_large(&self) -> bool {
        let number = |name: &str| {
            self.sentence.split(name).skip(1).find_map(|rest| {
                let digits = rest.chars().filter(|c| *c != ',').take_while(char::is_ascii_digit);
                digits.collect::<String>().parse::<u64>().ok()
            })
        };
        let over = || Some(number("requested ")? > number("limit ")?);
        self.sentence.starts_with("request too large") || over().unwrap_or(false)
    }

    fn word(&self, list: &[&str]) -> bool {
        self.words.iter().any(|word| list.contains(&word.as_str()))
    }

    /// The sentence that means the account, where it is the upstream's to say.
    fn account(&self, meant: u16) -> Option<&'static str> {
        let start = self.sentence.trim_start();
        let start =
            ["your ", "this ", "the "].iter().find_map(|word| start.strip_prefix(word)).unwrap_or(start);
        let is_said = |part: &&&str| match meant {
            400 => start.starts_with(**part),
            _ => self.sentence.contains(**part),
        };
        ACCOUNT_SENTENCES.iter().find(is_said).copied()
    }

    fn sentence(&self, list: &[&str]) -> bool {
        list.iter().any(|part| self.sentence.contains(part))
    }
}

/// Whether `words`, in small letters, stand in a body.
fn stands_in(body: &[u8], words: &str) -> bool {
    let Some(first) = words.bytes().next() else { return false };
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), body).any(|at| {
        body.get(at..at + words.len()).is_some_and(|found| found.eq_ignore_ascii_case(words.as_bytes()))
    })
}

#[cfg(test)]
mod tests;
