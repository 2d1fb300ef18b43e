//! Queries' view: history for what hot no longer has whole, hot for the rest, joined at one point in time.

use std::ops::Range;
use std::sync::Arc;

use super::answer::{Answer, Step};
use super::memory::{HotRead, MemoryStore};
use super::pane::{Wanted, decode};
use super::{HistoryStore, HotStore, PaneRecord, ReadAnswer, ReadRequest, Seq, StateReader, StoreError};
use crate::engine::plan::Fingerprint;
use crate::time::Minute;

/// Steps of history that are in memory at once.
const STEPS_AT_ONCE: u32 = 240;

pub struct JoinedReader {
    hot: Arc<MemoryStore>,
    history: Option<Arc<dyn HistoryStore>>,
}

impl JoinedReader {
    /// Without history, hot is all there is.
    pub fn new(hot: Arc<MemoryStore>, history: Option<Arc<dyn HistoryStore>>) -> Self {
        Self { hot, history }
    }

    fn add_history(&self, request: &ReadRequest, hot: &HotRead, answer: &mut Answer<'_>) -> Result<(), StoreError> {
        let Some(history) = &self.history else { return Ok(()) };
        let chunk = STEPS_AT_ONCE * request.resolution.minutes();
        for &fingerprint in &request.fingerprints {
            for range in &request.ranges {
                let end = range.end.min(hot.complete_from);
                for from in (range.start.0..end.0).step_by(chunk as usize) {
                    let steps: Range<Minute> = Minute(from)..end.min(Minute(from + chunk));
                    for record in history.read(fingerprint, request.resolution, steps)? {
                        if !hot.reloaded.contains(&(fingerprint, record.start.hour())) {
                            add_record(request, &record, answer)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn add_record(request: &ReadRequest, record: &PaneRecord, answer: &mut Answer<'_>) -> Result<(), StoreError> {
    let wanted = if answer.reads_margins() { Wanted::Margins } else { Wanted::Full };
    let stored = decode(&record.bytes, wanted)?;
    if stored.kinds != request.kinds || stored.texts.len() != request.dimensions {
        return Err(StoreError::Corrupt(format!("metric {} is in history with another shape", record.fingerprint)));
    }
    let Some(step) = answer.step_of(record.start) else { return Ok(()) };
    let texts: Vec<&[Arc<str>]> = stored.texts.iter().map(Vec::as_slice).collect();
    let combinations = if answer.reads_margins() { &stored.margins } else { &stored.full };
    let map = answer.map(combinations, &texts);
    answer.add(&[Step { step, map: &map, cells: answer.cells(&stored.pane) }]);
    Ok(())
}

impl StateReader for JoinedReader {
    fn read(&self, request: &ReadRequest) -> Result<ReadAnswer, StoreError> {
        let mut answer = Answer::new(request);
        // Hot first: what it drops after this is in history already.
        let hot = self.hot.begin_read(request, &mut answer)?;
        self.add_history(request, &hot, &mut answer)?;
        hot.add_to(&mut answer);
        Ok(answer.finish(hot.seq))
    }

    fn seq(&self) -> Seq {
        HotStore::seq(&*self.hot)
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        HotStore::changed_since(&*self.hot, fingerprints, since)
    }

    fn dimension_values(&self, dimension: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.hot.dimension_values(dimension, limit)
    }

    fn provisional_from(&self) -> Minute {
        self.hot.provisional_from()
    }
}
