//! Merging what a delta brings for metrics whose combinations are decided: minute by minute, on several threads. Touches nothing
//! but the metrics' panes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::state::{Day, Held, MetricState};
use crate::engine::delta::{GroupPartial, States};
use crate::engine::plan::Fingerprint;
use crate::store::Seq;
use crate::store::cells::Pane;
use crate::time::Minute;

pub struct Merge<'p> {
    pub fingerprint: Fingerprint,
    pub known: MetricState,
    pub group: &'p GroupPartial,
    /// Rows of the group that have a cell.
    pub rows: Vec<u32>,
    /// By UTC day, for each of the group's combinations the number it is kept under.
    pub kept: BTreeMap<u32, Vec<u32>>,
    /// For each slot, one state a row.
    pub states: Vec<States>,
}

/// A metric's minute and what it gets.
struct Job {
    metric: usize,
    minute: Minute,
    held: Held,
    /// Where the metric keeps margins.
    day: Option<Arc<Day>>,
    /// Combination and row of `states`, ascending, repeats allowed.
    cells: Vec<(u32, u32)>,
    states: Vec<States>,
}

/// Merges all; by how many bytes the panes grew.
pub fn merge_all(merges: &mut [Merge<'_>], seq: Seq, threads: usize) -> isize {
    let jobs = on_threads(threads, merges.iter_mut().enumerate().collect(), |(metric, merge)| jobs(metric, merge));
    let merged = on_threads(threads, jobs.into_iter().flatten().collect(), |job| merge_minute(job, seq));
    let mut grown = 0;
    for (metric, minute, held, bytes) in merged {
        merges[metric].known.panes.insert(minute, held);
        grown += bytes;
    }
    grown
}

/// What is to be done for one metric, minute by minute: its panes are taken out for that.
fn jobs(metric: usize, merge: &mut Merge<'_>) -> Vec<Job> {
    let Merge { known, group, rows, kept, states, .. } = merge;
    let mut minutes: Vec<(Minute, Vec<(u32, u32)>)> = Vec::new();
    let mut places: BTreeMap<Minute, usize> = BTreeMap::new();
    // Neighbours are of one minute, mostly.
    let (mut last, mut place, mut of_day): (Option<Minute>, usize, &[u32]) = (None, 0, &[]);
    for (at, &row) in rows.iter().enumerate() {
        let (minute, combination) = (group.minutes[row as usize], group.combinations[row as usize]);
        if last != Some(minute) {
            place = *places.entry(minute).or_insert_with(|| {
                minutes.push((minute, Vec::new()));
                minutes.len() - 1
            });
            (last, of_day) = (Some(minute), &kept[&minute.day()]);
        }
        minutes[place].1.push((of_day[combination as usize], at as u32));
    }
    let job = |(minute, mut cells): (Minute, Vec<(u32, u32)>)| {
        cells.sort_unstable();
        let states = states.iter_mut().map(|states| states.take(cells.iter().map(|&(_, row)| row as usize))).collect();
        cells.iter_mut().zip(0..).for_each(|((_, row), at)| *row = at);
        let held = known.panes.remove(&minute).unwrap_or_else(|| Held::new(&known.kinds));
        let day = known.days.get(&minute.day()).filter(|day| day.margins_each > 0).cloned();
        Job { metric, minute, held, day, cells, states }
    };
    minutes.into_iter().map(job).collect()
}

/// By how many bytes the pane grew, too.
fn merge_minute(job: Job, seq: Seq) -> (usize, Minute, Held, isize) {
    let Job { metric, minute, mut held, day, cells, mut states } = job;
    let pane = Arc::make_mut(&mut held.pane);
    if let Some(day) = day {
        add_margins(pane, &day, &cells, &mut states);
    }
    pane.full.merge_states(&cells, &mut states, true);
    held.seq = seq;
    let before = std::mem::replace(&mut held.bytes, pane.bytes());
    let grown = held.bytes as isize - before as isize;
    (metric, minute, held, grown)
}

fn add_margins(pane: &mut Pane, day: &Day, cells: &[(u32, u32)], states: &mut [States]) {
    let margins = |&(combination, row): &(u32, u32)| day.margins_of(combination).iter().map(move |&it| (it, row));
    let mut incoming: Vec<(u32, u32)> = cells.iter().flat_map(margins).collect();
    incoming.sort_unstable();
    pane.margins.merge_states(&incoming, states, false);
}

/// Does the work for each item, in no particular order, and gives what came of it in theirs.
pub fn on_threads<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if threads < 2 || items.len() < 2 {
        return items.into_iter().map(work).collect();
    }
    let count = items.len();
    let waiting = Mutex::new(items.into_iter().enumerate());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        let mut done = Vec::new();
        while let Some((at, item)) = next() {
            done.push((at, work(item)));
        }
        done
    };
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    debug_assert_eq!(all.len(), count);
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, done)| done).collect()
}
