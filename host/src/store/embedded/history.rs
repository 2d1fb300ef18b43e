//! History: minutes and hours by metric, in the embedded database.
//!
//! Key: fingerprint, resolution (1 minute, 2 hour), start in minutes; big endian. Value: version as `u64`, little endian, and the pane.

use std::ops::Range;

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode, UserKey, UserValue};

use super::engine;
use crate::engine::plan::Fingerprint;
use crate::store::pane::decode;
use crate::store::{HistoryStore, PaneRecord, PaneRequest, Resolution, StoreError, StoredPane};
use crate::time::{DAY_MS, Millis, Minute};

pub const MINUTES_KEPT_DAYS: i64 = 7;
pub const HOURS_KEPT_DAYS: i64 = 400;

/// One batch holds at most about as much.
const BATCH_BYTES: usize = 16 << 20;
const KEY_BYTES: usize = 13;

pub struct History {
    database: Database,
    panes: Keyspace,
}

impl History {
    pub(super) fn new(database: Database, panes: Keyspace) -> Self {
        Self { database, panes }
    }

    /// Written, but durable only with the next `persist`.
    pub(super) fn put<'p>(&self, records: impl IntoIterator<Item = &'p PaneRecord>) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        let mut bytes = 0;
        for record in records {
            let key = key(record.fingerprint, record.resolution, record.start);
            let stored =
                self.panes.get(key).map_err(engine)?.and_then(|value| split(&value).map(|(version, _)| version));
            if stored.is_some_and(|stored| stored > record.version) {
                continue;
            }
            let mut value = record.version.to_le_bytes().to_vec();
            value.extend_from_slice(&record.bytes);
            bytes += value.len();
            batch.insert(&self.panes, key, value);
            if bytes > BATCH_BYTES {
                std::mem::replace(&mut batch, self.database.batch()).commit().map_err(engine)?;
                bytes = 0;
            }
        }
        batch.commit().map_err(engine)
    }

    fn expire_before(
        &self,
        batch: &mut OwnedWriteBatch,
        from: [u8; KEY_BYTES],
        to: [u8; KEY_BYTES],
    ) -> Result<(), StoreError> {
        for guard in self.panes.range(from..to) {
            let key: UserKey = guard.key().map_err(engine)?;
            batch.remove(&self.panes, key);
        }
        Ok(())
    }

    /// The first fingerprint from this one on that has panes.
    fn fingerprint_from(&self, from: u64) -> Result<Option<Fingerprint>, StoreError> {
        let first = self.panes.range(from.to_be_bytes().as_slice()..).next();
        let key: Option<UserKey> = first.map(|guard| guard.key()).transpose().map_err(engine)?;
        Ok(key.and_then(|key| key.first_chunk().map(|bytes| Fingerprint(u64::from_be_bytes(*bytes)))))
    }
}

impl HistoryStore for History {
    fn write(&self, panes: &[PaneRecord]) -> Result<(), StoreError> {
        self.put(panes)?;
        self.database.persist(PersistMode::SyncAll).map_err(engine)
    }

    fn read(
        &self,
        request: &PaneRequest<'_>,
        each: &mut dyn FnMut(StoredPane) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let &PaneRequest { fingerprint, resolution, wanted, steps: Range { start, end }, .. } = request;
        if start >= end {
            return Ok(());
        }
        let range = key(fingerprint, resolution, start)..key(fingerprint, resolution, end);
        for guard in self.panes.range(range) {
            let (key, value): (UserKey, UserValue) = guard.into_inner().map_err(engine)?;
            let start = key.last_chunk().map(|bytes| Minute(u32::from_be_bytes(*bytes)));
            let (Some(start), Some((version, bytes))) = (start, split(&value)) else {
                return Err(StoreError::Corrupt("an entry of history is cut off".into()));
            };
            each(StoredPane { start, version, content: decode(bytes, wanted)? })?;
        }
        Ok(())
    }

    fn expire(&self, now: Millis) -> Result<(), StoreError> {
        let before = |days: i64| Minute::of(now.saturating_sub(days * DAY_MS)).hour();
        let limits = [(Resolution::Minute, before(MINUTES_KEPT_DAYS)), (Resolution::Hour, before(HOURS_KEPT_DAYS))];
        let mut next = Some(0);
        while let Some(from) = next {
            let Some(fingerprint) = self.fingerprint_from(from)? else { break };
            let mut batch = self.database.batch();
            for (resolution, before) in limits {
                let (from, to) = (key(fingerprint, resolution, Minute(0)), key(fingerprint, resolution, before));
                self.expire_before(&mut batch, from, to)?;
            }
            batch.commit().map_err(engine)?;
            next = fingerprint.0.checked_add(1);
        }
        Ok(())
    }
}

fn key(fingerprint: Fingerprint, resolution: Resolution, start: Minute) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&fingerprint.0.to_be_bytes());
    key[8] = match resolution {
        Resolution::Minute => 1,
        Resolution::Hour => 2,
    };
    key[9..].copy_from_slice(&start.0.to_be_bytes());
    key
}

fn split(value: &[u8]) -> Option<(u64, &[u8])> {
    let (version, bytes) = value.split_first_chunk()?;
    Some((u64::from_le_bytes(*version), bytes))
}
