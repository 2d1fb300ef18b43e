//! Writing the hot store's checkpoint: what changed and the positions it covers in one atomic batch, history before it.
//!
//! Keys of the keyspace `hot`, numbers big endian:
//! `h` head; `l` ledger; `m` fingerprint: shape; `d` fingerprint, day: its combinations; `p` fingerprint, minute: a pane;
//! `v` day, dimension: values kept; `c` day of arrival, dimension: events by value.

use std::sync::{Arc, PoisonError};

use fjall::PersistMode;
use serde::Serialize;

use super::{Embedded, engine};
use crate::engine::plan::Fingerprint;
use crate::store::memory::{DaySnapshot, Dropped, Head, MemoryStore, Snapshot};
use crate::store::{HistoryStore, PaneRecord, StoreError};
use crate::time::Minute;

/// Encoded history that is held before it is written.
const HISTORY_RECORDS_HELD_MAX: usize = 512;

/// What a checkpoint wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub panes: usize,
    pub bytes: usize,
    /// Minutes and hours that went to history.
    pub history: usize,
    /// Why history elsewhere was not written. What it is to have stays in the hot store, and is saved with it.
    pub behind: Option<String>,
}

impl Embedded {
    /// Writes what changed since the last one, with the positions it covers. `durable` makes the log durable: it is called
    /// when the positions are known and before anything is written. Minutes that were closed, and corrections of closed ones,
    /// go to history first: should the host die in between, the same events are applied again and replace them with a higher
    /// version. `elsewhere`: where history is kept, if not here.
    pub fn checkpoint(
        &self,
        memory: &MemoryStore,
        elsewhere: Option<&dyn HistoryStore>,
        durable: &dyn Fn() -> Result<(), StoreError>,
    ) -> Result<Checkpoint, StoreError> {
        let _one = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = memory.snapshot();
        durable()?;
        let mut batch = Batch { embedded: self, elsewhere, batch: self.database.batch(), done: Checkpoint::default() };
        for dropped in &snapshot.dropped {
            batch.batch.remove(&self.hot, dropped_key(dropped));
        }
        batch.panes(&snapshot)?;
        if batch.done.behind.is_some() {
            snapshot.leave_history();
        }
        batch.small(&snapshot)?;
        let done = batch.done;
        batch.batch.commit().map_err(engine)?;
        self.database.persist(PersistMode::SyncAll).map_err(engine)?;
        memory.note_saved(&snapshot);
        Ok(done)
    }

    /// Writes only history, where the state is kept elsewhere.
    pub fn write_history(
        &self,
        mirror: &MemoryStore,
        elsewhere: Option<&dyn HistoryStore>,
        durable: &dyn Fn() -> Result<(), StoreError>,
    ) -> Result<Checkpoint, StoreError> {
        let _one = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = mirror.snapshot();
        durable()?;
        snapshot.panes.iter_mut().for_each(|pane| pane.save = false);
        snapshot.panes.retain(|pane| pane.write);
        let mut batch = Batch { embedded: self, elsewhere, batch: self.database.batch(), done: Checkpoint::default() };
        batch.panes(&snapshot)?;
        if batch.done.behind.is_some() {
            snapshot.leave_history();
        }
        let done = batch.done;
        self.database.persist(PersistMode::SyncAll).map_err(engine)?;
        mirror.note_saved(&snapshot);
        Ok(done)
    }

    pub(super) fn put_head(&self, head: &Head) -> Result<(), StoreError> {
        self.hot.insert("h", json(head)?).map_err(engine)?;
        self.database.persist(PersistMode::SyncAll).map_err(engine)
    }
}

struct Batch<'e> {
    embedded: &'e Embedded,
    elsewhere: Option<&'e dyn HistoryStore>,
    batch: fjall::OwnedWriteBatch,
    done: Checkpoint,
}

impl Batch<'_> {
    fn panes(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut history = Vec::new();
        // What goes to history first: once that fails, no more is made for it.
        let (write, save): (Vec<_>, Vec<_>) = snapshot.panes.iter().partition(|pane| pane.write);
        for pane in write.into_iter().chain(save) {
            if !pane.save && self.done.behind.is_some() {
                continue;
            }
            let bytes = pane.encode()?;
            if pane.save {
                let mut value = pane.seq.to_le_bytes().to_vec();
                value.extend_from_slice(&bytes);
                self.done.panes += 1;
                self.insert(pane_key(pane.fingerprint, pane.minute), value);
            }
            if pane.write {
                history.push(pane.record(bytes));
                self.flush(&mut history, HISTORY_RECORDS_HELD_MAX)?;
            }
        }
        for hour in &snapshot.hours {
            if self.done.behind.is_some() {
                break;
            }
            history.push(hour.record()?);
            self.flush(&mut history, HISTORY_RECORDS_HELD_MAX)?;
        }
        self.flush(&mut history, 0)
    }

    fn flush(&mut self, history: &mut Vec<PaneRecord>, held_max: usize) -> Result<(), StoreError> {
        if history.len() <= held_max {
            return Ok(());
        }
        let written = match self.elsewhere {
            _ if self.done.behind.is_some() => Ok(()),
            Some(elsewhere) => elsewhere.write(history),
            None => self.embedded.history.put(&*history),
        };
        match written {
            // Whatever was written before is written again: that does no harm.
            Err(StoreError::Unavailable(reason)) => (self.done.behind, self.done.history) = (Some(reason), 0),
            Err(error) => return Err(error),
            Ok(()) if self.done.behind.is_none() => self.done.history += history.len(),
            Ok(()) => {}
        }
        history.clear();
        Ok(())
    }

    fn small(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        for (fingerprint, shape) in &snapshot.metrics {
            self.insert(metric_key(*fingerprint), json(shape)?);
        }
        for (fingerprint, day, combinations) in &snapshot.days {
            self.insert(day_key(*fingerprint, *day), day_value(combinations)?);
        }
        for (name, day, kept) in &snapshot.kept_values {
            self.insert(value_key(b'v', *day, name), json(kept)?);
        }
        for (name, day, counts) in &snapshot.counts {
            self.insert(value_key(b'c', *day, name), json(counts)?);
        }
        if let Some(ledger) = &snapshot.ledger {
            self.insert(b"l".to_vec(), json(ledger)?);
        }
        self.insert(b"h".to_vec(), json(&snapshot.head)?);
        Ok(())
    }

    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.done.bytes += value.len();
        self.batch.insert(&self.embedded.hot, key, value);
    }
}

/// Full combinations that count to the limit as `u32`, those with only the first value as `u32`, cells over as `u64`, the combinations.
fn day_value(combinations: &DaySnapshot) -> Result<Vec<u8>, StoreError> {
    let day = &combinations.day;
    let mut value = day.kept.to_le_bytes().to_vec();
    value.extend_from_slice(&day.firsts.to_le_bytes());
    value.extend_from_slice(&day.over.to_le_bytes());
    value.extend(combinations.encode_combinations()?);
    Ok(value)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Engine(error.to_string()))
}

fn metric_key(fingerprint: Fingerprint) -> Vec<u8> {
    [b"m", fingerprint.0.to_be_bytes().as_slice()].concat()
}

fn day_key(fingerprint: Fingerprint, day: u32) -> Vec<u8> {
    [b"d", fingerprint.0.to_be_bytes().as_slice(), &day.to_be_bytes()].concat()
}

fn pane_key(fingerprint: Fingerprint, minute: Minute) -> Vec<u8> {
    [b"p", fingerprint.0.to_be_bytes().as_slice(), &minute.0.to_be_bytes()].concat()
}

fn value_key(kind: u8, day: u32, name: &Arc<str>) -> Vec<u8> {
    [&[kind], day.to_be_bytes().as_slice(), name.as_bytes()].concat()
}

fn dropped_key(dropped: &Dropped) -> Vec<u8> {
    match dropped {
        Dropped::Metric(fingerprint) => metric_key(*fingerprint),
        Dropped::Day(fingerprint, day) => day_key(*fingerprint, *day),
        Dropped::Pane(fingerprint, minute) => pane_key(*fingerprint, *minute),
        Dropped::KeptValues(name, day) => value_key(b'v', *day, name),
        Dropped::Counts(name, day) => value_key(b'c', *day, name),
    }
}
