//! How far raw events are, kept in the data folder: where the host has its own journal, or its state to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::delta::{SourceId, SourceRange, Uncounted};
use crate::store::clickhouse::RawRange;
use crate::store::embedded::Embedded;
use crate::store::{Position, StoreError};

const META_SENT: &str = "raw/sent";
const META_PENDING: &str = "raw/pending";
const META_UNCOUNTED: &str = "raw/uncounted-bytes";
/// Of which sources it was asked what has arrived before.
const META_SURE: &str = "raw/sure";
/// Where the last event of each source stood that has arrived.
const META_LAST: &str = "raw/last";
/// Lines in memory that were not counted, at some 30 bytes each, while their events wait.
const UNCOUNTED_LINES_MAX: usize = 8_000_000;
/// Of those, lines of events that are sent again.
pub const JUDGED_LINES_MAX: usize = UNCOUNTED_LINES_MAX / 2;

pub struct Folder {
    embedded: Arc<Embedded>,
    /// By source the position of the batch or message and the byte of it where the line begins.
    uncounted: Mutex<BTreeMap<SourceId, BTreeSet<(u64, u32)>>>,
    progress: Mutex<Progress>,
}

#[derive(Clone, Default)]
pub struct Progress {
    /// Where each source goes on.
    pub sent: BTreeMap<SourceId, u64>,
    /// What is being sent.
    pub pending: Vec<RawRange>,
    /// Where the last event of each source stood that has arrived, as far as that is known.
    pub last: BTreeMap<SourceId, u64>,
    /// Somebody may have sent some of this log before this folder was begun: sources of which that was asked. `None`: nobody.
    pub sure: Option<BTreeSet<SourceId>>,
}

/// The host runs without ClickHouse: what it counts now is never sent, and a later start with ClickHouse is to know that.
pub fn leave(embedded: &Embedded) -> Result<(), StoreError> {
    if stored::<Option<Vec<(SourceId, u64)>>>(embedded, META_SENT)?.flatten().is_some() {
        tracing::warn!("without ClickHouse: raw events of the time until it is back will not be there");
        put(embedded, META_SENT, &None::<Vec<(SourceId, u64)>>)?;
    }
    Ok(())
}

impl Folder {
    /// Goes on where the last run ended. `positions`: the checkpoint's. Where there was no last run, it begins there. `shared`:
    /// a folder that was lost may have sent some of this log before.
    pub fn open(embedded: Arc<Embedded>, positions: &[Position], shared: bool) -> Result<Self, StoreError> {
        let next: BTreeMap<SourceId, u64> = positions.iter().map(|at| (at.source, at.next)).collect();
        let sent = stored::<Option<Vec<(SourceId, u64)>>>(&embedded, META_SENT)?;
        let mut progress = Progress::default();
        let mut uncounted = BTreeMap::<SourceId, BTreeSet<(u64, u32)>>::new();
        if let Some(Some(sent)) = sent {
            progress.sent = sent.into_iter().collect();
            progress.pending = stored(&embedded, META_PENDING)?.unwrap_or_default();
            progress.sure = stored(&embedded, META_SURE)?.flatten();
            let last: Vec<(SourceId, u64)> = stored(&embedded, META_LAST)?.unwrap_or_default();
            progress.last = last.into_iter().collect();
            let lines: Vec<Uncounted> = stored(&embedded, META_UNCOUNTED)?.unwrap_or_default();
            // What is behind the checkpoint is counted again, and may be judged otherwise.
            let lines = lines.into_iter().filter(|(source, at, _)| next.get(source).is_some_and(|next| at < next));
            for (source, position, start) in lines {
                uncounted.entry(source).or_default().insert((position, start));
            }
        } else {
            progress.sure = (shared && sent.is_none() && next.is_empty()).then(BTreeSet::new);
            put(&embedded, META_SURE, &progress.sure)?;
            progress.sent = next;
            put(&embedded, META_SENT, &Some(progress.sent.iter().collect::<Vec<_>>()))?;
        }
        Ok(Self { embedded, uncounted: Mutex::new(uncounted), progress: Mutex::new(progress) })
    }

    /// What of these ranges was not counted, in the place of what was said of them before.
    pub fn note(&self, ranges: &[SourceRange], uncounted: Vec<Uncounted>) {
        let mut kept = self.lines();
        for range in ranges {
            if let Some(lines) = kept.get_mut(&range.source) {
                let mut from = lines.split_off(&(range.from, 0));
                lines.append(&mut from.split_off(&(range.to, 0)));
            }
        }
        for (source, position, start) in uncounted {
            kept.entry(source).or_default().insert((position, start));
        }
    }

    /// Before positions that cover them are durable.
    pub fn save(&self) -> Result<(), StoreError> {
        let lines: Vec<Uncounted> = {
            let kept = self.lines();
            let of = |(source, lines): (&SourceId, &BTreeSet<(u64, u32)>)| {
                let source = *source;
                lines.iter().map(move |(position, start)| (source, *position, *start)).collect::<Vec<_>>()
            };
            kept.iter().flat_map(of).collect()
        };
        put(&self.embedded, META_UNCOUNTED, &lines)
    }

    /// So many lines wait with their events that no more is to be counted.
    pub fn is_full(&self) -> bool {
        self.lines().values().map(BTreeSet::len).sum::<usize>() >= UNCOUNTED_LINES_MAX
    }

    /// Lines of a range that were not counted, ascending.
    pub fn uncounted(&self, source: SourceId, from: u64, to: u64) -> Vec<(u64, u32)> {
        let kept = self.lines();
        kept.get(&source).into_iter().flat_map(|lines| lines.range((from, 0)..(to, 0))).copied().collect()
    }

    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    pub fn sent(&self, source: SourceId) -> u64 {
        self.lock().sent.get(&source).copied().unwrap_or(0)
    }

    /// These ranges are about to be sent as one block.
    pub fn pending(&self, ranges: &[RawRange]) -> Result<(), StoreError> {
        let mut progress = self.lock();
        let Progress { sent, pending, .. } = &mut *progress;
        let from = |source: &SourceId| sent.get(source).copied().unwrap_or(0);
        let others = |range: &RawRange| !ranges.iter().any(|new| new.0 == range.0) && from(&range.0) == range.1;
        pending.retain(others);
        pending.extend(ranges);
        put(&self.embedded, META_PENDING, &*pending)
    }

    /// They have arrived; `last`: where the last event of each source stood that had some.
    pub fn arrived(&self, ranges: &[RawRange], last: &[(SourceId, u64)]) -> Result<(), StoreError> {
        let mut progress = self.lock();
        progress.sent.extend(ranges.iter().map(|(source, _, to)| (*source, *to)));
        progress.pending.retain(|range| !ranges.iter().any(|arrived| arrived.0 == range.0));
        progress.last.extend(last.iter().copied());
        self.keep(&progress)?;
        self.drop_sent(&progress);
        Ok(())
    }

    /// What has arrived by source, as was asked: all before these positions, and where the last event stood.
    pub fn reached(&self, next: &[(SourceId, u64, Option<u64>)]) -> Result<(), StoreError> {
        let mut progress = self.lock();
        for (source, next, last) in next {
            let sent = progress.sent.entry(*source).or_default();
            *sent = (*sent).max(*next);
            progress.last.extend(last.map(|last| (*source, last)));
        }
        if let Some(sure) = &mut progress.sure {
            sure.extend(next.iter().map(|(source, _, _)| *source));
        }
        self.keep(&progress)?;
        put(&self.embedded, META_SURE, &progress.sure)?;
        self.drop_sent(&progress);
        Ok(())
    }

    /// What had arrived is gone: sending begins again at these positions. `lines`: what was not counted of what was sent from
    /// there on.
    pub fn again(&self, from: &[(SourceId, u64)], lines: &[Uncounted]) -> Result<(), StoreError> {
        let mut progress = self.lock();
        {
            let mut kept = self.lines();
            for (source, position, start) in lines {
                kept.entry(*source).or_default().insert((*position, *start));
            }
        }
        // Before what speaks of them.
        self.save()?;
        for (source, from) in from {
            progress.sent.insert(*source, *from);
            progress.last.remove(source);
            progress.pending.retain(|range| range.0 != *source);
        }
        put(&self.embedded, META_PENDING, &progress.pending)?;
        self.keep(&progress)
    }

    fn keep(&self, progress: &Progress) -> Result<(), StoreError> {
        put(&self.embedded, META_SENT, &Some(progress.sent.iter().collect::<Vec<_>>()))?;
        put(&self.embedded, META_LAST, &progress.last.iter().collect::<Vec<_>>())
    }

    fn drop_sent(&self, progress: &Progress) {
        for (source, lines) in self.lines().iter_mut() {
            if let Some(sent) = progress.sent.get(source) {
                *lines = lines.split_off(&(*sent, 0));
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<SourceId, BTreeSet<(u64, u32)>>> {
        self.uncounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stored<T: DeserializeOwned>(embedded: &Embedded, key: &str) -> Result<Option<T>, StoreError> {
    let Some(bytes) = embedded.meta_get(key)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| StoreError::Corrupt(format!("`{key}` in the data folder is damaged: {error}")))
}

fn put(embedded: &Embedded, key: &str, value: &impl Serialize) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|error| StoreError::Engine(error.to_string()))?;
    embedded.meta_put(key, &bytes)
}
