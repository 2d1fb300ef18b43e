//! ClickHouse: history as rollups by minute and by hour that anybody can ask with SQL, and raw events as counted.
//!
//! Knows the tables; not what a metric means. What people read about the tables is in `docs/clickhouse.md`.

mod cells;
mod connection;
mod events;
mod history;
mod lost;
#[cfg(test)]
mod real_clickhouse;
#[cfg(test)]
mod real_clickhouse_month;
mod rows;
mod schema;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use connection::Address;
use connection::Connection;
pub use events::{RawEvent, RawEvents, RawRange};
use schema::Schema;

use super::{Names, StoreError};
use crate::engine::plan::{Fingerprint, StateKind};
use crate::time::Minute;

pub struct ClickHouse {
    connection: Connection,
    schema: Schema,
    /// `None`: the tables were not looked at yet.
    known: Mutex<Option<Known>>,
    /// Minutes and hours before these are past retention.
    kept_from: [AtomicU32; 2],
}

/// What is there, as of when it was looked at last.
#[derive(Default)]
struct Known {
    columns: std::collections::HashSet<String>,
    metrics: HashMap<Fingerprint, Arc<Shape>>,
}

/// A metric as the table `metrics` has it.
#[derive(Debug, PartialEq)]
struct Shape {
    names: Names,
    kinds: Vec<StateKind>,
}

impl ClickHouse {
    /// Sends nothing yet: the tables are made with the first call that needs them, so that a host starts without ClickHouse.
    pub fn new(address: &Address) -> Result<Self, StoreError> {
        Self::with_deadline(address, connection::DEADLINE)
    }

    fn with_deadline(address: &Address, deadline: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            connection: Connection::new(address, deadline)?,
            schema: Schema::new(address),
            known: Mutex::default(),
            kept_from: Default::default(),
        })
    }

    /// Why the last call failed; `None`: it did not.
    pub fn problem(&self) -> Option<String> {
        self.connection.problem()
    }

    /// Makes the tables if that was not done yet.
    pub fn prepare(&self) -> Result<(), StoreError> {
        self.with_known(|_| Ok(()))
    }

    fn with_known<T>(&self, act: impl FnOnce(&mut Known) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.connection.missed() {
            *known = None;
        }
        if known.is_none() {
            self.schema.make(&self.connection)?;
            let columns = self.schema.columns(&self.connection)?;
            *known = Some(Known { columns, metrics: HashMap::new() });
        }
        act(known.get_or_insert_default())
    }

    fn kept_from(&self, resolution: super::Resolution) -> &AtomicU32 {
        &self.kept_from[usize::from(resolution == super::Resolution::Hour)]
    }

    fn note_kept_from(&self, resolution: super::Resolution, from: Minute) {
        self.kept_from(resolution).fetch_max(from.0, Relaxed);
    }
}

/// A minute as `DateTime`.
fn seconds(minute: Minute) -> u32 {
    minute.0.saturating_mul(60)
}
