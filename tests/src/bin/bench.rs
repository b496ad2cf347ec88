//! `make bench`: see `testkit::bench`. Arguments: full (default), quick, method, profile, instructions.

use testkit::bench::run::{Extent, run};

/// One thread, which is the load: the proxy under measurement has the other core.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let word = std::env::args().nth(1);
    run(Extent::parse(word.as_deref())?).await
}
