use super::*;
use EndpointKind::{AnthropicResource, ChatCompletions, CountTokens, Messages, OpenAiResource, Responses};
use Then::{Again, Next, Return};
use Whose::{Caller, Credential, Model, Provider, RateLimit};
use serde_json::Value;

fn said(body: &str) -> Option<StreamError> {
    match llm::usage::fake_success(None, body.as_bytes()) {
        Some(llm::usage::FakeSuccess::Error(error)) => Some(error),
        _ => None,
    }
}

fn at(kind: EndpointKind, place: Place, status: u16, body: &str) -> Judgement {
    let error = said(body);
    let case = Case {
        kind,
        repeatable: true,
        place,
        status,
        error: error.as_ref(),
        text: body,
        retry_after: None,
        request: b"",
    };
    judge(&case)
}

fn error(kind: &str, code: Option<&str>, message: &str) -> String {
    let code = code.map_or(Value::Null, Value::from);
    serde_json::json!({"error": {"type": kind, "code": code, "message": message}}).to_string()
}

/// Status line, type, code, message → who, next.
type Line = (u16, &'static str, Option<&'static str>, &'static str, Whose, Then);

/// All on a metered kind.
const STATUS_LINES: &[Line] = &[
    // The credential says so itself.
    (401, "authentication_error", None, "invalid x-api-key", Credential, Next),
    (401, "authentication_error", None, "Invalid bearer token", Credential, Next),
    (
        401,
        "authentication_error",
        None,
        "OAuth token has expired. Please obtain a new token.",
        Credential,
        Next,
    ),
    (
        401,
        "invalid_request_error",
        Some("invalid_api_key"),
        "Incorrect API key provided: sk-…abcd.",
        Credential,
        Next,
    ),
    (401, "invalid_request_error", Some("account_deactivated"), "deactivated", Credential, Next),
    (402, "billing_error", None, "Your account needs credit", Credential, Next),
    (402, "unknown_error", Some("invalid_request_error"), "Insufficient Balance", Credential, Next),
    (403, "permission_error", None, "This organization has been disabled.", Credential, Next),
    (403, "new_api_error", Some("insufficient_user_quota"), "quota", Credential, Next),
    // Hidden in other statuses.
    (
        400,
        "invalid_request_error",
        None,
        "Your credit balance is too low to access the Anthropic API.",
        Credential,
        Next,
    ),
    (400, "invalid_request_error", None, "This organization has been disabled.", Credential, Next),
    (
        400,
        "INVALID_ARGUMENT",
        Some("400"),
        "API key not valid. Please pass a valid API key.",
        Credential,
        Next,
    ),
    (
        400,
        "invalid_request_error",
        Some("billing_hard_limit_reached"),
        "Billing hard limit",
        Credential,
        Next,
    ),
    (
        429,
        "insufficient_quota",
        Some("insufficient_quota"),
        "You exceeded your current quota",
        Credential,
        Next,
    ),
    (
        400,
        "invalid_request_error",
        None,
        "This organization has been disabled by an admin.",
        Credential,
        Next,
    ),
    // The same words where a 400 may quote them, or a relay wrapped them: nobody is blamed, others are asked.
    (
        400,
        "invalid_request_error",
        None,
        "tools.0.name: 'your credit balance is too low' does not match '^[a-z]+$'",
        Model,
        Next,
    ),
    (400, "invalid_request_error", None, "The model `api key not valid` does not exist", Model, Next),
    (400, "upstream_error", None, "Provider said: Your credit balance is too low", Model, Next),
    // Refusals that a caller brings about, or that say nothing of the credential.
    (
        401,
        "authentication_error",
        None,
        "CORS requests must set 'anthropic-dangerous-direct-browser-access' header",
        Model,
        Next,
    ),
    (
        401,
        "invalid_request_error",
        Some("mismatched_organization"),
        "OpenAI-Organization header should match organization for API key",
        Model,
        Next,
    ),
    (
        401,
        "invalid_request_error",
        None,
        "You have insufficient permissions for this operation. Missing scopes: api.usage.read.",
        Model,
        Next,
    ),
    (
        401,
        "invalid_request_error",
        None,
        "You must be a member of an organization to use the API",
        Model,
        Next,
    ),
    (401, "", None, "", Model, Next),
    (403, "permission_error", None, "Your API key does not have permission to use the model", Model, Next),
    (403, "", Some("model_not_found"), "Project `p` does not have access to model `o3`", Model, Next),
    (
        403,
        "request_forbidden",
        Some("unsupported_country_region_territory"),
        "Country, region, or territory not supported",
        Model,
        Next,
    ),
    (402, "", None, "This request requires more credits, or fewer max_tokens.", Model, Next),
    (404, "not_found_error", None, "model: x", Model, Next),
    // Limits.
    (
        429,
        "rate_limit_error",
        None,
        "This request would exceed your organization's rate limit",
        RateLimit,
        Next,
    ),
    (
        429,
        "RESOURCE_EXHAUSTED",
        Some("429"),
        "You exceeded your current quota, please check your plan and billing details",
        RateLimit,
        Next,
    ),
    (
        429,
        "tokens",
        Some("rate_limit_exceeded"),
        "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000.",
        Model,
        Next,
    ),
    (429, "rate_limit_error", None, "Extra usage is required for long context requests.", Model, Next),
    (429, "rate_limit_error", None, "You're out of extra usage. It resets 3pm (UTC).", Model, Next),
    (
        429,
        "RESOURCE_EXHAUSTED",
        Some("429"),
        "Quota exceeded for metric GenerateRequestsPerDayPerProjectPerModel-FreeTier",
        Model,
        Next,
    ),
    (
        429,
        "tokens",
        Some("rate_limit_exceeded"),
        "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 45,000.",
        Caller,
        Next,
    ),
    (
        429,
        "tokens",
        None,
        "Rate limit reached on tokens per min (TPM): Limit 30,000, Requested 45000.",
        Caller,
        Next,
    ),
    // The caller's own.
    (400, "invalid_request_error", None, "messages: at least one message is required", Caller, Return),
    (413, "request_too_large", None, "Request exceeds the maximum size", Caller, Return),
    (422, "", None, "unprocessable", Caller, Return),
    (500, "invalid_request_error", Some("context_length_exceeded"), "too long", Caller, Next),
    // The provider's.
    (408, "", None, "timeout", Provider, Again),
    (500, "api_error", None, "Internal server error", Provider, Again),
    (502, "", None, "bad gateway", Provider, Again),
    (529, "overloaded_error", None, "Overloaded", Provider, Again),
];

#[test]
fn a_status_says_whose_fault_it_is_together_with_the_body() {
    for (status, kind, code, message, whose, then) in STATUS_LINES {
        let judged = at(Messages, Place::Status, *status, &error(kind, *code, message));
        assert_eq!((judged.whose, judged.then, judged.meant), (*whose, *then, *status), "{status} {message}");
        let verdict = match whose {
            Caller | Model | Whose::Ours => Verdict::Neutral,
            Credential => Verdict::CredentialRefused,
            Provider => Verdict::Failure,
            RateLimit => Verdict::RateLimited { retry_after: None },
        };
        assert_eq!(judged.verdict, verdict, "{status} {message}");
        let rests = *whose == Credential || (*whose == Model && !matches!(*status, 400 | 404));
        assert_eq!(judged.rest.is_some(), rests, "{status} {message}");
    }
}

#[test]
fn what_is_no_error_object_blames_no_credential() {
    for (status, body, whose) in [
        (401, "", Model),
        (401, "<html>Unauthorized</html>", Model),
        (402, "", Model),
        (403, "<html>Sorry, you have been blocked</html>", Model),
        (401, "invalid api key", Credential),
        (429, "", RateLimit),
        (503, "<html>", Provider),
    ] {
        assert_eq!(at(ChatCompletions, Place::Status, status, body).whose, whose, "{status} {body}");
    }
}

#[test]
fn calls_that_are_not_metered_say_nothing_of_a_provider() {
    let refused = error("authentication_error", Some("invalid_api_key"), "invalid x-api-key");
    for kind in [CountTokens, OpenAiResource, AnthropicResource] {
        for (status, body, rest) in [
            (401, refused.as_str(), true),
            (403, refused.as_str(), true),
            (429, "", true),
            (500, "", false),
            (501, "", false),
            (404, "", false),
            (400, "", false),
        ] {
            let judged = at(kind, Place::Status, status, body);
            assert_eq!(
                (judged.verdict, judged.rest.is_some()),
                (Verdict::Neutral, rest),
                "{kind:?} {status}"
            );
            assert_ne!(judged.then, Again, "{kind:?} {status}");
        }
        for broken in [Broken::Sent, Broken::Answer] {
            assert_eq!(judge_broken(broken, kind, true).verdict, Verdict::Neutral);
        }
        assert_eq!(judge_broken(Broken::Unsent, kind, true).verdict, Verdict::Failure);
    }
}

#[test]
fn a_good_status_conceals_what_the_error_says() {
    let bad = error("invalid_request_error", None, "max_tokens: must be positive");
    let large = error("request_too_large", None, "Request exceeds the maximum size");
    let refused = error("authentication_error", None, "invalid x-api-key");
    let unknown = error("not_found_error", None, "model: x");
    let busy = error("overloaded_error", None, "Overloaded");
    let limit = error("rate_limit_error", None, "slow down");
    for place in [Place::Document, Place::FirstEvent] {
        for (body, whose, meant, then) in [
            (&bad, Caller, 400, Return),
            (&large, Caller, 413, Return),
            (&refused, Credential, 401, Next),
            (&unknown, Model, 404, Next),
            (&busy, Provider, 529, Again),
            (&limit, RateLimit, 429, Next),
        ] {
            let judged = at(Messages, place, 200, body);
            assert_eq!((judged.whose, judged.meant, judged.then), (whose, meant, then), "{place:?} {body}");
        }
        assert_eq!(at(Messages, place, 200, "<html>").whose, Provider);
    }
}

#[test]
fn after_content_nothing_is_sent_again() {
    for (kind, verdict) in [
        ("overloaded_error", Verdict::Failure),
        ("api_error", Verdict::Failure),
        ("rate_limit_error", Verdict::RateLimited { retry_after: None }),
        ("invalid_request_error", Verdict::Neutral),
        ("authentication_error", Verdict::Neutral),
    ] {
        let judged = at(Responses, Place::MidStream, 200, &error(kind, None, "x"));
        assert_eq!((judged.verdict, judged.then, judged.rest), (verdict, Return, None), "{kind}");
    }
}

#[test]
fn a_creation_is_sent_once_unless_nothing_was_sent() {
    for status in [401, 403, 404, 408, 429, 500, 502, 504] {
        let case = Case {
            kind: OpenAiResource,
            repeatable: false,
            place: Place::Status,
            status,
            error: None,
            text: "",
            retry_after: None,
            request: b"",
        };
        assert_eq!(judge(&case).then, Return, "{status}");
    }
    for (broken, then) in [
        (Broken::Unformed, Next),
        (Broken::Unsent, Again),
        (Broken::Local, Next),
        (Broken::Sent, Return),
        (Broken::Answer, Return),
    ] {
        assert_eq!(judge_broken(broken, OpenAiResource, false).then, then, "{broken:?}");
    }
}

#[test]
fn trouble_of_this_proxy_is_its_own() {
    let judged = judge_broken(Broken::Local, Messages, true);
    assert_eq!((judged.whose, judged.verdict), (Whose::Ours, Verdict::Neutral));
    let judged = judge_broken(Broken::Unformed, Messages, true);
    assert_eq!((judged.whose, judged.verdict), (Caller, Verdict::Neutral));
    for broken in [Broken::Unsent, Broken::Sent, Broken::Answer] {
        assert_eq!(judge_broken(broken, Messages, true).verdict, Verdict::Failure, "{broken:?}");
    }
}

#[test]
fn words_that_stand_in_the_request_blame_nobody() {
    let text = "API key not valid. is not a valid role";
    let error = said(&error("invalid_request_error", None, text));
    for (request, whose) in [
        (&br#"{"messages":[{"role":"api KEY not valid. "}]}"#[..], Model),
        (br#"{"messages":[{"role":"api key"}]}"#, Credential),
        (b"", Credential),
    ] {
        for status in [400, 403] {
            let case = Case {
                kind: Messages,
                repeatable: true,
                place: Place::Status,
                status,
                error: error.as_ref(),
                text,
                retry_after: None,
                request,
            };
            // To a 403 the shorter sentence is enough.
            let expected = if status == 403 { Credential } else { whose };
            assert_eq!(judge(&case).whose, expected, "{status}");
        }
    }
}

#[test]
fn limits_keep_their_wait() {
    let case = Case {
        kind: Messages,
        repeatable: true,
        place: Place::Status,
        status: 429,
        error: None,
        text: "",
        retry_after: Some(Duration::from_secs(300)),
        request: b"",
    };
    assert_eq!(judge(&case).verdict, Verdict::RateLimited { retry_after: case.retry_after });
    let case = Case { kind: CountTokens, ..case };
    assert_eq!(judge(&case).rest, Some(REFUSED_REST), "for as long as the wait, but not above a minute");
}
