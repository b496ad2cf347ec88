use super::*;
use http::Request;

fn head(traceparent: &str) -> Parts {
    Request::post("/v1/messages").header("traceparent", traceparent).body(()).unwrap().into_parts().0
}

const CALLERS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn without_an_endpoint_the_callers_context_passes_unchanged() {
    let head = head(CALLERS);
    let span = Span::none();
    let mut headers = head.headers.clone();
    inject(&span, &mut headers);
    assert_eq!(headers["traceparent"], CALLERS);
    assert_eq!(trace_id(&span), None);
}

#[test]
fn operations_by_path() {
    for (path, expected) in [
        ("/v1/messages", "chat"),
        ("/v1/chat/completions", "chat"),
        ("/v1/responses", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1beta/models/m:streamGenerateContent", "generate_content"),
        ("/v1/files", "request"),
    ] {
        assert_eq!(operation(path), expected, "{path}");
    }
}
