//! Of several proxies one does what needs doing once, and another when that one is gone.

use super::redis_server::RedisServer;
use std::time::Duration;

#[tokio::test]
async fn of_two_proxies_one_is_elected_and_the_other_within_the_life_of_its_key() {
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(600));
    let server = RedisServer::start();
    let (first, second) = (server.store().await, server.store().await);
    assert!(first.elected("probe:1", short).await.unwrap());
    assert!(first.elected("probe:2", long).await.unwrap());
    // As long as the key lives nobody else is elected, nor is its holder a second time.
    assert!(!second.elected("probe:2", long).await.unwrap());
    assert!(!first.elected("probe:2", long).await.unwrap());
    assert!(second.elected("probe:3", long).await.unwrap(), "another provider's");
    // The first one dies; it need not give its place back.
    drop(first);
    while !second.elected("probe:1", short).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
