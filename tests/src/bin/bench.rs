//! `make bench`: see `testkit::bench`. Arguments: full (default), quick, method, profile, instructions, api.

use testkit::bench::run::{Extent, run};

/// One thread, which is the load: the proxy under measurement has the other core.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let word = std::env::args().nth(1);
    if word.as_deref() == Some("api") {
        return testkit::bench::api::run().await;
    }
    run(Extent::parse(word.as_deref())?).await
}
