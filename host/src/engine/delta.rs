//! What happened since the last tick: partial aggregates and the source positions they cover. Handed to `HotStore::apply` whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::plan::Plan;
use super::sketch::Sketch;
use super::summary::Summary;
use crate::time::{Millis, Minute};

/// A source partition: a lane of the journal, a partition of a topic.
pub type SourceId = u32;

/// Which part of the state a position belongs to. Each (group, source) pair advances by itself.
pub type StateGroup = u32;

/// The one group of a host that keeps all its state together.
pub const GROUP_ALL: StateGroup = 0;

/// A line of the log that was not counted: its source, the position of its batch or message, the byte of that where it begins.
pub type Uncounted = (SourceId, u64, u32);

/// `[from, to)` of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange {
    pub group: StateGroup,
    pub source: SourceId,
    pub from: u64,
    pub to: u64,
    /// Arrival of the newest batch covered.
    pub arrival: Millis,
}

/// Covers one contiguous range of each of its sources. Applied whole or not at all.
#[derive(Default)]
pub struct Delta {
    pub sources: Vec<SourceRange>,
    /// One a shard, and one more where a shard changed its plan in between.
    pub partials: Vec<Partial>,
}

pub struct Partial {
    pub plan: Arc<Plan>,
    /// For each of the plan's dimensions the values that occur, by the codes used below. The empty string is "no value".
    pub values: Vec<Vec<DimensionValue>>,
    /// For each of the plan's groups.
    pub groups: Vec<GroupPartial>,
    /// Metrics that something happened to.
    pub metrics: Vec<MetricPartial>,
}

#[derive(Clone, Debug)]
pub struct DimensionValue {
    pub text: Arc<str>,
    /// Events with this value since the last tick, whatever metric they matter to.
    pub events: u64,
}

/// The (minute, dimension values) of a group, numbered: distinct as a shard makes them, with repeats where several were joined.
#[derive(Clone, Debug, Default)]
pub struct GroupPartial {
    /// Where the first event of each stood in the input: the lowest is the first to be kept where there is a limit.
    pub order: Vec<u64>,
    pub minutes: Vec<Minute>,
    /// Which of the distinct combinations each has.
    pub combinations: Vec<u32>,
    /// The distinct combinations: codes into `Partial::values`, one a dimension of the group, combination after combination.
    pub codes: Vec<u32>,
}

impl GroupPartial {
    pub fn combination_count(&self) -> usize {
        self.combinations.iter().max().map_or(0, |&last| last as usize + 1)
    }

    /// The UTC days and combinations of these rows, each once, in the order in which they came in.
    pub fn first_come(&self, rows: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
        const NEVER: u64 = u64::MAX;
        let count = self.combination_count();
        let mut days: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for row in rows {
            let row = row as usize;
            let of_day = days.entry(self.minutes[row].day()).or_insert_with(|| vec![NEVER; count]);
            let first = &mut of_day[self.combinations[row] as usize];
            *first = (*first).min(self.order[row]);
        }
        let came = days.iter().flat_map(|(day, firsts)| {
            let came = firsts.iter().enumerate().filter(|(_, order)| **order != NEVER);
            came.map(|(combination, order)| (*order, *day, combination as u32))
        });
        let mut came: Vec<(u64, u32, u32)> = came.collect();
        came.sort_unstable();
        came.into_iter().map(|(_, day, combination)| (day, combination)).collect()
    }
}

#[derive(Clone, Debug)]
pub struct MetricPartial {
    /// Index into the plan's metrics.
    pub metric: usize,
    /// Rows of the metric's group that have a cell.
    pub rows: Vec<u32>,
    /// For each slot of the metric, one state a row.
    pub slots: Vec<States>,
}

/// Mergeable states of one slot for many cells.
#[derive(Clone, Debug, PartialEq)]
pub enum States {
    Count(Vec<u64>),
    Sum(Vec<f64>),
    /// Positive infinity: nothing seen.
    Min(Vec<f64>),
    /// Negative infinity: nothing seen.
    Max(Vec<f64>),
    /// Full combinations only; margins are made where they are kept.
    Uniq(Vec<Sketch>),
    Summary(Vec<Summary>),
}

impl States {
    /// Moves these rows out.
    pub fn take(&mut self, rows: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Count(states) => Self::Count(rows.map(|row| states[row]).collect()),
            Self::Sum(states) => Self::Sum(rows.map(|row| states[row]).collect()),
            Self::Min(states) => Self::Min(rows.map(|row| states[row]).collect()),
            Self::Max(states) => Self::Max(rows.map(|row| states[row]).collect()),
            Self::Uniq(states) => Self::Uniq(rows.map(|row| std::mem::take(&mut states[row])).collect()),
            Self::Summary(states) => Self::Summary(rows.map(|row| std::mem::take(&mut states[row])).collect()),
        }
    }
}
