//! Raw events of the host's own journal: one block at a time, of all its lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::folder::Folder;
use super::rows::Reading;
use super::{BLOCK_BYTES, Sending};
use crate::ingest::journal::Journal;
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
        while self.send(sending, covered)? {}
        Ok(())
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
        self.folder.arrived(&ranges)?;
        Ok(!sending.ending.load(Relaxed))
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
                let (position, batch) = batch.map_err(|error| StoreError::Engine(error.to_string()))?;
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
