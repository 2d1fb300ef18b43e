//! What history has of the panes here, as far as it is known: to see whether it still does, and to write it once more.

use super::MemoryStore;
use super::state::MetricState;
use crate::engine::plan::Fingerprint;
use crate::store::Resolution;
use crate::time::Minute;

/// A pane that history has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub fingerprint: Fingerprint,
    pub resolution: Resolution,
    pub start: Minute,
}

impl MemoryStore {
    /// Of each metric and UTC day the first and the last minute and hour that history has: tables lose whole days, or all.
    pub fn written_samples(&self) -> Vec<Written> {
        let state = self.read_state();
        let mut samples = Vec::new();
        for (&fingerprint, metric) in &state.metrics {
            let minutes = metric.panes.iter().filter(|(_, held)| held.written > 0).map(|(minute, _)| *minute);
            add(&mut samples, fingerprint, Resolution::Minute, minutes);
            add(&mut samples, fingerprint, Resolution::Hour, hours(metric));
        }
        // One that is first and last.
        samples.dedup();
        samples
    }

    /// History has nothing of what is here: all that is closed is due to it again.
    pub fn history_lost(&self) {
        let _writer = self.writer();
        for metric in self.write().metrics.values_mut() {
            metric.panes.values_mut().for_each(|held| held.written = 0);
            metric.hours_written.clear();
        }
    }
}

/// Those whose minutes are here.
fn hours(metric: &MetricState) -> impl Iterator<Item = Minute> + '_ {
    let has_minutes = |hour: Minute| metric.panes.range(hour..Minute(hour.0 + 60)).next().is_some();
    metric.hours_written.keys().copied().filter(move |hour| has_minutes(*hour))
}

fn add(
    samples: &mut Vec<Written>,
    fingerprint: Fingerprint,
    resolution: Resolution,
    starts: impl Iterator<Item = Minute>,
) {
    let mut last: Option<Minute> = None;
    let mut push = |start| samples.push(Written { fingerprint, resolution, start });
    for start in starts {
        if last.is_none_or(|last| last.day() != start.day()) {
            last.into_iter().for_each(&mut push);
            push(start);
        }
        last = Some(start);
    }
    last.into_iter().for_each(push);
}
