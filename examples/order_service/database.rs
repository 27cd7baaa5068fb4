//! Connections to a service's database: one, or a few that requests share.
//!
//! A connection that broke is never mended: it is thrown away, and whoever needs one connects again. After a crash of
//! PostgreSQL nothing else is to be done, as what was not committed is gone and what was committed is there.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls};

/// Connects.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to PostgreSQL")?;
    tokio::spawn(async move {
        if let Err(cause) = connection.await {
            eprintln!("a connection to PostgreSQL ended: {cause}");
        }
    });
    Ok(client)
}

/// Connections that requests share.
#[derive(Debug)]
pub(crate) struct Pool {
    url: String,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
}

impl Pool {
    /// At most so many at once.
    pub(crate) fn new(url: &str, size: usize) -> Self {
        Self { url: url.to_owned(), idle: Mutex::default(), permits: Semaphore::new(size) }
    }

    /// One that nobody else has.
    pub(crate) async fn get(&self) -> Result<Lent<'_>> {
        let permit = self.permits.acquire().await?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let client = match idle {
                Some(client) if client.is_closed() => continue,
                Some(client) => client,
                None => connect(&self.url).await?,
            };
            return Ok(Lent { client: Some(client), pool: self, _permit: permit });
        }
    }
}

/// A connection that goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    client: Option<Client>,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Deref for Lent<'_> {
    type Target = Client;
    fn deref(&self) -> &Client {
        self.client.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("it is there until the drop")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
    }
}
