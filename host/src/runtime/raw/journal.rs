//! Raw events of the host's own journal: one block at a time, of all its lanes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::folder::{Folder, JUDGED_LINES_MAX};
use super::judging::Judging;
use super::rows::Reading;
use super::{BLOCK_BYTES, Sending};
use crate::engine::delta::{SourceId, Uncounted};
use crate::ingest::journal::{Journal, JournalError};
use crate::store::clickhouse::{RawEvents, RawRange};
use crate::store::{Position, StoreError};

pub struct FromJournal {
    journal: Arc<Journal>,
    pub folder: Folder,
    /// The journal has more than this while events wait here: no more are taken.
    bytes_max: u64,
    full: AtomicBool,
}

impl FromJournal {
    pub fn new(journal: Arc<Journal>, folder: Folder, bytes_max: u64) -> Self {
        Self { journal, folder, bytes_max, full: AtomicBool::new(false) }
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    pub fn send_all(&self, sending: &Sending, covered: &[Position]) -> Result<(), StoreError> {
        self.look_for_lost(sending, covered)?;
        while self.send(sending, covered)? {}
        Ok(())
    }

    /// What ClickHouse has lost is sent again, as far as the journal reaches.
    fn look_for_lost(&self, sending: &Sending, covered: &[Position]) -> Result<(), StoreError> {
        let progress = self.folder.progress();
        let sent = |source: &SourceId| progress.sent.get(source).copied().unwrap_or(0);
        let waits = !progress.pending.is_empty() || covered.iter().any(|at| sent(&at.source) < at.next);
        if progress.last.is_empty() || !sending.is_time_to_look(waits) {
            return Ok(());
        }
        let there = sending.clickhouse.last_positions(&sending.origin)?;
        let next = |source: &SourceId| there.get(source).map_or(0, |(position, _)| position + 1);
        let lost = progress.last.iter().filter(|(source, last)| next(source) <= **last);
        let mut from: BTreeMap<SourceId, u64> =
            lost.map(|(source, _)| (*source, next(source).max(self.journal.first(*source as usize)))).collect();
        if from.is_empty() {
            return Ok(());
        }
        // Of a block on its way what is there stays there.
        let arrived =
            progress.pending.iter().filter(|(source, begin, _)| !from.contains_key(source) && next(source) > *begin);
        self.folder.arrived(&arrived.copied().collect::<Vec<_>>(), &[])?;
        tracing::warn!(lanes = from.len(), "ClickHouse has lost raw events: they are sent again from the journal");
        let lines = self.judge(sending, &progress.sent, &mut from)?;
        sending.telemetry.clickhouse.raw_again.inc_by(from.len() as u64);
        self.folder.again(&from.into_iter().collect::<Vec<_>>(), &lines)
    }

    /// What is not to be sent of that: lanes are read together, by arrival, since an id may come again in another one. Where
    /// too many lines were not counted, the oldest events are left out: `from` is raised.
    fn judge(
        &self,
        sending: &Sending,
        sent: &BTreeMap<SourceId, u64>,
        from: &mut BTreeMap<SourceId, u64>,
    ) -> Result<Vec<Uncounted>, StoreError> {
        let plan = sending.active.load().definitions.plan.clone();
        let mut judging = Judging::new(&plan, sending.event_bytes_max);
        let mut lanes = Vec::new();
        for (&source, &to) in sent {
            let mut batches = self
                .journal
                .read(source as usize, self.journal.first(source as usize))
                .take_while(move |it| it.as_ref().map_or(true, |(at, _)| *at < to));
            lanes.extend(batches.next().transpose().map_err(damaged)?.map(|first| (source, first, batches)));
        }
        let mut lines: Vec<Uncounted> = Vec::new();
        while let Some(at) = (0..lanes.len()).min_by_key(|at| lanes[*at].1.1.arrival) {
            let (source, head, batches) = &mut lanes[at];
            let source = *source;
            let (position, batch) = match batches.next().transpose().map_err(damaged)? {
                Some(following) => std::mem::replace(head, following),
                None => lanes.swap_remove(at).1,
            };
            let uncounted = judging.uncounted(source, position, &batch);
            let Some(begin) = from.get_mut(&source) else { continue };
            if position >= *begin {
                lines.extend(uncounted);
            }
            if lines.len() > JUDGED_LINES_MAX {
                *begin = position + 1;
                lines.retain(|line| from.get(&line.0).is_some_and(|begin| line.1 >= *begin));
                tracing::warn!(
                    lane = source,
                    before = position + 1,
                    "too many lines were not counted: events before are left out"
                );
            }
        }
        Ok(lines)
    }

    /// Sends a block of what the checkpoint covers. True: there may be more.
    fn send(&self, sending: &Sending, covered: &[Position]) -> Result<bool, StoreError> {
        let progress = self.folder.progress();
        let from = |source| progress.sent.get(source).copied().unwrap_or(0);
        let pending = progress.pending;
        // The last block, if it is not known that it arrived; else the next one.
        let again = !pending.is_empty() && pending.iter().all(|(source, begin, _)| *begin == from(source));
        let wanted: Vec<RawRange> = if again {
            pending
        } else {
            covered.iter().map(|at| (at.source, from(&at.source), at.next)).filter(|(_, from, to)| from < to).collect()
        };
        if wanted.is_empty() {
            self.full.store(false, Relaxed);
            return Ok(false);
        }
        let (ranges, events) = self.read(sending, &wanted, if again { usize::MAX } else { BLOCK_BYTES })?;
        if !again {
            self.folder.pending(&ranges)?;
        }
        self.full.store(self.journal.bytes() > self.bytes_max + self.bytes_max / 8, Relaxed);
        sending.clickhouse.append(&ranges, &events)?;
        sending.telemetry.clickhouse.raw_events.inc_by(events.count() as u64);
        self.folder.arrived(&ranges, events.last_positions())?;
        // The one that was begun before is not the last one of a host that ends.
        Ok(again || !sending.ending.load(Relaxed))
    }

    /// The counted events of these ranges, as far as they fit, and how far that is.
    fn read(
        &self,
        sending: &Sending,
        wanted: &[RawRange],
        bytes_max: usize,
    ) -> Result<(Vec<RawRange>, RawEvents), StoreError> {
        let plan = sending.active.load().definitions.plan.clone();
        let mut reading = Reading::new(&plan, sending.event_bytes_max, &sending.origin);
        let mut ranges = Vec::new();
        for &(source, from, to) in wanted {
            if reading.events.bytes() >= bytes_max {
                break;
            }
            let uncounted = self.folder.uncounted(source, from, to);
            // Where the last batches are damaged, the range ends behind them all the same.
            let mut end = to;
            for batch in self.journal.read(source as usize, from) {
                let (position, batch) = batch.map_err(damaged)?;
                if position >= to {
                    break;
                }
                reading.add(source, position, &batch, &uncounted);
                if reading.events.bytes() >= bytes_max {
                    end = position + 1;
                    break;
                }
            }
            ranges.push((source, from, end));
        }
        Ok((ranges, reading.events))
    }
}

fn damaged(error: JournalError) -> StoreError {
    StoreError::Engine(error.to_string())
}
