//! What happens before the first request: wait for Postgres, migrate, make account 1 and the price table.

use super::Error;
use crate::config::{Config, Database};
use crate::db::first_start::{BUNDLED_PRICES, prepare as prepare_rows};
use crate::db::partitions::{Month, make};
use crate::db::pool::connect;
use crate::db::{self, Conn, migrations, rollup};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Runs pending migrations and says how many.
pub async fn migrate(database: &Database) -> Result<usize, Error> {
    let conn = patiently(database).await?;
    Ok(migrations::run_pending(conn).await?)
}

pub(super) async fn prepare(config: &Config) -> Result<(), Error> {
    if config.auto_migrate {
        let count = migrate(&config.database).await?;
        tracing::info!(count, "migrations done");
    }
    let mut conn = patiently(&config.database).await?;
    if prepare_rows(&mut conn, BUNDLED_PRICES).await? {
        tracing::info!("the root owner and the bundled prices are there");
    }
    if rollup::follow_zone(&mut conn, config.time_zone).await? {
        tracing::info!(time_zone = config.time_zone.name(), "the sums are by the days of this time zone now");
    }
    // The first records need not wait for the job in the default partition; where this does not succeed now, as
    // behind somebody's long query, they do.
    if let Err(error) = make(&mut conn, Month::of(chrono::Utc::now())).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "no partition for this month yet");
    }
    Ok(())
}

/// A direct connection; waits for Postgres, which may be starting as well.
async fn patiently(database: &Database) -> Result<Conn, db::Error> {
    let end = Instant::now() + database.start_wait;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match connect(database.direct_url.expose(), database.timeouts, &database.tls).await {
            Ok(conn) => return Ok(conn),
            Err(error) => error,
        };
        if Instant::now() + pause > end {
            return Err(error.into());
        }
        tracing::warn!(error = &error as &dyn std::error::Error, "the database does not answer yet");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
