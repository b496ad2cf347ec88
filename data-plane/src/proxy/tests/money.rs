//! What is billed where no price or no answer says it: names in other spellings, models without a price, hang-ups.

use super::answers::request;
use super::call::{Answer, Call};
use super::reply::Reply;
use super::walk::{Walk, key, price, run, usd};
use crate::table::fixtures;
use crate::upstream::memory::Door;
use contract::ids::{ProviderId, UserId};
use contract::money::Price;
use contract::table::{ModelPrice, OwnerConfig, Unpriced};
use contract::usage::{Dialect, Outcome, UsageRecord, UsageSource, WhyUnpriced};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use std::time::Duration;

/// An answer that names no model.
fn answer(usage: Value) -> Reply {
    let content = json!([{ "type": "text", "text": "hi" }]);
    Reply::json(200, json!({ "id": "msg_1", "type": "message", "content": content, "usage": usage }))
}

fn used(input: u64, output: u64) -> Value {
    json!({ "input_tokens": input, "output_tokens": output })
}

fn ask(model: &str) -> Call {
    Call::post("/v1/messages", request(Dialect::Anthropic, model, false).to_string())
}

/// A call of a conversation with at least 4,000 bytes in it.
fn turn(session: &str) -> Call {
    let mut body = request(Dialect::Anthropic, "m", false);
    body["metadata"] = json!({ "user_id": format!("user_a_account__session_{session}") });
    body["system"] = json!("x".repeat(4_000));
    Call::post("/v1/messages", body.to_string())
}

fn milli(amount: i64) -> Option<Decimal> {
    Some(Decimal::new(amount, 3).normalize())
}

/// "big-one" costs 5 and 5 milli-USD per token, "big-two" 3 and 9. User 1 may spend a dollar, user 2 is not limited.
async fn family(unpriced: Unpriced) -> Walk {
    let walk = Walk::new().providers([1], |_, _| {}).rows(|rows| {
        rows.users[0].limits = vec![usd(1_000)];
        rows.users.push(fixtures::user(2, "bob"));
        rows.keys.push(key(2, 2));
        let speech = Price { other_unit: true, ..Price::default() };
        let speech = ModelPrice { model: "speech".to_owned(), price: speech };
        rows.prices.extend([price("big-one", 5, 5), price("big-two", 3, 9), speech]);
        rows.owners.push(OwnerConfig { unpriced, ..OwnerConfig::new(UserId(1), chrono_tz::Tz::UTC) });
    });
    let walk = walk.start().await;
    walk.host(1).always(answer(used(100, 10)));
    walk
}

#[test]
fn a_model_in_another_spelling_or_named_by_the_answer_only_is_billed() {
    run(async {
        let walk = Walk::new().providers([1], |_, _| {}).start().await;
        walk.host(1).always(answer(used(100, 10)));
        for model in ["m", "vendor/m:nitro", "M", "Vendor/M-20260101:free", "us.m-latest"] {
            assert_eq!(walk.send(ask(model)).await.status, 200, "{model}");
        }
        let mut named = request(Dialect::Anthropic, "mine", false);
        named["max_tokens"] = json!(9);
        let theirs = json!({ "type": "message", "model": "vendor/M", "content": [], "usage": used(100, 10) });
        walk.host(1).next(Reply::json(200, theirs));
        walk.post("/v1/messages", named).await;
        let records = walk.records().await;
        assert_eq!(records.len(), 6);
        for record in records {
            let bill = (record.billed_model.as_deref(), record.cost, record.unpriced, record.held_cost);
            assert_eq!(bill, (Some("m"), milli(120), None, None), "{}", record.model);
        }
    });
}

#[test]
fn a_model_without_a_price_counts_at_the_ceiling_even_after_a_restart() {
    run(async {
        let mut walk = family(Unpriced::Ceiling).await;
        for _ in 0..2 {
            assert_eq!(walk.send(ask("big-other")).await.status, 200);
            walk.quiet().await;
        }
        let records = walk.records().await;
        for record in &records {
            let bill = (record.cost, record.unpriced, record.held_cost, record.billed_model.as_deref());
            assert_eq!(bill, (None, Some(WhyUnpriced::NoPrice), milli(5 * 100 + 9 * 10), None));
        }
        assert_eq!(walk.shared().live.unpriced(), ["big-other"], "the control plane is told");
        for model in ["big-other", "m"] {
            assert_eq!(walk.send(ask(model)).await.status, 402, "{model}");
        }
        walk.restart().await;
        assert_eq!(walk.send(ask("m")).await.status, 402, "the ledger knows what is held");
        assert_eq!(walk.send(ask("big-other").key(2)).await.status, 200);
        assert_eq!(walk.send(ask("speech").key(2)).await.status, 200);
        let speech = walk.records().await.pop().expect("a record");
        assert_eq!((speech.cost, speech.unpriced), (None, Some(WhyUnpriced::OtherUnit)));
        assert_eq!(speech.held_cost, None, "its unit is not counted yet");
    });
}

fn refused(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (402, "model_not_priced"), "{}", answer.text());
    for word in ["big-other", "uploadPriceTable", "syncLiteLLMPrices"] {
        assert!(answer.text().contains(word), "{}", answer.text());
    }
}

#[test]
fn an_owner_may_have_them_refused_or_served_for_nothing() {
    run(async {
        let walk = family(Unpriced::Refuse).await;
        refused(&walk.send(ask("big-other")).await);
        assert_eq!((walk.host(1).count(), walk.shared().live.unpriced()), (0, vec!["big-other".to_owned()]));
        for call in [ask("big-one"), ask("speech"), ask("big-other").key(2)] {
            assert_eq!(walk.send(call).await.status, 200);
        }
        let held: Vec<bool> = walk.records().await.iter().map(|record| record.held_cost.is_some()).collect();
        assert_eq!(held, [false, false, true], "a provider's limits count it, and the user's that may come");

        let walk = family(Unpriced::Serve).await;
        for _ in 0..4 {
            assert_eq!(walk.send(ask("big-other")).await.status, 200);
            walk.quiet().await;
        }
        for record in walk.records().await {
            let bill = (record.cost, record.unpriced, record.held_cost);
            assert_eq!(bill, (None, Some(WhyUnpriced::NoPrice), None));
        }
    });
}

#[test]
fn a_model_that_a_provider_redirects_to_a_priced_one_is_not_refused() {
    run(async {
        let mut walk = family(Unpriced::Refuse).await;
        let rule = contract::table::ModelRule {
            match_type: contract::table::MatchType::Exact,
            pattern: "alias".to_owned(),
            target: Some("m".to_owned()),
        };
        walk.rows.providers[0].redirects = vec![rule];
        walk.publish();
        assert_eq!(walk.send(ask("alias")).await.status, 200);
        assert_eq!(walk.records().await[0].billed_model.as_deref(), Some("m"));
    });
}

async fn left(walk: &Walk, call: Call) -> UsageRecord {
    let patience = call.patience.unwrap_or(Duration::from_secs(5));
    let answer = walk.send(call.patience(patience)).await;
    assert!(answer.left);
    let mut records = walk.records().await;
    let record = records.pop().expect("a record");
    assert_eq!((records.len(), record.outcome, record.tokens.output), (0, Outcome::Aborted, 0));
    record
}

#[test]
fn a_hang_up_costs_the_input_in_the_classes_of_the_conversations_last_answer() {
    run(async {
        let walk = Walk::new().providers([1], |_, _| {}).start().await;
        walk.host(1)
            .next(answer(json!({ "input_tokens": 100, "cache_read_input_tokens": 900, "output_tokens": 1 })));
        assert_eq!(walk.send(turn("known")).await.status, 200);
        walk.records().await;
        walk.host(1).always(Reply::never());
        let record = left(&walk, turn("known")).await;
        let tokens = record.request_bytes.div_ceil(4);
        let read = tokens * 9 / 10;
        let classes = (record.usage_source, record.tokens.cache_read, record.tokens.input);
        assert_eq!(classes, (UsageSource::Estimated, read, tokens - read));
        // A cache read costs a tenth.
        let cost = Decimal::from(10 * (tokens - read) + read) / Decimal::from(10_000);
        assert_eq!(record.cost, Some(cost.normalize()));
        let record = left(&walk, turn("new")).await;
        let tokens = record.request_bytes.div_ceil(4);
        assert_eq!((record.tokens.cache_read, record.tokens.input), (0, tokens));
        assert_eq!(record.cost, milli(i64::try_from(tokens).expect("few")));
        // A head, and then nothing.
        walk.host(1).always(Reply::events().silence());
        assert_eq!(left(&walk, turn("new")).await.tokens.input, tokens);
    });
}

#[test]
fn what_was_not_sent_or_was_refused_costs_nothing() {
    run(async {
        let nothing = |record: &UsageRecord| {
            let source = (record.usage_source, record.tokens.input, record.cost);
            assert_eq!(source, (UsageSource::None, 0, Some(Decimal::ZERO)), "{record:?}");
        };
        let walk = Walk::new().providers([1], |_, _| {}).start().await;
        walk.host(1).door(Door::Silent);
        nothing(&left(&walk, turn("a")).await);
        // It said no, and dawdles over the reason.
        let walk = Walk::new().setting("ERROR_BODY_TIMEOUT", "10s");
        let walk = walk.providers([1], |_, row| row.max_attempts = Some(1)).start().await;
        walk.host(1).always(Reply::pieces(500, "application/json").piece("{").silence());
        nothing(&left(&walk, turn("a").patience(Duration::from_millis(100))).await);
        // The owner of the proxy wants it so.
        let walk = Walk::new().setting("BILL_ABORTED", "free").providers([1], |_, _| {}).start().await;
        walk.host(1).always(Reply::never());
        let record = left(&walk, turn("a")).await;
        assert_eq!((record.usage_source, record.cost), (UsageSource::Estimated, Some(Decimal::ZERO)));
    });
}

#[test]
fn an_attempt_that_was_given_up_is_nobodys_to_pay() {
    run(async {
        let second = Duration::from_secs(1);
        let walk = Walk::new().providers([1, 2], |id, row| {
            row.priority = i32::try_from(id).expect("small");
            (row.max_attempts, row.total_timeout) = (Some(1), if id == 1 { second } else { Duration::ZERO });
        });
        let walk = walk.start().await;
        walk.host(1).always(Reply::never());
        walk.host(2).always(answer(used(7, 1)));
        assert_eq!(walk.send(turn("a")).await.status, 200);
        let records = walk.records().await;
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((record.provider_id, record.cost), (Some(ProviderId(2)), milli(9)));
    });
}

#[test]
fn a_reservation_counts_the_dearest_multiplier_of_the_callers_providers() {
    run(async {
        for (dearest, second) in [(1, 200), (10, 402)] {
            let walk = Walk::new().providers([1, 2, 3], |id, row| {
                row.priority = i32::try_from(id).expect("small");
                row.cost_multiplier = if id == 1 { Decimal::ONE } else { dearest.into() };
                // Not the caller's.
                (row.enabled, row.cost_multiplier) =
                    if id == 3 { (false, Decimal::ONE_THOUSAND) } else { (true, row.cost_multiplier) };
            });
            let walk = walk.rows(|rows| rows.users[0].limits = vec![usd(1_000)]).start().await;
            walk.host(1).next(answer(used(1, 1)).after(Duration::from_secs(9)));
            walk.host(1).always(answer(used(1, 1)));
            let first = walk.begin(ask("m"));
            walk.quiet().await;
            assert_eq!(walk.send(ask("m")).await.status, second, "at {dearest} times the price");
            assert_eq!(first.await.expect("an answer").status, 200);
        }
    });
}

#[test]
fn who_names_models_to_fall_back_to_pays_the_one_that_served() {
    run(async {
        let walk = family(Unpriced::Ceiling).await;
        let mut answer =
            json!({ "id": "msg_1", "type": "message", "model": "big-one", "usage": used(100, 10) });
        answer["content"] = json!([{ "type": "text", "text": "hi" }]);
        walk.host(1).always(Reply::json(200, answer));
        for (others, cost) in [(None, milli(390)), (Some(json!(["big-one"])), milli(550))] {
            let mut body = request(Dialect::Anthropic, "big-two", false);
            if let Some(others) = others {
                body["models"] = others;
            }
            walk.send(Call::post("/v1/messages", body.to_string())).await;
            assert_eq!(walk.records().await[0].cost, cost);
        }
    });
}

#[test]
fn fast_mode_is_billed_as_the_answer_says() {
    run(async {
        for (asked, said, times) in [
            (None, None, 1),
            (Some("fast"), Some("fast"), 6),
            (None, Some("fast"), 6),
            (Some("fast"), Some("standard"), 1),
            // A provider that does not know it.
            (Some("fast"), None, 1),
        ] {
            let walk = Walk::new().providers([1], |_, _| {}).start().await;
            let mut usage = json!({"input_tokens": 10, "output_tokens": 5});
            let mut body = request(Dialect::Anthropic, "m", false);
            said.into_iter().for_each(|speed| usage["speed"] = json!(speed));
            asked.into_iter().for_each(|speed| body["speed"] = json!(speed));
            let answer = json!({"type": "message", "model": "m", "content": [{"type": "text", "text": "hi"}],
                "usage": usage});
            walk.host(1).next(Reply::json(200, answer));
            assert_eq!(walk.post("/v1/messages", body).await.status, 200);
            // A milli-USD per token of input, two per token of output.
            let cost = walk.records().await[0].cost;
            assert_eq!(cost, Some(Decimal::new(20 * times, 3)), "{asked:?} {said:?}");
            assert_eq!(walk.host(1).seen()[0].json().get("speed").is_some(), asked.is_some());
        }
    });
}
