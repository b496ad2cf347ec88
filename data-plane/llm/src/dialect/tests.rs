use super::*;
use EndpointKind::*;

#[test]
fn even_an_unrecognised_call_speaks_a_protocol() {
    let none: &dyn Fn(&str) -> Option<&'static str> = &|_| None;
    for (path, dialect) in [
        ("/v1/messages", Dialect::Anthropic),
        ("/messages/", Dialect::Anthropic),
        ("/v1/responses", Dialect::Responses),
        ("/v1/chat/completions", Dialect::OpenAi),
        ("/nowhere", Dialect::OpenAi),
    ] {
        assert_eq!(unrecognised(path, none), dialect, "{path}");
    }
    assert_eq!(
        unrecognised("/nowhere", &|name| (name == "anthropic-version").then_some("x")),
        Dialect::Anthropic
    );
}

fn routed(
    method: &str,
    path: &'static str,
    headers: &[&str],
) -> Option<(Dialect, EndpointKind, &'static str)> {
    let header = |name: &str| headers.contains(&name).then_some("x");
    route(method, path, &header).map(|route| (route.dialect, route.kind, route.tail))
}

#[test]
fn recognises_every_endpoint() {
    use Dialect::*;
    for (call, expected) in [
        ("POST /v1/messages", Some((Anthropic, Messages, "/messages"))),
        ("POST /messages", Some((Anthropic, Messages, "/messages"))),
        ("POST /v1/v1/messages", Some((Anthropic, Messages, "/messages"))),
        ("POST /v1/messages/", Some((Anthropic, Messages, "/messages"))),
        ("POST /v1/messages/count_tokens", Some((Anthropic, CountTokens, "/messages/count_tokens"))),
        ("POST /v1/messages/batches", Some((Anthropic, AnthropicResource, "/messages/batches"))),
        (
            "GET /v1/messages/batches/b/results",
            Some((Anthropic, AnthropicResource, "/messages/batches/b/results")),
        ),
        ("POST /v1/responses", Some((Dialect::Responses, EndpointKind::Responses, "/responses"))),
        ("POST /responses", Some((Dialect::Responses, EndpointKind::Responses, "/responses"))),
        ("POST /v1/responses/compact", Some((Dialect::Responses, ResponsesCompact, "/responses/compact"))),
        (
            "POST /v1/responses/input_tokens",
            Some((Dialect::Responses, InputTokens, "/responses/input_tokens")),
        ),
        ("POST /v1/alpha/search", Some((Dialect::Responses, OpenAiOther, "/alpha/search"))),
        ("GET /v1/responses/resp_1", Some((Dialect::Responses, OpenAiResource, "/responses/resp_1"))),
        ("DELETE /v1/responses/resp_1", Some((Dialect::Responses, OpenAiResource, "/responses/resp_1"))),
        ("POST /v1/responses/r/cancel", Some((Dialect::Responses, OpenAiResource, "/responses/r/cancel"))),
        ("POST /v1/chat/completions", Some((OpenAi, ChatCompletions, "/chat/completions"))),
        ("POST /chat/completions", Some((OpenAi, ChatCompletions, "/chat/completions"))),
        ("GET /v1/chat/completions", Some((OpenAi, OpenAiResource, "/chat/completions"))),
        (
            "GET /v1/chat/completions/c/messages",
            Some((OpenAi, OpenAiResource, "/chat/completions/c/messages")),
        ),
        ("POST /v1/embeddings", Some((OpenAi, OpenAiOther, "/embeddings"))),
        ("POST /embeddings", Some((OpenAi, OpenAiOther, "/embeddings"))),
        ("POST /v1/audio/speech", Some((OpenAi, OpenAiOther, "/audio/speech"))),
        ("POST /v1/images/edits", Some((OpenAi, OpenAiOther, "/images/edits"))),
        ("POST /v1/moderations", Some((OpenAi, Moderations, "/moderations"))),
        ("GET /v1/files", Some((OpenAi, OpenAiResource, "/files"))),
        ("GET /v1/files/f/content", Some((OpenAi, OpenAiResource, "/files/f/content"))),
        ("POST /v1/threads/t/runs", Some((OpenAi, OpenAiResource, "/threads/t/runs"))),
        ("GET /v1/organization/costs", Some((OpenAi, OpenAiResource, "/organization/costs"))),
        ("DELETE /v1/models/m", Some((OpenAi, OpenAiResource, "/models/m"))),
        ("GET /v1/models", Some((OpenAi, Models, "/models"))),
        ("HEAD /v1/models", Some((OpenAi, Models, "/models"))),
        ("GET /models", Some((OpenAi, Models, "/models"))),
        ("GET /v1/responses/models", Some((Dialect::Responses, Models, "/responses/models"))),
        ("GET /v1/chat/completions/models", Some((OpenAi, Models, "/chat/completions/models"))),
        ("GET /v1/models/a/b", Some((OpenAi, Model, "/models/a/b"))),
        ("GET /v1/models/a%2Fb", Some((OpenAi, Model, "/models/a%2Fb"))),
    ] {
        let (method, path) = call.split_once(' ').unwrap();
        assert_eq!(routed(method, path, &[]), expected, "{call}");
    }
}

#[test]
fn headers_decide_where_paths_do_not() {
    for headers in [&["anthropic-version"][..], &["x-api-key"]] {
        assert_eq!(routed("GET", "/v1/models", headers), Some((Dialect::Anthropic, Models, "/models")));
        assert_eq!(
            routed("POST", "/v1/files", headers),
            Some((Dialect::Anthropic, AnthropicResource, "/files"))
        );
    }
    let id = route("GET", "/v1/models/gpt-5", &|_| None).and_then(|route| route.model_id());
    assert_eq!(id, Some("gpt-5"));
}

#[test]
fn what_is_not_in_the_table_does_not_exist() {
    for call in [
        // Other paths, and inference under names that upstreams have beside the known ones.
        "POST /v1/whatever",
        "POST /v1/score",
        "POST /v1/engines/gpt-4/completions",
        "POST /v1/video/generations",
        "POST /v1/edits",
        "POST /v1/responses/resp_1",
        "POST /v1/messages/batches/b",
        "POST /v1/batches/b",
        "POST /v1/chat/completions/a/b",
        "GET /v1",
        "GET /v1/",
        "GET /",
        "GET /v1x/models",
        "POST /files",
        "GET /dashboard",
        // The same path, otherwise spelt.
        "POST /v1/Messages",
        "POST /V1/messages",
        "POST /v1/Chat/Completions",
        "POST /v1/chat/Completions",
        "GET /v1/Files",
        "POST /v1//messages",
        "POST /v1/chat//completions",
        "POST /v1/messages//",
        "POST /v1/%6dessages",
        "POST /v1/chat%2Fcompletions",
        "GET /v1/files/%2e%2e",
        "GET /v1/files/../messages",
        "GET /v1/files/./f",
        "GET /v1/files/f;x",
        "GET /v1/files/f\\x",
        "GET /v1/files//",
        // The same path with another method.
        "GET /v1/messages",
        "PUT /v1/messages",
        "PATCH /v1/chat/completions",
        "post /v1/messages",
        "GET /v1/embeddings",
        "DELETE /v1/messages/count_tokens",
        "TRACE /v1/files",
        "PUT /v1/files/f",
        "OPTIONS /v1/messages",
        "CONNECT /v1/messages",
    ] {
        let (method, path) = call.split_once(' ').unwrap();
        assert_eq!(route(method, path, &|_| None), None, "{call}");
    }
}

#[test]
fn what_makes_something_is_sent_once() {
    for (call, repeatable) in [
        ("POST /v1/messages", true),
        ("POST /v1/responses", true),
        ("POST /v1/images/generations", true),
        ("GET /v1/files", true),
        ("DELETE /v1/files/f", true),
        ("POST /v1/files", false),
        ("POST /v1/uploads/u/parts", false),
        ("POST /v1/uploads/u/cancel", true),
        ("POST /v1/batches", false),
        ("POST /v1/batches/b/cancel", true),
        ("POST /v1/messages/batches", false),
        ("POST /v1/fine_tuning/jobs", false),
        ("POST /v1/fine_tuning/jobs/j/cancel", true),
        ("POST /v1/vector_stores", false),
        ("POST /v1/conversations", false),
        ("POST /v1/threads/t/runs", false),
        ("POST /v1/threads/t/runs/r/cancel", true),
    ] {
        let (method, path) = call.split_once(' ').unwrap();
        assert_eq!(route(method, path, &|_| None).unwrap().repeatable, repeatable, "{call}");
    }
    let metered = ROWS.iter().filter(|row| row.kind.class() != Class::Resource);
    assert!(metered.clone().all(|row| row.repeatable), "inference is repeated");
}

#[test]
fn every_row_can_be_reached() {
    for row in ROWS {
        let path = row.path.replace("{id…}", "x/y").replace("{id}", "x").replace("{run}", "y");
        let path = path.replace("{batch}", "z").replace('…', "/tail");
        let found = table::find(row.methods[0], &path);
        assert_eq!(found, Some(row), "{path}");
    }
}

/// `docs/paths.md` is the table.
#[test]
fn the_documentation_shows_the_table() {
    let page = include_str!("../../../../docs/paths.md");
    let table = table::markdown();
    assert!(page.contains(&table), "docs/paths.md must hold this table:\n{table}");
}
