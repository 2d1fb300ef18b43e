//! Queries' view: history for what hot no longer has whole, hot for the rest, joined at one point in time.

use std::sync::Arc;

use super::answer::{Answer, Step};
use super::memory::{HotRead, MemoryStore};
use super::pane::Wanted;
use super::{
    Coverage, HistoryStore, HotStore, PaneRequest, ReadAnswer, ReadRequest, Seq, StateReader, StoreError, StoredPane,
};
use crate::engine::plan::Fingerprint;
use crate::time::Minute;

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
        let wanted = if answer.reads_margins() { Wanted::Margins } else { Wanted::Full };
        let selected = answer.selected().to_vec();
        for &fingerprint in &request.fingerprints {
            for range in &request.ranges {
                let steps = range.start..range.end.min(hot.complete_from);
                let panes = PaneRequest {
                    fingerprint,
                    resolution: request.resolution,
                    steps,
                    wanted,
                    selected: Some(&selected),
                    filters: &request.filters,
                };
                history.read(&panes, &mut |pane| {
                    if hot.reloaded.contains(&(fingerprint, pane.start.hour())) {
                        return Ok(());
                    }
                    add_pane(request, fingerprint, &pane, answer)
                })?;
            }
        }
        Ok(())
    }
}

fn add_pane(
    request: &ReadRequest,
    fingerprint: Fingerprint,
    pane: &StoredPane,
    answer: &mut Answer<'_>,
) -> Result<(), StoreError> {
    let stored = &pane.content;
    if stored.kinds != request.kinds || stored.texts.len() != request.dimensions {
        return Err(StoreError::Corrupt(format!("metric {fingerprint} is in history with another shape")));
    }
    let Some(step) = answer.step_of(pane.start) else { return Ok(()) };
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

    fn coverage(&self, lineages: &[Fingerprint]) -> Coverage {
        self.hot.coverage(lineages)
    }

    fn provisional_from(&self) -> Minute {
        self.hot.provisional_from()
    }
}
