//! Sums over groups: one accumulator for each distinct (group, filter, slot), shared by the metrics that want it.

use super::column::Columns;
use super::delta::States;
use super::dictionary::NO_VALUE;
use super::plan::{FilterId, GroupId, Slot};
use super::sketch::{Gather, entry};

pub struct Accumulator {
    pub group: GroupId,
    pub filter: Option<FilterId>,
    pub slot: Slot,
    state: State,
    numbers: Vec<f64>,
}

/// One value a group number.
enum State {
    Count(Vec<u64>),
    /// The sum, and whether anything was added: a sum may be zero.
    Sum(Vec<f64>, Vec<bool>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Uniq(Vec<Gather>),
}

impl Accumulator {
    pub fn new(group: GroupId, filter: Option<FilterId>, slot: Slot) -> Self {
        let state = match &slot {
            Slot::Count | Slot::CountPresent(_) | Slot::CountNumber(_) => State::Count(Vec::new()),
            Slot::Sum(_) => State::Sum(Vec::new(), Vec::new()),
            Slot::Min(_) => State::Min(Vec::new()),
            Slot::Max(_) => State::Max(Vec::new()),
            Slot::Uniq(_) => State::Uniq(Vec::new()),
        };
        Self { group, filter, slot, state, numbers: Vec::new() }
    }

    /// Adds the selected rows (ascending; `None`: all) to their groups. `groups` says how many there are by now.
    pub fn add(&mut self, columns: &Columns, selection: Option<&[u32]>, numbers: &[u32], groups: usize) {
        self.resize(groups);
        match &self.slot {
            Slot::Count | Slot::CountPresent(_) | Slot::Uniq(_) => {}
            Slot::CountNumber(arith) | Slot::Sum(arith) | Slot::Min(arith) | Slot::Max(arith) => {
                columns.numbers_of(arith, &mut self.numbers);
            }
        }
        let value = |row: usize| self.numbers[row];
        match (&mut self.state, &self.slot) {
            (State::Count(counts), Slot::CountPresent(field)) => {
                let codes = &columns.codes[*field];
                each(columns.rows, selection, |row| counts[numbers[row] as usize] += u64::from(codes[row] != NO_VALUE));
            }
            (State::Count(counts), Slot::CountNumber(_)) => {
                each(columns.rows, selection, |row| counts[numbers[row] as usize] += u64::from(!value(row).is_nan()));
            }
            (State::Count(counts), _) => each(columns.rows, selection, |row| counts[numbers[row] as usize] += 1),
            (State::Sum(sums, seen), _) => each(columns.rows, selection, |row| {
                if !value(row).is_nan() {
                    sums[numbers[row] as usize] += value(row);
                    seen[numbers[row] as usize] = true;
                }
            }),
            // The minimum and maximum with NaN are the other operand.
            (State::Min(least), _) => each(columns.rows, selection, |row| {
                let least = &mut least[numbers[row] as usize];
                *least = least.min(value(row));
            }),
            (State::Max(most), _) => each(columns.rows, selection, |row| {
                let most = &mut most[numbers[row] as usize];
                *most = most.max(value(row));
            }),
            (State::Uniq(sketches), Slot::Uniq(field)) => {
                let hashes = &columns.hashes[*field];
                each(columns.rows, selection, |row| {
                    if hashes[row] != 0 {
                        sketches[numbers[row] as usize].push(entry(hashes[row]));
                    }
                });
            }
            (State::Uniq(_), _) => unreachable!("a sketch is fed by a distinct count"),
        }
    }

    fn resize(&mut self, groups: usize) {
        match &mut self.state {
            State::Count(counts) => counts.resize(groups, 0),
            State::Sum(sums, seen) => {
                sums.resize(groups, 0.0);
                seen.resize(groups, false);
            }
            State::Min(least) => least.resize(groups, f64::INFINITY),
            State::Max(most) => most.resize(groups, f64::NEG_INFINITY),
            State::Uniq(sketches) => sketches.resize_with(groups, Gather::default),
        }
    }

    /// Marks the groups to which something was added.
    pub fn mark(&self, touched: &mut [bool]) {
        fn set<T>(touched: &mut [bool], values: &[T], any: impl Fn(&T) -> bool) {
            touched.iter_mut().zip(values).for_each(|(touched, value)| *touched |= any(value));
        }
        match &self.state {
            State::Count(counts) => set(touched, counts, |count| *count > 0),
            State::Sum(_, seen) => set(touched, seen, |seen| *seen),
            State::Min(least) => set(touched, least, |least| *least < f64::INFINITY),
            State::Max(most) => set(touched, most, |most| *most > f64::NEG_INFINITY),
            State::Uniq(sketches) => set(touched, sketches, |sketch| !sketch.is_empty()),
        }
    }

    /// The states of these groups.
    pub fn states(&self, rows: &[u32]) -> States {
        fn pick<T: Clone>(values: &[T], rows: &[u32], empty: T) -> Vec<T> {
            rows.iter().map(|row| values.get(*row as usize).unwrap_or(&empty).clone()).collect()
        }
        match &self.state {
            State::Count(counts) => States::Count(pick(counts, rows, 0)),
            State::Sum(sums, _) => States::Sum(pick(sums, rows, 0.0)),
            State::Min(least) => States::Min(pick(least, rows, f64::INFINITY)),
            State::Max(most) => States::Max(pick(most, rows, f64::NEG_INFINITY)),
            State::Uniq(sketches) => {
                States::Uniq(pick(sketches, rows, Gather::default()).into_iter().map(Gather::finish).collect())
            }
        }
    }

    pub fn clear(&mut self) {
        match &mut self.state {
            State::Count(counts) => counts.clear(),
            State::Sum(sums, seen) => {
                sums.clear();
                seen.clear();
            }
            State::Min(values) | State::Max(values) => values.clear(),
            State::Uniq(sketches) => sketches.clear(),
        }
    }
}

#[inline]
fn each(rows: usize, selection: Option<&[u32]>, mut visit: impl FnMut(usize)) {
    match selection {
        Some(selection) => selection.iter().for_each(|row| visit(*row as usize)),
        None => (0..rows).for_each(visit),
    }
}
