//! What is asked, what an answer says, and who is the last of a pool.

use super::*;
use crate::table::fixtures::{provider, sealer};
use crate::table::{Builder, Change, RawSection, Secret};
use contract::table::{MatchType, ModelRule, Provider, ProviderKind, Rows};

fn up(row: Provider) -> Upstream {
    Upstream::new(row, Secret::new("sk-secret")).expect("provider")
}

fn lines(row: Provider) -> Vec<String> {
    let up = up(row);
    let sent = |question: &Question| {
        let bytes = question.for_provider(&up).expect("request").bytes();
        String::from_utf8(bytes).expect("text")
    };
    request::questions(&up).iter().map(sent).collect()
}

#[test]
fn the_smallest_call_of_a_kind_is_asked_and_tokens_are_counted_only_where_that_is_known() {
    let at = |kind, host: &str| Provider { kind, base_url: format!("https://{host}"), ..provider(1) };
    for (kind, host, paths) in [
        (ProviderKind::Claude, "api.anthropic.com", &["/v1/messages/count_tokens", "/v1/messages"][..]),
        (ProviderKind::Claude, "relay.example.com", &["/v1/messages"]),
        (ProviderKind::Claude, "anthropic.com.example.com", &["/v1/messages"]),
        (ProviderKind::Codex, "api.example.com", &["/v1/responses"]),
        (ProviderKind::OpenAiCompatible, "api.example.com", &["/v1/chat/completions"]),
        (ProviderKind::Gemini, "api.example.com", &[]),
    ] {
        let lines = lines(at(kind, host));
        assert_eq!(lines.len(), paths.len(), "{kind:?} {host}");
        for (line, path) in lines.iter().zip(paths) {
            assert!(line.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{line}");
            assert!(line.contains("sk-secret") && line.contains(r#""content":"hi""#), "{line}");
        }
    }
}

#[test]
fn models_that_may_be_served_are_asked_for_and_a_common_one_in_the_end() {
    let rule = |pattern: &str, target: Option<&str>| ModelRule {
        pattern: pattern.to_owned(),
        match_type: MatchType::Exact,
        target: target.map(str::to_owned),
    };
    let plain = Provider { kind: ProviderKind::OpenAiCompatible, ..provider(1) };
    let allowed = Provider { allowed_models: vec![rule("only", None)], ..plain.clone() };
    let redirected = Provider { redirects: vec![rule("only", Some("other"))], ..allowed.clone() };
    let common = "gpt-4o-mini";
    for (row, served, models) in [
        (plain.clone(), None, &[common][..]),
        (allowed.clone(), None, &["only", common]),
        (redirected.clone(), None, &["other", common]),
        (plain.clone(), Some("seen"), &["seen", common]),
        (plain, Some(common), &[common]),
        (allowed, Some("seen"), &["seen", "only", common]),
        (redirected, Some("seen"), &["seen", "other", common]),
    ] {
        let up = up(row);
        served.into_iter().for_each(|model| up.has_served(llm::EndpointKind::ChatCompletions, model));
        let questions = request::questions(&up);
        assert_eq!(questions.iter().map(Question::model).collect::<Vec<_>>(), models);
        for question in &questions {
            let sent = question.for_provider(&up).expect("request").bytes();
            let model = format!(r#""model":"{}""#, question.model());
            assert!(String::from_utf8(sent).expect("text").contains(&model), "{model}");
            assert_eq!(question.is_common(), question.model() == common, "{model}");
        }
    }
}

#[test]
fn only_what_says_so_is_a_refusal() {
    let up = up(Provider { base_url: "https://api.anthropic.com".to_owned(), ..provider(1) });
    let questions = request::questions(&up);
    let [count, say] = &questions[..] else { panic!("{questions:?}") };
    let refused = r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#;
    for (question, status, text, probe) in [
        (say, 200, r#"{"id":"msg_1","content":[]}"#, Probe::Accepted),
        (say, 200, "", Probe::Failed),
        (say, 200, refused, Probe::Refused),
        (say, 401, refused, Probe::Refused),
        (count, 401, refused, Probe::Refused),
        (say, 401, "", Probe::Unclear),
        (say, 403, "<html>", Probe::Unclear),
        (say, 400, r#"{"error":{"type":"invalid_request_error","message":"x"}}"#, Probe::Accepted),
        (say, 400, r#"{"error":{"message":"Your credit balance is too low"}}"#, Probe::Refused),
        (say, 404, r#"{"error":{"type":"not_found_error","message":"model: x"}}"#, Probe::Accepted),
        (say, 429, "", Probe::Unclear),
        (say, 529, "", Probe::Failed),
        (count, 500, "", Probe::Failed),
    ] {
        assert_eq!(judged(question, status, text.as_bytes()), Some(probe), "{status} {text}");
    }
    assert_eq!(judged(count, 404, b""), None, "the path may be missing");
    // Another model than the common one may be missing before the door: it says nothing, and the next one is asked.
    up.has_served(llm::EndpointKind::Messages, "mine");
    let questions = request::questions(&up);
    let missing = br#"{"error":{"type":"not_found_error","message":"model: mine"}}"#;
    assert_eq!(judged(&questions[1], 404, missing), None);
    assert_eq!(judged(&questions[3], 404, missing), Some(Probe::Accepted));
}

#[test]
fn only_calls_like_the_gateways_own_say_which_model_is_served() {
    use llm::EndpointKind::{ChatCompletions, CountTokens, Messages, OpenAiOther, Responses};
    for (kind, own) in [
        (ProviderKind::Claude, Messages),
        (ProviderKind::Codex, Responses),
        (ProviderKind::OpenAiCompatible, ChatCompletions),
    ] {
        let up = up(Provider { kind, ..provider(1) });
        for call in [Messages, CountTokens, Responses, ChatCompletions, OpenAiOther] {
            if call != own {
                up.has_served(call, "embedding-or-the-like");
            }
        }
        assert_eq!(up.served.get(), None, "{kind:?}");
        up.has_served(own, "seen");
        up.has_served(own, "later");
        assert_eq!(up.served.get().map(|model| &**model), Some("seen"));
    }
}

#[test]
fn the_last_of_any_pool_is_the_last() {
    let tagged = |id, groups: &[&str]| Provider {
        groups: groups.iter().copied().map(Arc::from).collect(),
        ..provider(id)
    };
    let off = |row: Provider| Provider { enabled: false, ..row };
    let chat = |row: Provider| Provider { kind: ProviderKind::OpenAiCompatible, ..row };
    for (rows, refused, last) in [
        (vec![provider(1)], &[][..], true),
        (vec![provider(1), provider(2)], &[], false),
        (vec![provider(1), provider(2)], &[2], true),
        (vec![provider(1), off(provider(2))], &[], true),
        (vec![provider(1), chat(provider(2))], &[], true),
        (vec![provider(1), tagged(2, &["g"])], &[], true),
        (vec![provider(1), tagged(2, &["g", "default"])], &[], false),
        (vec![tagged(1, &["g", "h"]), tagged(2, &["g"])], &[], true),
        (vec![tagged(1, &["g", "h"]), tagged(2, &["g"]), tagged(3, &["h"])], &[], false),
    ] {
        let section = RawSection::of("providers", &Rows { providers: rows, ..Rows::default() });
        let table = Builder::new(sealer()).apply(Change::whole(1, vec![section])).expect("table").snapshot;
        let refused = refused.iter().copied().map(ProviderId).collect();
        let up = table.upstream(ProviderId(1)).expect("provider");
        assert_eq!(is_last(&table, up, &refused), last, "{refused:?}");
    }
}

#[test]
fn what_a_question_costs_is_its_owners_alone() {
    let row = Provider { cost_multiplier: 2.into(), ..provider(1) };
    let milli = |amount| Some(rust_decimal::Decimal::new(amount, 3));
    let price = contract::money::Price { input: milli(1), output: milli(5), ..Default::default() };
    let price = contract::table::ModelPrice { model: "claude-haiku-4-5".to_owned(), price };
    let rows = Rows { providers: vec![row.clone()], prices: vec![price], ..Rows::default() };
    let section = RawSection::of("all", &rows);
    let table = Builder::new(sealer()).apply(Change::whole(1, vec![section])).expect("table").snapshot;
    let row = Provider { base_url: "https://api.anthropic.com".to_owned(), ..row };
    let up = up(row);
    let questions = request::questions(&up);
    let [count, say] = &questions[..] else { panic!("{questions:?}") };
    let good =
        r#"{"type":"message","model":"claude-haiku-4-5","usage":{"input_tokens":8,"output_tokens":1}}"#;
    let events = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":8}}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":1}}\n\n";
    let failed = r#"{"type":"error","error":{"type":"authentication_error","message":"no"}}"#;
    let cost = |question, status, streamed, text: &str| {
        let text = text.as_bytes();
        let answered = Answered { question, up: &up, status, streamed, text, time_ms: (1_000, 7) };
        cost::record(&table, "p", &answered)
    };
    for (name, question, status, streamed, text, usd) in [
        ("answered", say, 200, false, good, Some("0.026")),
        ("in events", say, 200, true, events, Some("0.026")),
        ("refused", say, 401, false, failed, None),
        ("refused in disguise", say, 200, false, failed, None),
        ("tokens are counted for nothing", count, 200, false, r#"{"input_tokens":8}"#, None),
    ] {
        let record = cost(question, status, streamed, text);
        assert_eq!(
            record.as_ref().and_then(|one| one.cost).map(|cost| cost.to_string()).as_deref(),
            usd,
            "{name}"
        );
        let Some(record) = record else { continue };
        assert_eq!((record.owner_id, record.provider_id), (up.row.owner_id, Some(up.row.id)), "{name}");
        assert_eq!((record.user_id.0, record.key_id.0, record.session_id), (0, 0, None), "{name}");
        assert_eq!((&*record.endpoint, record.tokens.input), ("/v1/messages", 8), "{name}");
    }
    let silent = cost(say, 200, false, "{}").expect("it was answered");
    assert_eq!(silent.usage_source, contract::usage::UsageSource::Estimated);
    assert!(silent.tokens.input > 0);
}
