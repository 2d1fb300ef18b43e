//! Recovery: the checkpoint's positions, the ids from before them, and the journal from there on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::shards::{Job, Reply, Shards};
use crate::engine::delta::SourceId;
use crate::ingest::journal::{Journal, JournalError, Part};
use crate::store::Position;
use crate::time::Millis;

/// Batches that wait for one shard while more are read.
const WAITING_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
pub struct Recovered {
    pub batches: usize,
    pub ids_batches: usize,
}

/// Feeds the shards from the journal. What they counted is for the next tick to apply.
pub fn recover(
    journal: &Journal,
    shards: &Shards,
    positions: &[Position],
    dedupe_ms: Option<Millis>,
) -> Result<Recovered, JournalError> {
    let positions: HashMap<SourceId, (u64, Millis)> =
        positions.iter().map(|at| (at.source, (at.next, at.arrival))).collect();
    let (batches, ids_batches) = (AtomicUsize::new(0), AtomicUsize::new(0));
    if let Some(span) = dedupe_ms {
        let before = |lane: usize| {
            let &(next, arrival) = positions.get(&(lane as SourceId))?;
            let since = arrival - span;
            Some(Part { lane, from: journal.first_arriving(lane, since), to: next, since })
        };
        feed(journal, shards, &before, &|| {
            ids_batches.fetch_add(1, Relaxed);
            Reply::IdsOnly(None)
        })?;
        // Or one shard would count an event again whose id another is about to remember.
        finished(shards);
    }
    let after = |lane: usize| {
        let from = positions.get(&(lane as SourceId)).map_or(0, |(next, _)| *next);
        Some(Part { lane, from, to: u64::MAX, since: Millis::MIN })
    };
    feed(journal, shards, &after, &|| {
        batches.fetch_add(1, Relaxed);
        Reply::Nobody
    })?;
    finished(shards);
    Ok(Recovered { batches: batches.into_inner(), ids_batches: ids_batches.into_inner() })
}

/// Waits until the shards have done what they were sent.
fn finished(shards: &Shards) {
    while shards.waiting() > 0 {
        std::thread::yield_now();
    }
}

/// One reader a shard, its lanes merged by arrival, so that ids are seen about in the order in which they came.
fn feed(
    journal: &Journal,
    shards: &Shards,
    part: &(dyn Fn(usize) -> Option<Part> + Sync),
    reply: &(dyn Fn() -> Reply + Sync),
) -> Result<(), JournalError> {
    let generation = shards.generation();
    let read = |shard: usize| -> Result<(), JournalError> {
        let own = (0..journal.lanes()).filter(|lane| shards.owner(*lane as SourceId) == shard);
        for next in journal.merged(own.filter_map(part))? {
            let (lane, sequence, batch) = next?;
            while shards.waiting() > WAITING_MAX * shards.count() {
                std::thread::yield_now();
            }
            let (from, to) = (sequence, sequence + 1);
            shards.send(Job { source: lane as SourceId, from, to, batch, reply: reply(), generation });
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> = (0..shards.count()).map(|shard| scope.spawn(move || read(shard))).collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
