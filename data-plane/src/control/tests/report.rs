//! Usage records on their way to the control plane, and what it is asked about money.

use super::fake::{Dir, Fake, config};
use crate::control::Link;
use crate::store::SpentQuery;
use contract::ids::{KeyId, ProviderId, UserId};
use contract::table::Scope;
use tokio::runtime::Handle;

#[tokio::test]
async fn the_ledger_answers_question_by_question() {
    let (fake, dir) = (Fake::start().await, Dir::new());
    let link = Link::new(&config(fake.address, &dir), &Handle::current()).expect("link");
    let ask = |scope, since_ms| SpentQuery { scope, since_ms, bucket_ms: 0 };
    let queries = [ask(Scope::User(UserId(3)), 7), ask(Scope::Provider(ProviderId(4)), 8)];
    let spent = link.ledger().spent(&queries).await.expect("answer");
    assert_eq!(spent, [[(7, 300)], [(8, 400)]]);
    // The fake leaves out the question about id 0.
    let error = link.ledger().spent(&[ask(Scope::Key(KeyId(0)), 0)]).await.expect_err("one too few");
    assert!(error.to_string().contains("one answer per question"), "{error}");
}
