//! One ClickHouse server over HTTP: statements, answers, inserts, each with a deadline. Called from blocking threads: it owns
//! the small runtime that its client needs. Knows SQL as text; not what tables mean.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clickhouse::error::Error;
use tokio::runtime::{Builder, Runtime};

use crate::store::StoreError;

/// A statement or a piece of an answer that takes longer is given up; whether it was done is then not known.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Compressed and sent at once.
const PIECE_BYTES: usize = 1 << 20;
/// An insert is one block, so that it is there whole or not at all in each partition.
pub const BLOCK_ROWS_MAX: usize = 4_000_000;
const BLOCK_BYTES_MAX: usize = 1 << 30;
/// As ClickHouse calls what fails where tables were dropped.
const MISSING: [&str; 3] = ["UNKNOWN_TABLE", "UNKNOWN_DATABASE", "TABLE_IS_DROPPED"];
const EVENTS_DAYS_DEFAULT: u32 = 30;
pub const DATABASE_DEFAULT: &str = "tidemark";

/// `http://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE][?cluster=NAME&events_days=30]`
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Scheme, host and port.
    pub server: String,
    pub user: String,
    pub password: String,
    pub database: String,
    /// Tables are made `ON CLUSTER` of this name, replicated.
    pub cluster: Option<String>,
    /// How long raw events are kept, as of when their table is made.
    pub events_days: u32,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| format!("`{text}` is no address: {error}"))?;
        if url.scheme() != "http" {
            return Err(format!("`{}` is not spoken to ClickHouse: http is, and TLS is a proxy's", url.scheme()));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("the address has no host")?;
        let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut address = Self {
            server: format!("http://{host}:{}", url.port().unwrap_or(8123)),
            user: plain(url.username()),
            password: plain(url.password().unwrap_or_default()),
            database: plain(url.path().trim_matches('/')),
            cluster: None,
            events_days: EVENTS_DAYS_DEFAULT,
        };
        if address.database.is_empty() {
            address.database = DATABASE_DEFAULT.into();
        }
        for (name, value) in url.query_pairs() {
            match &*name {
                "cluster" => address.cluster = Some(value.into_owned()),
                "events_days" => match value.parse() {
                    Ok(days @ 1..=36_500) => address.events_days = days,
                    _ => return Err(format!("`events_days={value}`: a number of days, at least 1")),
                },
                other => {
                    return Err(format!("`{other}` is no setting of the address: `cluster` and `events_days` are"));
                }
            }
        }
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if let Some(name) = std::iter::once(&address.database).chain(&address.cluster).find(|name| !is_name(name)) {
            return Err(format!("`{name}` is no name: letters, digits, `_` and `-` make one"));
        }
        Ok(address)
    }
}

pub struct Connection {
    client: clickhouse::Client,
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
    /// Why the last call failed.
    problem: Mutex<Option<String>>,
    /// A table or the database was not there.
    missing: AtomicBool,
    server: String,
    deadline: Duration,
}

impl Connection {
    /// Sends nothing yet.
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, StoreError> {
        let mut client = clickhouse::Client::default().with_url(&address.server);
        if !address.user.is_empty() {
            client = client.with_user(&address.user);
        }
        if !address.password.is_empty() {
            client = client.with_password(&address.password);
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (problem, missing) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { client, runtime: Some(runtime), problem, missing, server: address.server.clone(), deadline })
    }

    /// Why the last call failed; `None`: it did not.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether something that was to be there was not, since this was last asked.
    pub fn missed(&self) -> bool {
        self.missing.swap(false, Relaxed)
    }

    pub fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.run(self.client.query_raw(sql).execute())
    }

    /// The answer's rows as `RowBinary`, piece by piece.
    pub fn fetch(&self, sql: &str, mut each: impl FnMut(Bytes) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut cursor = match self.client.query_raw(sql).fetch_bytes("RowBinary") {
            Ok(cursor) => cursor,
            Err(error) => return self.run(async { Err(error) }),
        };
        while let Some(piece) = self.run(cursor.next())? {
            each(piece)?;
        }
        Ok(())
    }

    pub fn fetch_all(&self, sql: &str) -> Result<Vec<u8>, StoreError> {
        let mut all = Vec::new();
        self.fetch(sql, |piece| {
            all.extend_from_slice(&piece);
            Ok(())
        })?;
        Ok(all)
    }

    /// Inserts rows in `RowBinary` as one block, synchronously. Repeated with the same token it is there once. `into`: the
    /// table and its columns.
    pub fn insert(&self, into: &str, token: &str, rows: &[u8]) -> Result<(), StoreError> {
        let block_rows = BLOCK_ROWS_MAX.to_string();
        let mut insert = self
            .client
            .insert_formatted_with(format!("INSERT INTO {into} FORMAT RowBinary"))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token)
            .with_setting("max_insert_block_size", &block_rows)
            .with_setting("min_insert_block_size_rows", &block_rows)
            .with_setting("min_insert_block_size_bytes", BLOCK_BYTES_MAX.to_string());
        self.run(async {
            for piece in rows.chunks(PIECE_BYTES) {
                insert.send(Bytes::copy_from_slice(piece)).await?;
            }
            insert.end().await
        })
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        let runtime = self.runtime.as_ref().expect("taken only by drop");
        let outcome = runtime.block_on(async {
            tokio::time::timeout(self.deadline, work)
                .await
                .unwrap_or(Err(Error::TimedOut))
                .map_err(|error| self.say(&error))
        });
        let problem = outcome.as_ref().err().map(ToString::to_string);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        outcome
    }

    fn say(&self, error: &Error) -> StoreError {
        let server = &self.server;
        StoreError::Unavailable(match error {
            Error::BadResponse(text) => {
                if MISSING.iter().any(|name| text.contains(name)) {
                    self.missing.store(true, Relaxed);
                }
                format!("ClickHouse at {server} refuses: {}", text.trim())
            }
            Error::TimedOut => format!("ClickHouse at {server} does not answer within {} s", self.deadline.as_secs()),
            other => {
                let mut text = format!("ClickHouse at {server} cannot be reached: {other}");
                let mut cause = std::error::Error::source(other).and_then(std::error::Error::source);
                while let Some(inner) = cause {
                    text = format!("{text}: {inner}");
                    cause = inner.source();
                }
                text
            }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Wherever it is dropped: waiting for its tasks is not allowed in another runtime.
            runtime.shutdown_background();
        }
    }
}

/// As SQL reads it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
