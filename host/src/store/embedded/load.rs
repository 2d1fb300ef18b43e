//! Loading the hot store's checkpoint: the start of a recovery. The log after its positions is the rest.

use std::sync::Arc;

use fjall::{UserKey, UserValue};
use serde::de::DeserializeOwned;

use super::{Embedded, engine};
use crate::engine::plan::Fingerprint;
use crate::store::memory::{Head, MemoryStore, Restore, StoredDay};
use crate::store::pane::{Wanted, decode};
use crate::store::{HistoryStore, Seq, StoreError};
use crate::time::Minute;

/// Change numbers skip as many at a start: those that were given out after the checkpoint and before a crash never mean
/// something else afterwards, and what history was given in between is older than what replaces it.
const SEQ_GAP: Seq = 1_000_000;

impl Embedded {
    /// The hot store as of the last checkpoint; an empty one where there was none.
    pub fn load(&self) -> Result<MemoryStore, StoreError> {
        self.load_with(self.history.clone())
    }

    /// The same, with history kept elsewhere.
    pub fn load_with(&self, history: Arc<dyn HistoryStore>) -> Result<MemoryStore, StoreError> {
        let mut restore = Restore::default();
        let mut head: Head = self.hot.get("h").map_err(engine)?.map_or(Ok(Head::default()), |head| json(&head))?;
        head.seq += SEQ_GAP;
        // Noted before any of these numbers is given out.
        self.put_head(&head)?;
        restore.head(head);
        if let Some(ledger) = self.hot.get("l").map_err(engine)? {
            restore.ledger(json(&ledger)?);
        }
        // In this order: shapes before days, days before panes.
        for kind in [b'm', b'd', b'v', b'c', b'p'] {
            for guard in self.hot.prefix([kind]) {
                let (key, value): (UserKey, UserValue) = guard.into_inner().map_err(engine)?;
                restore_entry(&mut restore, kind, &key[1..], &value)?;
            }
        }
        Ok(restore.finish(Some(history)))
    }
}

fn restore_entry(restore: &mut Restore, kind: u8, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    match kind {
        b'm' => restore.metric(fingerprint(key)?.0, json(value)?),
        b'd' => {
            let (fingerprint, day) = fingerprint(key)?;
            return restore.day(fingerprint, number(day)?, stored_day(value)?);
        }
        b'p' => {
            let (fingerprint, minute) = fingerprint(key)?;
            let (seq, bytes) = value.split_first_chunk().ok_or_else(cut_off)?;
            let (minute, seq) = (Minute(number(minute)?), u64::from_le_bytes(*seq));
            return restore.pane(fingerprint, minute, seq, decode(bytes, Wanted::All)?);
        }
        _ => {
            let (day, name) = key.split_at_checked(4).ok_or_else(cut_off)?;
            let name: Arc<str> = std::str::from_utf8(name).map_err(|_| cut_off())?.into();
            if kind == b'v' {
                restore.kept_values(name, number(day)?, json(value)?);
            } else {
                restore.counts(name, number(day)?, json(value)?);
            }
        }
    }
    Ok(())
}

fn stored_day(value: &[u8]) -> Result<StoredDay, StoreError> {
    let (kept, rest) = value.split_first_chunk().ok_or_else(cut_off)?;
    let (firsts, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
    let (over, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
    Ok(StoredDay {
        kept: u32::from_le_bytes(*kept),
        firsts: u32::from_le_bytes(*firsts),
        over: u64::from_le_bytes(*over),
        combinations: decode(rest, Wanted::All)?,
    })
}

fn fingerprint(key: &[u8]) -> Result<(Fingerprint, &[u8]), StoreError> {
    let (fingerprint, rest) = key.split_first_chunk().ok_or_else(cut_off)?;
    Ok((Fingerprint(u64::from_be_bytes(*fingerprint)), rest))
}

fn number(key: &[u8]) -> Result<u32, StoreError> {
    key.try_into().map(u32::from_be_bytes).map_err(|_| cut_off())
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt(format!("the checkpoint is damaged: {error}")))
}

fn cut_off() -> StoreError {
    StoreError::Corrupt("an entry of the checkpoint is cut off".into())
}
