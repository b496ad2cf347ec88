//! The pool of Postgres connections.
//!
//! A connection's socket is driven by the runtime that opened it, and each actix worker is a runtime of its
//! own that ends before the pool does; so every connection is opened on the main runtime, whoever asks.

use super::Error;
use crate::config;
use diesel::ConnectionError;
use diesel_async::pooled_connection::deadpool::{self, Hook, HookError, Object};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use std::str::FromStr;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What queries run on.
pub type Conn = AsyncPgConnection;

/// A connection on loan; it returns to the pool when dropped.
pub type Loan = Object<AsyncPgConnection>;

/// Hands out connections within a bounded time. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: deadpool::Pool<AsyncPgConnection>,
    wait: Duration,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("status", &self.inner.status()).finish()
    }
}

impl Pool {
    /// A pool that connects lazily, on `main`, which must outlive it.
    pub fn new(settings: &config::Database, main: Handle) -> Self {
        let (limits, tls) = (settings.timeouts, settings.tls.clone());
        let mut config = ManagerConfig::default();
        // Whether the last transaction ended and the socket is open is known without a round trip.
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |url| {
            let (url, main, tls) = (url.to_owned(), main.clone(), tls.clone());
            async move {
                let opened = main.spawn(async move { connect(&url, limits, &tls).await });
                opened.await.map_err(|gone| ConnectionError::BadConnection(gone.to_string()))?
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(settings.url.expose(), config);
        let lifetime = settings.max_lifetime;
        let retire = Hook::sync_fn(move |_, metrics| match metrics.age() > lifetime {
            true => Err(HookError::message("retired by age")),
            false => Ok(()),
        });
        let inner = deadpool::Pool::builder(manager)
            .max_size(settings.max_connections)
            .pre_recycle(retire)
            .build()
            .expect("a pool without timeouts of its own needs no runtime, which is all that build checks");
        Self { inner, wait: settings.wait }
    }

    /// A connection for a change.
    pub async fn write(&self) -> Result<Loan, Error> {
        self.get().await
    }

    /// A connection for reading only; a replica may serve it one day.
    pub async fn read(&self) -> Result<Loan, Error> {
        self.get().await
    }

    /// Closes idle connections and hands out no more.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Connections in use and open, for the metrics.
    pub fn usage(&self) -> (usize, usize) {
        let status = self.inner.status();
        (status.size.saturating_sub(status.available), status.size)
    }

    async fn get(&self) -> Result<Loan, Error> {
        match timeout(self.wait, self.inner.get()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(error)) => Err(Error::Unavailable(error.into())),
            Err(_) => Err(Error::Busy),
        }
    }
}

/// One connection outside the pool, with the same limits; for migrations and LISTEN.
pub async fn connect(
    url: &str,
    limits: config::DatabaseTimeouts,
    tls: &config::DatabaseTls,
) -> Result<Conn, ConnectionError> {
    let late = || ConnectionError::BadConnection("no connection in time".to_owned());
    timeout(limits.connect, establish(url, limits, tls)).await.map_err(|_| late())?
}

async fn establish(
    url: &str,
    limits: config::DatabaseTimeouts,
    tls: &config::DatabaseTls,
) -> Result<Conn, ConnectionError> {
    let bad = |error: tokio_postgres::Error| ConnectionError::BadConnection(explain(&error));
    let settings = tokio_postgres::Config::from_str(url).map_err(bad)?;
    let mut conn = match settings.get_ssl_mode() {
        SslMode::Require => {
            let tls = MakeRustlsConnect::new(tls.client());
            let (client, connection) = settings.connect(tls).await.map_err(bad)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await?
        }
        // Most servers of one machine have a certificate that nobody signed: who wants TLS says so.
        _ => AsyncPgConnection::establish(url).await?,
    };
    // Hours are hours of UTC, whatever the server calls home. Dropping a future does not stop its query; the limits do.
    let settings = format!(
        "SET TIME ZONE 'UTC'; SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}",
        limits.statement.as_millis(),
        limits.lock.as_millis(),
        limits.idle_in_transaction.as_millis(),
    );
    conn.batch_execute(&settings).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// The error with its causes: that of a refused certificate says only "error performing TLS handshake".
fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
