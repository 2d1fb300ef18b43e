//! How often late events changed minutes that were closed, since the start. Does not know what they changed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::engine::delta::Partial;
use crate::engine::plan::Fingerprint;
use crate::time::Minute;

/// Minutes of metrics of which it is known; beyond it the oldest are forgotten.
const MINUTES_MAX: usize = 100_000;

#[derive(Default)]
pub struct Corrections {
    times: Mutex<HashMap<(Fingerprint, Minute), u32>>,
}

impl Corrections {
    /// Closed minutes, those before `open_from`, of metrics that these change, each once.
    pub fn found(partials: &[Partial], open_from: Minute) -> Vec<(Fingerprint, Minute)> {
        let mut found = Vec::new();
        for partial in partials {
            for changed in &partial.metrics {
                let metric = &partial.plan.metrics[changed.metric];
                let minutes = &partial.groups[metric.group].minutes;
                let late = changed.rows.iter().map(|row| minutes[*row as usize]).filter(|minute| *minute < open_from);
                found.extend(late.map(|minute| (metric.fingerprint, minute)));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    pub fn add(&self, found: Vec<(Fingerprint, Minute)>) {
        if found.is_empty() {
            return;
        }
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        found.into_iter().for_each(|minute| *times.entry(minute).or_default() += 1);
        if times.len() > MINUTES_MAX {
            let mut minutes: Vec<Minute> = times.keys().map(|(_, minute)| *minute).collect();
            let (_, middle, _) = minutes.select_nth_unstable(MINUTES_MAX / 2);
            let keep_from = *middle;
            times.retain(|(_, minute), _| *minute > keep_from);
        }
    }

    /// Of any of these metrics in any of these minutes.
    pub fn count(&self, fingerprints: &[Fingerprint], minutes: Range<Minute>) -> u64 {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |fingerprint: &Fingerprint| {
            let minutes = (minutes.start.0..minutes.end.0).map(|minute| (*fingerprint, Minute(minute)));
            minutes.filter_map(|key| times.get(&key)).map(|times| u64::from(*times)).sum::<u64>()
        };
        fingerprints.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let corrections = Corrections::default();
        let of = |minute: u32| (Fingerprint(1), Minute(minute));
        corrections.add((0..MINUTES_MAX as u32).map(of).collect());
        corrections.add(vec![of(5), of(99_999)]);
        assert_eq!(corrections.count(&[Fingerprint(1), Fingerprint(2)], Minute(5)..Minute(6)), 2);
        corrections.add(vec![of(200_000)]);
        assert_eq!(corrections.count(&[Fingerprint(1)], Minute(0)..Minute(40_000)), 0);
        assert_eq!(corrections.count(&[Fingerprint(1)], Minute(99_999)..Minute(200_001)), 3);
        assert!(corrections.times.lock().unwrap().len() <= MINUTES_MAX);
    }
}
