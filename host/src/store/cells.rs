//! Cells of one metric at one step: a sorted list of combination numbers and one typed column a slot.
//! Knows how states merge; not which combination a number stands for.

use std::sync::Arc;

use crate::engine::delta::States;
use crate::engine::plan::StateKind;
use crate::engine::sketch::Sketch;
use crate::engine::summary::Summary;

#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    Count(Vec<u64>),
    Sum(Vec<f64>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Uniq(Vec<Arc<Sketch>>),
    /// Quantiles, top lists and funnels.
    Summary(Vec<Arc<Summary>>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cells {
    /// Combination numbers, ascending.
    pub rows: Vec<u32>,
    /// One a slot, each as long as `rows`.
    pub columns: Vec<Column>,
}

/// A metric's cells at one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pane {
    pub full: Cells,
    /// Totals and single dimensions of a metric with a sketch; else without rows.
    pub margins: Cells,
}

impl Column {
    pub fn new(kind: StateKind) -> Self {
        match kind {
            StateKind::Count => Self::Count(Vec::new()),
            StateKind::Sum => Self::Sum(Vec::new()),
            StateKind::Min => Self::Min(Vec::new()),
            StateKind::Max => Self::Max(Vec::new()),
            StateKind::Uniq => Self::Uniq(Vec::new()),
            StateKind::Quantile | StateKind::Top | StateKind::Funnel => Self::Summary(Vec::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Count(column) => column.len(),
            Self::Sum(column) | Self::Min(column) | Self::Max(column) => column.len(),
            Self::Uniq(column) => column.len(),
            Self::Summary(column) => column.len(),
        }
    }

    /// A longer column: true at the rows that were there, the neutral state at the others.
    fn spread(&mut self, was_there: &[bool]) {
        match self {
            Self::Count(column) => spread(column, was_there, &0),
            Self::Sum(column) => spread(column, was_there, &0.0),
            Self::Min(column) => spread(column, was_there, &f64::INFINITY),
            Self::Max(column) => spread(column, was_there, &f64::NEG_INFINITY),
            Self::Uniq(column) => spread(column, was_there, &Arc::new(Sketch::default())),
            Self::Summary(column) => spread(column, was_there, &Arc::new(Summary::Nothing)),
        }
    }

    /// Its rows in another order: `order` says which row comes where.
    pub fn permuted(self, order: &[usize]) -> Self {
        fn permuted<T: Clone>(column: &[T], order: &[usize]) -> Vec<T> {
            order.iter().map(|&row| column[row].clone()).collect()
        }
        match self {
            Self::Count(column) => Self::Count(permuted(&column, order)),
            Self::Sum(column) => Self::Sum(permuted(&column, order)),
            Self::Min(column) => Self::Min(permuted(&column, order)),
            Self::Max(column) => Self::Max(permuted(&column, order)),
            Self::Uniq(column) => Self::Uniq(permuted(&column, order)),
            Self::Summary(column) => Self::Summary(permuted(&column, order)),
        }
    }

    /// Rough heap bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Uniq(column) => column.iter().map(|sketch| sketch.bytes() + SHARED_BYTES).sum(),
            Self::Summary(column) => column.iter().map(|summary| summary.bytes() + SHARED_BYTES).sum(),
            other => other.len() * 8,
        }
    }
}

/// What an `Arc` takes besides what is in it, with the allocator's share.
const SHARED_BYTES: usize = 64;

fn spread<T: Clone>(column: &mut Vec<T>, was_there: &[bool], neutral: &T) {
    let mut before = std::mem::take(column).into_iter();
    let next = |&there: &bool| if there { before.next() } else { Some(neutral.clone()) };
    *column = was_there.iter().filter_map(next).collect();
}

impl Cells {
    pub fn new(kinds: &[StateKind]) -> Self {
        Self { rows: Vec::new(), columns: kinds.iter().map(|&kind| Column::new(kind)).collect() }
    }

    pub fn bytes(&self) -> usize {
        self.rows.len() * 4 + self.columns.iter().map(Column::bytes).sum::<usize>()
    }

    /// Merges states of a delta: `incoming` are (combination, row of `states`), ascending by combination, repeats allowed.
    /// With `take`, sketches are moved out of `states` instead of copied.
    pub fn merge_states(&mut self, incoming: &[(u32, u32)], states: &mut [States], take: bool) {
        let at = self.place(incoming.iter().map(|&(combination, _)| combination));
        let pairs = || at.iter().zip(incoming).map(|(&at, &(_, row))| (at, row as usize));
        for (column, states) in self.columns.iter_mut().zip(states) {
            match (column, states) {
                (Column::Count(column), States::Count(states)) => {
                    pairs().for_each(|(at, row)| column[at] = column[at].saturating_add(states[row]));
                }
                (Column::Sum(column), States::Sum(states)) => pairs().for_each(|(at, row)| column[at] += states[row]),
                (Column::Min(column), States::Min(states)) => {
                    pairs().for_each(|(at, row)| column[at] = column[at].min(states[row]));
                }
                (Column::Max(column), States::Max(states)) => {
                    pairs().for_each(|(at, row)| column[at] = column[at].max(states[row]));
                }
                (Column::Uniq(column), States::Uniq(states)) => {
                    pairs().for_each(|(at, row)| merge_owned(&mut column[at], &mut states[row], take));
                }
                (Column::Summary(column), States::Summary(states)) => {
                    pairs().for_each(|(at, row)| merge_owned(&mut column[at], &mut states[row], take));
                }
                _ => unreachable!("kinds are compared before anything is merged"),
            }
        }
    }

    /// Merges the cells of another step with the same numbers.
    pub fn merge(&mut self, other: &Self) {
        let at = self.place(other.rows.iter().copied());
        for (column, other) in self.columns.iter_mut().zip(&other.columns) {
            match (column, other) {
                (Column::Count(column), Column::Count(other)) => {
                    at.iter().zip(other).for_each(|(&at, value)| column[at] = column[at].saturating_add(*value));
                }
                (Column::Sum(column), Column::Sum(other)) => {
                    at.iter().zip(other).for_each(|(&at, value)| column[at] += value);
                }
                (Column::Min(column), Column::Min(other)) => {
                    at.iter().zip(other).for_each(|(&at, value)| column[at] = column[at].min(*value));
                }
                (Column::Max(column), Column::Max(other)) => {
                    at.iter().zip(other).for_each(|(&at, value)| column[at] = column[at].max(*value));
                }
                (Column::Uniq(column), Column::Uniq(other)) => {
                    at.iter().zip(other).for_each(|(&at, sketch)| merge_shared(&mut column[at], sketch));
                }
                (Column::Summary(column), Column::Summary(other)) => {
                    at.iter().zip(other).for_each(|(&at, summary)| merge_shared(&mut column[at], summary));
                }
                _ => unreachable!("cells of one metric have the same kinds"),
            }
        }
    }

    /// Makes room for these combinations, ascending, and gives the row of each.
    fn place(&mut self, combinations: impl Iterator<Item = u32> + Clone) -> Vec<usize> {
        let (rows, was_there) = union(&self.rows, combinations.clone());
        if rows.len() > self.rows.len() {
            self.columns.iter_mut().for_each(|column| column.spread(&was_there));
            self.rows = rows;
        }
        let mut at = 0;
        let row_of = |combination| {
            while self.rows[at] != combination {
                at += 1;
            }
            at
        };
        combinations.map(row_of).collect()
    }
}

/// Both ascending lists as one without repeats, and for each whether it was in the first.
fn union(first: &[u32], second: impl Iterator<Item = u32>) -> (Vec<u32>, Vec<bool>) {
    let mut rows = Vec::with_capacity(first.len() + second.size_hint().0);
    let mut was_there = Vec::with_capacity(rows.capacity());
    let mut first = first.iter().copied().peekable();
    for combination in second {
        while let Some(row) = first.next_if(|&row| row <= combination) {
            rows.push(row);
            was_there.push(true);
        }
        if rows.last() != Some(&combination) {
            rows.push(combination);
            was_there.push(false);
        }
    }
    rows.extend(first);
    was_there.resize(rows.len(), true);
    (rows, was_there)
}

/// What is behind an `Arc` because it is large.
pub trait Large: Clone + Default {
    fn is_nothing(&self) -> bool;
    fn merge_with(&mut self, other: &Self);
    fn shrink(&mut self);
}

impl Large for Sketch {
    fn is_nothing(&self) -> bool {
        self.is_empty()
    }

    fn merge_with(&mut self, other: &Self) {
        self.merge(other);
    }

    fn shrink(&mut self) {
        if let Self::Sparse(entries) = self {
            entries.shrink_to_fit();
        }
    }
}

impl Large for Summary {
    fn is_nothing(&self) -> bool {
        self.is_empty()
    }

    fn merge_with(&mut self, other: &Self) {
        self.merge(other);
    }

    fn shrink(&mut self) {}
}

fn merge_owned<T: Large>(into: &mut Arc<T>, state: &mut T, take: bool) {
    if !into.is_nothing() {
        return Arc::make_mut(into).merge_with(state);
    }
    let mut state = if take { std::mem::take(state) } else { state.clone() };
    state.shrink();
    *into = Arc::new(state);
}

/// Without a copy where there is nothing to merge with.
pub fn merge_shared<T: Large>(into: &mut Arc<T>, state: &Arc<T>) {
    if into.is_nothing() {
        *into = state.clone();
    } else {
        Arc::make_mut(into).merge_with(state);
    }
}

impl Pane {
    pub fn new(kinds: &[StateKind]) -> Self {
        Self { full: Cells::new(kinds), margins: Cells::new(kinds) }
    }

    pub fn bytes(&self) -> usize {
        self.full.bytes() + self.margins.bytes()
    }

    pub fn merge(&mut self, other: &Self) {
        self.full.merge(&other.full);
        self.margins.merge(&other.margins);
    }
}
