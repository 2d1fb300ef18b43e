//! What plugins said about points, so that an answer asks them only about what is new. A plugin is deterministic, but what it
//! saw before a point may be corrected later: a verdict stands until its own point changes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Judged, Points};
use crate::engine::extension::{Detector, Verdict};
use crate::time::Millis;

/// Verdicts remembered for a series, and in all.
const SERIES_VERDICTS_MAX: usize = 3_000;
const VERDICTS_MAX: usize = 1_000_000;

#[derive(Default)]
pub struct VerdictMemo {
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// By detector and labels. The detector is held, so that its address is not given to another.
    series: HashMap<Key, (Arc<dyn Detector>, Verdicts)>,
    verdicts: usize,
}

type Key = (usize, Vec<Arc<str>>);

/// Time → the value judged and what was said.
type Verdicts = BTreeMap<Millis, (f64, Option<Verdict>)>;

impl VerdictMemo {
    /// Asks about at most `calls_max` points that are new, newest first; the rest is left for the next answer.
    pub(super) fn judge(
        &self,
        detector: &Arc<dyn Detector>,
        points: &Points,
        range: Range<usize>,
        calls_max: usize,
    ) -> Vec<Judged> {
        let key = (Arc::as_ptr(detector).cast::<()>() as usize, points.labels.to_vec());
        let known = self.take(&key);
        let mut verdicts = known.unwrap_or_default();
        let before = verdicts.len();
        let judged = judge_new(detector.as_ref(), points, range, calls_max, &mut verdicts);
        while verdicts.len() > SERIES_VERDICTS_MAX {
            verdicts.pop_first();
        }
        self.put(key, detector.clone(), verdicts, before);
        judged
    }

    fn take(&self, key: &Key) -> Option<Verdicts> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.series.get_mut(key).map(|(_, verdicts)| std::mem::take(verdicts))
    }

    fn put(&self, key: Key, detector: Arc<dyn Detector>, verdicts: Verdicts, before: usize) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.verdicts = (remembered.verdicts + verdicts.len()).saturating_sub(before);
        remembered.series.insert(key.clone(), (detector, verdicts));
        while remembered.verdicts > VERDICTS_MAX {
            // Any other: it is judged again when it is asked for again.
            let Some(other) = remembered.series.keys().find(|other| **other != key).cloned() else { return };
            let forgotten = remembered.series.remove(&other).map_or(0, |(_, verdicts)| verdicts.len());
            remembered.verdicts = remembered.verdicts.saturating_sub(forgotten);
        }
    }
}

fn judge_new(
    detector: &dyn Detector,
    points: &Points,
    range: Range<usize>,
    calls_max: usize,
    verdicts: &mut Verdicts,
) -> Vec<Judged> {
    let all: Vec<(usize, f64)> = points.iter().collect();
    let lookback_steps = (detector.lookback_ms() / points.step_ms).max(0) as usize;
    let mut calls = 0;
    let mut judged = Vec::new();
    let mut window = Vec::new();
    for (at, &(step, value)) in all.iter().enumerate().rev().filter(|(_, (step, _))| range.contains(step)) {
        let t = points.time(step);
        let verdict = match verdicts.get(&t) {
            Some((known, verdict)) if known.to_bits() == value.to_bits() => *verdict,
            _ if calls == calls_max => continue,
            _ => {
                calls += 1;
                let first = all[..at].partition_point(|(before, _)| before + lookback_steps < step);
                window.clear();
                let closed = all[first..at].iter().filter(|(before, _)| *before < points.closed);
                window.extend(closed.chain([&(step, value)]).map(|&(step, value)| (points.time(step), value)));
                let verdict = detector.judge(points.step_ms, &window);
                verdicts.insert(t, (value, verdict));
                verdict
            }
        };
        judged.extend(verdict.map(|verdict| Judged { step: step as u32, value, verdict }));
    }
    judged.reverse();
    judged
}
