//! Sums over groups: one accumulator for each distinct (group, filter, slot), shared by the metrics that want it.

use hashbrown::HashMap;

use super::column::Columns;
use super::decode::Kind;
use super::delta::States;
use super::dictionary::{Dictionary, NO_VALUE};
use super::plan::{FilterId, GroupId, Slot};
use super::sketch::{Gather, entry};
use super::summary::top::{Top, capacity};
use super::summary::{Summary, funnel, quantile};

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
    Quantile(Vec<quantile::Gather>),
    /// Events by code.
    Top(Vec<HashMap<u32, u64>>),
    Funnel(Vec<funnel::Gather>),
}

impl Accumulator {
    pub fn new(group: GroupId, filter: Option<FilterId>, slot: Slot) -> Self {
        let state = match &slot {
            Slot::Count | Slot::CountPresent(_) | Slot::CountNumber(_) => State::Count(Vec::new()),
            Slot::Sum(_) => State::Sum(Vec::new(), Vec::new()),
            Slot::Min(_) => State::Min(Vec::new()),
            Slot::Max(_) => State::Max(Vec::new()),
            Slot::Uniq(_) => State::Uniq(Vec::new()),
            Slot::Quantile { .. } => State::Quantile(Vec::new()),
            Slot::Top { .. } => State::Top(Vec::new()),
            Slot::FunnelFirst { .. } | Slot::FunnelLater { .. } => State::Funnel(Vec::new()),
        };
        Self { group, filter, slot, state, numbers: Vec::new() }
    }

    /// Adds the selected rows (ascending; `None`: all) to their groups. `selected`: the rows of each of the plan's filters.
    /// `groups` says how many there are by now.
    pub fn add(
        &mut self,
        columns: &Columns,
        selection: Option<&[u32]>,
        selected: &[Vec<u32>],
        numbers: &[u32],
        groups: usize,
    ) {
        self.resize(groups);
        match &self.slot {
            Slot::Count | Slot::CountPresent(_) | Slot::Uniq(_) => {}
            Slot::Top { .. } | Slot::FunnelFirst { .. } | Slot::FunnelLater { .. } => {}
            Slot::CountNumber(arith) | Slot::Sum(arith) | Slot::Min(arith) | Slot::Max(arith) => {
                columns.numbers_of(arith, &mut self.numbers);
            }
            Slot::Quantile { number: arith, .. } => {
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
            (State::Quantile(sketches), _) => each(columns.rows, selection, |row| {
                if !value(row).is_nan() {
                    sketches[numbers[row] as usize].push(value(row));
                }
            }),
            (State::Top(counts), Slot::Top { field, .. }) => {
                let codes = &columns.codes[*field];
                each(columns.rows, selection, |row| {
                    if codes[row] != NO_VALUE {
                        *counts[numbers[row] as usize].entry(codes[row]).or_insert(0) += 1;
                    }
                });
            }
            (State::Funnel(visits), Slot::FunnelFirst { key }) => {
                let keys = &columns.hashes[*key];
                each(columns.rows, selection, |row| {
                    if keys[row] != 0 {
                        visits[numbers[row] as usize].push(keys[row], 0, columns.times[row]);
                    }
                });
            }
            (State::Funnel(visits), Slot::FunnelLater { key, steps }) => {
                let keys = &columns.hashes[*key];
                for (step, filter) in steps.iter().enumerate() {
                    both(selection, &selected[*filter], |row| {
                        if keys[row] != 0 {
                            visits[numbers[row] as usize].push(keys[row], step + 1, columns.times[row]);
                        }
                    });
                }
            }
            (State::Uniq(_) | State::Top(_) | State::Funnel(_), _) => unreachable!("a state is fed by its slot"),
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
            State::Quantile(sketches) => sketches.resize_with(groups, Default::default),
            State::Top(counts) => counts.resize_with(groups, HashMap::new),
            State::Funnel(visits) => visits.resize_with(groups, Default::default),
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
            State::Quantile(sketches) => set(touched, sketches, |sketch| !sketch.is_empty()),
            State::Top(counts) => set(touched, counts, |counts| !counts.is_empty()),
            State::Funnel(visits) => set(touched, visits, |visits| !visits.is_empty()),
        }
    }

    /// The states of these groups.
    pub fn states(&self, rows: &[u32], dictionaries: &[Option<Dictionary>]) -> States {
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
            State::Quantile(sketches) => {
                let sketches = pick(sketches, rows, quantile::Gather::default()).into_iter();
                States::Summary(sketches.map(|sketch| Summary::Quantiles(sketch.finish())).collect())
            }
            State::Top(counts) => {
                let counts = rows.iter().map(|row| counts.get(*row as usize));
                States::Summary(counts.map(|counts| self.top(counts, dictionaries)).collect())
            }
            State::Funnel(visits) => {
                let visits = pick(visits, rows, funnel::Gather::default()).into_iter();
                States::Summary(visits.map(|visits| Summary::Funnel(visits.finish())).collect())
            }
        }
    }

    /// What is no scalar has no text, and is left out.
    fn top(&self, counts: Option<&HashMap<u32, u64>>, dictionaries: &[Option<Dictionary>]) -> Summary {
        let (Slot::Top { n, field }, Some(counts)) = (&self.slot, counts) else { return Summary::Nothing };
        let entries = dictionaries[*field].as_ref().map_or(&[][..], Dictionary::entries);
        let counted = counts.iter().map(|(code, count)| (&entries[*code as usize], *count));
        let scalars = counted.filter(|(entry, _)| !matches!(entry.kind, Kind::Object | Kind::Array));
        Summary::Top(Top::of(capacity(*n), scalars.map(|(entry, count)| (entry.text.clone(), count)).collect()))
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
            State::Quantile(sketches) => sketches.clear(),
            State::Top(counts) => counts.clear(),
            State::Funnel(visits) => visits.clear(),
        }
    }
}

/// The rows that are in both, ascending. `None`: all are.
fn both(selection: Option<&[u32]>, other: &[u32], mut visit: impl FnMut(usize)) {
    let Some(mut selection) = selection else { return other.iter().for_each(|row| visit(*row as usize)) };
    for row in other {
        selection = &selection[selection.partition_point(|selected| selected < row)..];
        if selection.first() == Some(row) {
            visit(*row as usize);
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
