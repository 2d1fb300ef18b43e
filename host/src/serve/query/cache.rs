//! Windows of aggregates at the live edge, kept from one answer to the next: only what changed since, and what is new, is read
//! again. That is what lets a day of sliding distinct counts answer in milliseconds the second time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::bind::Leaf;
use super::leaf::{Grid, LeafAnswer, LeafSeries, read_leaf};
use crate::engine::plan::Fingerprint;
use crate::store::StateReader;
use crate::time::{Millis, Minute};
use crate::web::ApiError;

const BYTES_MAX: usize = 256 * 1024 * 1024;
/// Changed windows so near each other are read in one go.
const GAP_STEPS_MAX: usize = 16;

#[derive(Default)]
pub struct LeafCache {
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
    uses: AtomicU64,
}

/// Everything the windows depend on; what is finished from the states is part of a fingerprint.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    fingerprints: Vec<Fingerprint>,
    by: Vec<usize>,
    filters: Vec<(usize, Vec<String>)>,
    window_ms: Millis,
    step_ms: Millis,
    steps: usize,
}

#[derive(Default)]
struct Entry {
    used: AtomicU64,
    bytes: AtomicUsize,
    held: Mutex<Option<(Grid, Arc<LeafAnswer>)>>,
}

impl LeafCache {
    pub fn read(
        &self,
        reader: &dyn StateReader,
        leaf: &Leaf,
        grid: Grid,
        now: Millis,
    ) -> Result<Arc<LeafAnswer>, ApiError> {
        if grid.steps == 0 || grid.to() + 2 * grid.step_ms <= now {
            return read_leaf(reader, leaf, grid, now).map(Arc::new);
        }
        let entry = self.entry(leaf, grid);
        // Equal questions wait for each other here, and the second finds what the first has read.
        let mut held = entry.held.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match held.take() {
            Some((known, answer)) if known.from > grid.from => {
                *held = Some((known, answer));
                return read_leaf(reader, leaf, grid, now).map(Arc::new);
            }
            Some((known, answer)) => update(reader, leaf, known, answer, grid, now)?,
            None => read_leaf(reader, leaf, grid, now)?,
        };
        let answer = Arc::new(answer);
        *held = Some((grid, answer.clone()));
        entry.bytes.store(bytes(&answer), Ordering::Relaxed);
        drop(held);
        self.evict();
        Ok(answer)
    }

    fn entry(&self, leaf: &Leaf, grid: Grid) -> Arc<Entry> {
        let key = Key {
            fingerprints: leaf.all_fingerprints(),
            by: leaf.by.clone(),
            filters: leaf.filters.clone(),
            window_ms: leaf.window_ms,
            step_ms: grid.step_ms,
            steps: grid.steps,
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key).or_default().clone();
        entry.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        entry
    }

    /// Lets go of what was not used for longest until the rest fits.
    fn evict(&self) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total: usize = entries.values().map(|entry| entry.bytes.load(Ordering::Relaxed)).sum();
        while total > BYTES_MAX {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            total -= entries.remove(&key).map_or(0, |entry| entry.bytes.load(Ordering::Relaxed));
        }
    }
}

fn bytes(answer: &LeafAnswer) -> usize {
    let series = answer.series.iter().map(|series| {
        let lists = series.lists.iter().flatten().map(|list| list.len() + 32).sum::<usize>();
        series.values.len() * 9 + series.lists.len() * 16 + lists + series.labels.len() * 32 + 128
    });
    series.sum::<usize>() + 256
}

/// `known`, brought forward to `grid`, which is as long and not earlier.
fn update(
    reader: &dyn StateReader,
    leaf: &Leaf,
    known: Grid,
    answer: Arc<LeafAnswer>,
    grid: Grid,
    now: Millis,
) -> Result<LeafAnswer, ApiError> {
    let shift = ((grid.from - known.from) / grid.step_ms) as usize;
    // Asked first: a change that comes in between is seen twice rather than never.
    let seq = reader.seq();
    let changed = reader
        .changed_since(&leaf.all_fingerprints(), answer.seq)
        .map_err(|error| ApiError::unavailable(error.to_string(), 1))?;
    let stale = changed.map(|minutes| stale_steps(leaf, grid, shift, &minutes));
    let stale = match stale {
        Some(stale) if stale.iter().map(Range::len).sum::<usize>() <= grid.steps / 2 => stale,
        _ => return read_leaf(reader, leaf, grid, now),
    };
    let mut answer = Arc::unwrap_or_clone(answer);
    answer.seq = seq;
    answer.series.iter_mut().for_each(|series| series.shift(shift));
    for range in stale {
        let part = Grid { from: grid.time(range.start), steps: range.len(), ..grid };
        replace(&mut answer, &range, read_leaf(reader, leaf, part, now)?, grid.steps, leaf.is_list());
    }
    answer.series.retain(|series| series.present.contains(&true));
    Ok(answer)
}

/// Steps that are new, or whose window covers a changed minute. Ascending, apart from each other.
fn stale_steps(leaf: &Leaf, grid: Grid, shift: usize, minutes: &[Minute]) -> Vec<Range<usize>> {
    let step_of = |ms: Millis| ((ms - grid.from).div_euclid(grid.step_ms)).clamp(-1, grid.steps as Millis);
    let beyond = leaf.span_ms(grid.step_ms) - grid.step_ms;
    let mut ranges: Vec<Range<usize>> = minutes
        .iter()
        .map(|minute| {
            // A later step of a funnel changes windows before it.
            let (first, last) = (step_of(minute.start() - leaf.lookahead_ms()), step_of(minute.start() + beyond));
            first.max(0) as usize..(last + 1).min(grid.steps as Millis) as usize
        })
        .chain(std::iter::once(grid.steps.saturating_sub(shift)..grid.steps))
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match apart.last_mut() {
            Some(before) if range.start <= before.end + GAP_STEPS_MAX => before.end = before.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// Puts `part` in the place of `range`.
fn replace(answer: &mut LeafAnswer, range: &Range<usize>, part: LeafAnswer, steps: usize, lists: bool) {
    for series in &mut answer.series {
        series.present[range.clone()].fill(false);
        series.values[range.clone()].fill(f64::NAN);
        if lists {
            series.lists[range.clone()].fill(None);
        }
    }
    let mut new = Vec::new();
    for series in part.series {
        let at = answer.series.binary_search_by(|known| known.labels.cmp(&series.labels));
        let known = match at {
            Ok(at) => &mut answer.series[at],
            Err(_) => {
                new.push(LeafSeries::empty(series.labels.clone(), steps, lists));
                let Some(added) = new.last_mut() else { continue };
                added
            }
        };
        known.present[range.clone()].copy_from_slice(&series.present);
        known.values[range.clone()].copy_from_slice(&series.values);
        if lists {
            known.lists[range.clone()].clone_from_slice(&series.lists);
        }
    }
    if !new.is_empty() {
        answer.series.append(&mut new);
        answer.series.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
}

impl LeafSeries {
    /// Forgets the first `steps`, and makes room for as many.
    fn shift(&mut self, steps: usize) {
        let (all, steps) = (self.values.len(), steps.min(self.values.len()));
        self.values.drain(..steps);
        self.values.resize(all, f64::NAN);
        self.present.drain(..steps);
        self.present.resize(all, false);
        if !self.lists.is_empty() {
            self.lists.drain(..steps);
            self.lists.resize(all, None);
        }
    }
}
