//! Where state lives: traits, and their implementations in the modules below. Knows cells, positions and time; not what a metric means.

mod answer;
mod cells;
pub mod clickhouse;
pub mod embedded;
pub mod ledger;
pub mod memory;
mod pane;
pub mod reader;
pub mod redis;
#[cfg(test)]
mod suite;
mod table;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use pane::{Decoded, Wanted};

use crate::engine::delta::{Delta, SourceId, StateGroup};
use crate::engine::plan::{Fingerprint, StateKind};
use crate::engine::sketch::Sketch;
use crate::engine::summary::Summary;
use crate::time::{Millis, Minute};

/// What dimension values past a limit are kept under.
pub const OTHER: &str = "__other__";

/// The store's change number: grows with every apply that changed something.
pub type Seq = u64;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The delta does not begin where the stored position is: dropped whole. Its source is to be read again from `stored`.
    #[error("source {source_id} of group {group} is at {stored}, the delta begins at {from}")]
    Position { group: StateGroup, source_id: SourceId, stored: u64, from: u64 },
    /// What the delta fills is no longer a gap, or one of other metrics: it is dropped whole.
    #[error("nothing is to be filled under group {group} any more")]
    NoGap { group: StateGroup },
    /// Another host has taken the source over: the delta is dropped whole, and this host no longer counts it.
    #[error("source {source_id} was taken over by another host (epoch {stored}, this host has {epoch})")]
    Fenced { source_id: SourceId, epoch: u64, stored: u64 },
    /// The service does not answer, is full or does not take writes: the same may work later.
    #[error("{0}")]
    Unavailable(String),
    /// The service was emptied, restarted or replaced: what was known of it is forgotten, and positions may have gone back.
    #[error("the hot store began again: positions may have gone back")]
    Restarted,
    #[error("the data folder has format {found}, this version reads {known}")]
    Format { found: u32, known: u32 },
    #[error("the data folder {} is in use by another host", .folder.display())]
    Locked { folder: PathBuf },
    #[error("{0}")]
    Corrupt(String),
    #[error("storage failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("storage failed: {0}")]
    Engine(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub group: StateGroup,
    pub source: SourceId,
    pub next: u64,
    /// Arrival of the newest batch before `next`.
    pub arrival: Millis,
}

/// How far back metrics are complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Minutes from here on have all their events; older ones may lack some. 0: nothing is missing.
    pub complete_from: Millis,
    /// What is missing may still be filled from the log.
    pub filling: bool,
}

/// What the reader wants of one metric: its states by some of its dimensions, at minute or hour resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadRequest {
    /// The metric's fingerprint and those of its predecessors: each event is in exactly one of them, so states add up.
    pub fingerprints: Vec<Fingerprint>,
    pub kinds: Vec<StateKind>,
    /// Has margins (see `Metric::keeps_margins`).
    pub margins: bool,
    /// How many dimensions the metric has; the indexes below count among them, in the order of its `by`.
    pub dimensions: usize,
    pub by: Vec<usize>,
    /// All must hold; a dimension's value must be one of those listed.
    pub filters: Vec<(usize, Vec<String>)>,
    pub resolution: Resolution,
    /// Ascending, not overlapping; whole hours where the resolution is an hour. Minutes since the epoch.
    pub ranges: Vec<Range<Minute>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    Minute,
    Hour,
}

/// The answer, at one point in time. Steps are those of the request's ranges, one behind the other, without what lies between.
#[derive(Clone, Debug, Default)]
pub struct ReadAnswer {
    pub seq: Seq,
    /// Start of each step.
    pub steps: Vec<Minute>,
    /// Sorted by labels.
    pub series: Vec<StateSeries>,
}

#[derive(Clone, Debug)]
pub struct StateSeries {
    /// One value for each of the request's `by`.
    pub labels: Vec<Arc<str>>,
    /// True at steps that have a cell.
    pub present: Vec<bool>,
    /// For each of the request's kinds, one state a step.
    pub states: Vec<StateColumn>,
}

#[derive(Clone, Debug)]
pub enum StateColumn {
    Count(Vec<u64>),
    Sum(Vec<f64>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Uniq(Vec<Option<Arc<Sketch>>>),
    Summary(Vec<Option<Arc<Summary>>>),
}

/// Minutes, mergeable, for lateness + the longest window + 1 h. Called from blocking threads.
pub trait HotStore: Send + Sync {
    /// Where each source goes on. A source that was never seen is not listed: it begins at 0.
    fn positions(&self) -> Result<Vec<Position>, StoreError>;

    /// Merges the cells and advances the positions in one step, only if every source of the delta stands where it begins.
    /// Decides which combinations are kept (limits). Gives the change number after it.
    fn apply(&self, delta: Delta) -> Result<Seq, StoreError>;

    fn seq(&self) -> Seq;

    /// Minutes of these metrics that changed after `since`, ascending; `None`: not known so far back, take it that all did.
    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError>;
}

/// Closed minutes (7 days) and hours (400 days) as absolute mergeable states.
pub trait HistoryStore: Send + Sync {
    /// Replaces what is stored for these panes. Writing the same twice is harmless.
    fn write(&self, panes: &[PaneRecord]) -> Result<(), StoreError>;

    /// Hands over the panes that the request names, ascending by start, until `each` fails.
    fn read(
        &self,
        request: &PaneRequest<'_>,
        each: &mut dyn FnMut(StoredPane) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// What retention no longer covers is not read any more, and removed.
    fn expire(&self, now: Millis) -> Result<(), StoreError>;
}

/// What people call a metric and its dimensions, in the order of its `by`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub metric: Arc<str>,
    pub dimensions: Vec<Arc<str>>,
}

/// What is wanted of a metric's history.
#[derive(Clone, Debug)]
pub struct PaneRequest<'r> {
    pub fingerprint: Fingerprint,
    pub resolution: Resolution,
    pub steps: Range<Minute>,
    pub wanted: Wanted,
    /// For each dimension whether its values matter; `None`: all do. A store may merge cells that differ in others only,
    /// whatever it says of the others then.
    pub selected: Option<&'r [bool]>,
    /// Cells that one of these excludes may be left out, or not.
    pub filters: &'r [(usize, Vec<String>)],
}

/// A pane as history has it.
#[derive(Debug, PartialEq)]
pub struct StoredPane {
    pub start: Minute,
    pub version: u64,
    pub content: Decoded,
}

/// All cells of one metric at one minute or hour, encoded (`store/pane.rs`).
#[derive(Clone, Debug, PartialEq)]
pub struct PaneRecord {
    pub names: Arc<Names>,
    pub fingerprint: Fingerprint,
    pub resolution: Resolution,
    pub start: Minute,
    /// A higher one replaces a lower one.
    pub version: u64,
    pub bytes: Vec<u8>,
}

/// What queries read: hot and history joined at one point in time.
pub trait StateReader: Send + Sync {
    fn read(&self, request: &ReadRequest) -> Result<ReadAnswer, StoreError>;

    fn seq(&self) -> Seq;

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError>;

    /// Values of a dimension by name with the number of events that had them, most frequent first.
    fn dimension_values(&self, dimension: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError>;

    /// How far back the metrics of these lineages are complete together.
    fn coverage(&self, _lineages: &[Fingerprint]) -> Coverage {
        Coverage::default()
    }

    /// Points that start at or after this can still change without being late: the first minute that is not closed.
    fn provisional_from(&self) -> Minute;
}
