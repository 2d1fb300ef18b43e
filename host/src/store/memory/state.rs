//! What the memory store holds: by metric and minute the cells, by metric and day the combinations kept, by dimension the values.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::snapshot::Dropped;
use crate::engine::plan::{Fingerprint, StateKind};
use crate::store::cells::Pane;
use crate::store::ledger::{Ledger, Positions};
use crate::store::table::{ANY, EMPTY, OTHER, Table};
use crate::store::{OTHER as OTHER_TEXT, Seq};
use crate::time::Minute;

#[derive(Default)]
pub struct State {
    pub seq: Seq,
    pub positions: Positions,
    /// `None`: the state is of a version that had none.
    pub ledger: Option<Ledger>,
    /// The ledger has changed since it was last saved.
    pub ledger_unsaved: bool,
    pub metrics: BTreeMap<Fingerprint, MetricState>,
    pub dimensions: BTreeMap<Arc<str>, DimensionState>,
    /// The first minute that is not closed.
    pub closed: Minute,
    /// Older minutes are whole only where `MetricState::reloaded` says so.
    pub complete_from: Minute,
    /// The newest change among the panes that were dropped.
    pub forgotten: Seq,
    /// The change up to which the checkpoint has everything.
    pub saved: Seq,
    /// What the checkpoint still has and memory no longer.
    pub dropped: Vec<Dropped>,
    /// Rough heap bytes of the panes.
    pub pane_bytes: usize,
}

pub struct MetricState {
    /// What people call it; part of its fingerprint.
    pub name: Arc<str>,
    /// Names, in the order of the metric's `by`.
    pub dimensions: Vec<Arc<str>>,
    pub kinds: Vec<StateKind>,
    pub margins: bool,
    pub limit: u32,
    pub days: BTreeMap<u32, Arc<Day>>,
    pub panes: BTreeMap<Minute, Held>,
    /// For each hour in history, the change it holds.
    pub hours_written: BTreeMap<Minute, Seq>,
    /// Hours before `complete_from` that were read back from history, because a delta brought something for them.
    pub reloaded: BTreeSet<Minute>,
}

/// A pane and how far it was carried.
pub struct Held {
    pub pane: Arc<Pane>,
    /// The last change.
    pub seq: Seq,
    /// The change that the checkpoint holds.
    pub saved: Seq,
    /// The change that history holds.
    pub written: Seq,
    pub bytes: usize,
}

/// Which combinations of a metric are kept on one UTC day of event time.
#[derive(Clone, Debug, Default)]
pub struct Day {
    pub full: Table,
    pub margins: Table,
    /// For each full combination its margins, `margins_each` numbers one behind the other.
    pub margins_of: Vec<u32>,
    pub margins_each: usize,
    /// Full combinations that count to the limit.
    pub kept: u32,
    /// Combinations with only the first value standing, kept on top of the limit.
    pub firsts: u32,
    /// Combinations that were put under `__other__`, counted once a tick.
    pub over: u64,
    /// The change that last added to it.
    pub seq: Seq,
}

impl Day {
    pub fn new(width: usize, margins: bool) -> Self {
        // One dimension: the full combinations are the margins of it. None: the full combination is the total.
        let margins_each = if !margins || width == 0 {
            0
        } else if width == 1 {
            1
        } else {
            width + 1
        };
        Self { full: Table::new(width), margins: Table::new(width), margins_each, ..Self::default() }
    }

    /// The number a cell is kept under, if it is decided already.
    pub fn find(&self, combination: &[u32]) -> Option<u32> {
        self.full.find(combination)
    }

    /// Decides what a combination that was not seen today is kept under, and makes it so in `combination`: itself while there
    /// are fewer than `limit`; then dimensions become `__other__` from the last to the first until the combination is one
    /// that is kept. Two kinds are kept on top of the limit: those where only the first value stands, as many again, so that
    /// totals by the first stay right; and the one that is `__other__` throughout. True if `combination` has yet to be added.
    pub fn place(&mut self, combination: &mut [u32], limit: u32) -> bool {
        if self.kept < limit {
            self.kept += 1;
            return true;
        }
        // One that came with nothing but its first value may be kept as it is.
        let only_first = combination.len() > 1 && combination[1..].iter().all(|&value| value == OTHER);
        self.over += u64::from(!only_first || combination[0] == OTHER || self.firsts >= limit);
        for last in (1..combination.len()).rev() {
            combination[last] = OTHER;
            if self.full.find(combination).is_some() {
                return false;
            }
        }
        if combination.len() > 1 && combination[0] != OTHER && self.firsts < limit {
            self.firsts += 1;
            return true;
        }
        combination.fill(OTHER);
        self.full.find(combination).is_none()
    }

    pub fn add(&mut self, combination: &[u32]) -> u32 {
        let before = self.full.len();
        let number = self.full.insert(combination);
        if self.full.len() > before {
            self.add_margins(combination);
        }
        number
    }

    fn add_margins(&mut self, combination: &[u32]) {
        if self.margins_each == 0 {
            return;
        }
        let mut margin = vec![ANY; combination.len()];
        self.margins_of.push(self.margins.insert(&margin));
        if self.margins_each == 1 {
            return;
        }
        for (at, &value) in combination.iter().enumerate() {
            margin[at] = value;
            self.margins_of.push(self.margins.insert(&margin));
            margin[at] = ANY;
        }
    }

    pub fn margins_of(&self, number: u32) -> &[u32] {
        &self.margins_of[number as usize * self.margins_each..][..self.margins_each]
    }

    pub fn bytes(&self) -> usize {
        self.full.bytes() + self.margins.bytes() + self.margins_of.len() * 4
    }
}

impl MetricState {
    pub fn new(name: Arc<str>, dimensions: Vec<Arc<str>>, kinds: Vec<StateKind>, margins: bool, limit: u32) -> Self {
        Self {
            name,
            dimensions,
            kinds,
            margins,
            limit,
            days: BTreeMap::new(),
            panes: BTreeMap::new(),
            hours_written: BTreeMap::new(),
            reloaded: BTreeSet::new(),
        }
    }

    pub fn day(&mut self, day: u32) -> &mut Arc<Day> {
        let (width, margins) = (self.dimensions.len(), self.margins);
        self.days.entry(day).or_insert_with(|| Arc::new(Day::new(width, margins)))
    }
}

impl Held {
    pub fn new(kinds: &[StateKind]) -> Self {
        Self { pane: Arc::new(Pane::new(kinds)), seq: 0, saved: 0, written: 0, bytes: 0 }
    }
}

/// Distinct values of one dimension, by name; shared by all metrics.
#[derive(Default)]
pub struct DimensionState {
    pub values: Values,
    /// By UTC day of event time; only where the dimension has a limit.
    pub days: BTreeMap<u32, DayValues>,
    /// Events by value, by UTC day of arrival.
    pub counts: BTreeMap<u32, Counts>,
}

/// Events by value.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub events: HashMap<Arc<str>, u64>,
    /// The last change.
    pub seq: Seq,
}

/// Values kept on one day under a limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DayValues {
    pub kept: HashSet<u32>,
    pub limit: u32,
    /// Combinations that were put under `__other__`, counted once a tick.
    pub over: u64,
    /// The last change.
    pub seq: Seq,
}

/// Numbers for texts; `EMPTY` and `OTHER` are always there.
#[derive(Clone, Debug)]
pub struct Values {
    /// Shared with readers.
    pub texts: Arc<Vec<Arc<str>>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Default for Values {
    fn default() -> Self {
        let mut values = Self { texts: Arc::default(), numbers: HashMap::new() };
        assert_eq!((values.number(&"".into()), values.number(&OTHER_TEXT.into())), (EMPTY, OTHER));
        values
    }
}

impl Values {
    pub fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    pub fn number(&mut self, text: &Arc<str>) -> u32 {
        if let Some(number) = self.find(text) {
            return number;
        }
        let number = self.texts.len() as u32;
        Arc::make_mut(&mut self.texts).push(text.clone());
        self.numbers.insert(text.clone(), number);
        number
    }

    pub fn bytes(&self) -> usize {
        self.texts.iter().map(|text| text.len() + 64).sum()
    }
}
