//! Documents where streams were asked for: bought once, paid for, and told.

use super::answers::{self, Used, request};
use super::call::Call;
use super::reply::Reply;
use super::walk::{Walk, run};
use contract::usage::{Dialect, Outcome};
use std::time::Duration;

const USED: Used = Used { input: 10, output: 5 };

async fn pair(dialect: Dialect) -> Walk {
    let walk = Walk::new().providers([1, 2], |id, row| {
        row.kind = answers::kind(dialect);
        row.priority = i32::try_from(id).unwrap();
    });
    walk.start().await
}

/// Calls that are never streamed wait for their document, however long it takes.
#[test]
fn what_is_never_a_stream_keeps_its_head_and_is_asked_for_once() {
    run(async {
        let usage = serde_json::json!({ "prompt_tokens": 10, "total_tokens": 10 });
        let document = serde_json::json!({ "object": "list", "data": [], "model": "m", "usage": usage });
        for path in ["/v1/embeddings", "/v1/rerank", "/v1/audio/speech"] {
            let walk = pair(Dialect::OpenAi).await;
            walk.host(1).next(Reply::json(200, &document).after(Duration::from_secs(45)));
            let body = serde_json::json!({ "model": "m", "input": "x", "query": "x", "stream": true });
            let answer = walk.send(Call::post(path, body.to_string())).await;
            assert_eq!((answer.status, answer.json()), (200, document.clone()), "{path}");
            assert_eq!((walk.host(1).count(), walk.host(2).count()), (1, 0), "{path}");
            let record = walk.records().await.remove(0);
            assert_eq!((record.outcome, record.tokens.input), (Outcome::Completed, 10), "{path}");
            // Who leaves meanwhile says nothing of the provider.
            walk.host(1).next(Reply::never());
            let call = Call::post(path, body.to_string()).patience(Duration::from_secs(50));
            assert!(walk.send(call).await.left);
            walk.quiet().await;
            assert_eq!(walk.health(1).failures, 0);
        }
    });
}

#[test]
fn a_document_behind_the_head_of_a_stream_is_paid_for_and_not_bought_again() {
    run(async {
        for dialect in [Dialect::Anthropic, Dialect::OpenAi, Dialect::Responses] {
            let walk = pair(dialect).await;
            walk.host(1).next(answers::document(dialect, USED).after(Duration::from_secs(15)));
            walk.host(2).always(answers::stream(dialect, USED));
            let answer = walk.post(answers::path(dialect), request(dialect, "m", true)).await;
            assert_eq!((answer.status, walk.host(2).count()), (200, 0), "{dialect:?}");
            assert!(answer.text().contains("without `stream`"), "{dialect:?} {}", answer.text());
            let record = walk.records().await.remove(0);
            let tokens = (record.tokens.input, record.tokens.output);
            assert_eq!((record.outcome, tokens), (Outcome::Completed, (10, 5)), "{dialect:?}");
            assert!(record.cost.is_some_and(|cost| !cost.is_zero()), "{dialect:?}");
        }
    });
}

/// Some gateways send white space while the model works.
#[test]
fn a_document_that_is_coming_is_not_bought_again() {
    run(async {
        let walk = pair(Dialect::OpenAi).await;
        let mut slow = Reply::pieces(200, "application/json");
        for _ in 0..9 {
            slow = slow.piece("   ").wait(Duration::from_secs(100));
        }
        let text = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
        walk.host(1).next(slow.piece(text).end());
        let answer = walk.post(answers::path(Dialect::OpenAi), request(Dialect::OpenAi, "m", false)).await;
        assert_eq!((answer.status, walk.host(1).count(), walk.host(2).count()), (200, 1, 0));
        let record = walk.records().await.remove(0);
        assert_eq!((record.outcome, record.tokens.output), (Outcome::Completed, 5));
        walk.host(1).next(Reply::never());
        walk.host(2).always(answers::document(Dialect::OpenAi, USED));
        let answer = walk.post(answers::path(Dialect::OpenAi), request(Dialect::OpenAi, "m", false)).await;
        assert_eq!(
            (answer.status, walk.host(2).count()),
            (503, 0),
            "no head in 600 s, and then no time for another"
        );
    });
}
