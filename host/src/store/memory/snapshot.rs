//! What goes to disk, as of one moment: references to what changed since the last checkpoint, taken under a short lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{Day, Held, MetricState, State};
use crate::engine::delta::{SourceId, StateGroup};
use crate::engine::plan::{Fingerprint, StateKind};
use crate::store::cells::Pane;
use crate::store::ledger::Ledger;
use crate::store::pane::{Meaning, encode};
use crate::store::{Names, PaneRecord, Resolution, Seq, StoreError};
use crate::time::{Millis, Minute};

/// The part that is small and always written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub seq: Seq,
    pub closed: Minute,
    pub complete_from: Minute,
    pub forgotten: Seq,
    /// Closed minutes from here on may not be in history: it could not be written.
    #[serde(default)]
    pub unwritten_from: Option<Minute>,
    pub positions: Vec<(StateGroup, SourceId, u64, Millis)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricShape {
    #[serde(default)]
    pub name: Arc<str>,
    pub dimensions: Vec<Arc<str>>,
    pub kinds: Vec<StateKind>,
    pub margins: bool,
    pub limit: u32,
}

/// Values kept on a day of event time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptValues {
    pub values: Vec<Arc<str>>,
    pub limit: u32,
    pub over: u64,
}

/// Values with their events.
pub type Counted = Vec<(Arc<str>, u64)>;

/// Something that is no longer in memory and is to be removed from the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    Metric(Fingerprint),
    Day(Fingerprint, u32),
    Pane(Fingerprint, Minute),
    KeptValues(Arc<str>, u32),
    Counts(Arc<str>, u32),
}

#[derive(Default)]
pub struct Snapshot {
    pub head: Head,
    /// Where it changed.
    pub ledger: Option<Ledger>,
    pub metrics: Vec<(Fingerprint, MetricShape)>,
    pub days: Vec<(Fingerprint, u32, DaySnapshot)>,
    pub panes: Vec<PaneSnapshot>,
    pub hours: Vec<HourSnapshot>,
    pub kept_values: Vec<(Arc<str>, u32, KeptValues)>,
    pub counts: Vec<(Arc<str>, u32, Counted)>,
    pub dropped: Vec<Dropped>,
    /// How many of the state's `dropped` were seen.
    dropped_seen: usize,
}

/// What the numbers of one metric and day mean.
#[derive(Clone)]
pub struct DaySnapshot {
    pub names: Arc<Names>,
    pub kinds: Arc<Vec<StateKind>>,
    pub texts: Arc<Vec<Arc<Vec<Arc<str>>>>>,
    pub day: Arc<Day>,
}

pub struct PaneSnapshot {
    pub fingerprint: Fingerprint,
    pub minute: Minute,
    pub seq: Seq,
    pub pane: Arc<Pane>,
    pub day: DaySnapshot,
    /// The checkpoint does not have it as it is.
    pub save: bool,
    /// Its minute is closed and history does not have it as it is.
    pub write: bool,
}

/// A closed hour that history does not have as it is.
pub struct HourSnapshot {
    pub fingerprint: Fingerprint,
    pub hour: Minute,
    /// The newest change of its minutes.
    pub seq: Seq,
    pub panes: Vec<Arc<Pane>>,
    pub day: DaySnapshot,
}

impl DaySnapshot {
    fn encode_with(&self, kinds: &[StateKind], pane: &Pane) -> Result<Vec<u8>, StoreError> {
        let texts: Vec<&[Arc<str>]> = self.texts.iter().map(|texts| texts.as_slice()).collect();
        let (full, margins) = (self.day.full.combinations(), self.day.margins.combinations());
        encode(Meaning { kinds, texts: &texts, full, margins }, pane)
    }

    /// The day's combinations in the order of their numbers, as a pane without slots. Margins follow from them.
    pub fn encode_combinations(&self) -> Result<Vec<u8>, StoreError> {
        let mut pane = Pane::new(&[]);
        pane.full.rows = (0..self.day.full.len() as u32).collect();
        self.encode_with(&[], &pane)
    }
}

impl PaneSnapshot {
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        self.day.encode_with(&self.day.kinds, &self.pane)
    }

    pub fn record(&self, bytes: Vec<u8>) -> PaneRecord {
        let (fingerprint, start, version) = (self.fingerprint, self.minute, self.seq);
        PaneRecord { names: self.day.names.clone(), fingerprint, resolution: Resolution::Minute, start, version, bytes }
    }
}

impl HourSnapshot {
    pub fn record(&self) -> Result<PaneRecord, StoreError> {
        let mut whole = Pane::new(&self.day.kinds);
        self.panes.iter().for_each(|pane| whole.merge(pane));
        let bytes = self.day.encode_with(&self.day.kinds, &whole)?;
        let (fingerprint, start, version) = (self.fingerprint, self.hour, self.seq);
        let names = self.day.names.clone();
        Ok(PaneRecord { names, fingerprint, resolution: Resolution::Hour, start, version, bytes })
    }
}

impl Snapshot {
    pub fn take(state: &State) -> Self {
        let mut snapshot = Self { head: head(state), dropped_seen: state.dropped.len(), ..Self::default() };
        for (&fingerprint, metric) in &state.metrics {
            snapshot.take_metric(state, fingerprint, metric);
        }
        for (name, dimension) in &state.dimensions {
            for (&day, values) in dimension.days.iter().filter(|(_, values)| values.seq > state.saved) {
                let mut kept: Vec<u32> = values.kept.iter().copied().collect();
                kept.sort_unstable();
                let text = |&number: &u32| dimension.values.texts[number as usize].clone();
                let values =
                    KeptValues { values: kept.iter().map(text).collect(), limit: values.limit, over: values.over };
                snapshot.kept_values.push((name.clone(), day, values));
            }
            for (&day, counts) in dimension.counts.iter().filter(|(_, counts)| counts.seq > state.saved) {
                let mut counts: Vec<_> = counts.events.iter().map(|(text, events)| (text.clone(), *events)).collect();
                counts.sort_unstable();
                snapshot.counts.push((name.clone(), day, counts));
            }
        }
        snapshot.ledger = state.ledger.clone().filter(|_| state.ledger_unsaved);
        let gone = |dropped: &&Dropped| !is_back(state, dropped);
        snapshot.dropped = state.dropped.iter().filter(gone).cloned().collect();
        snapshot
    }

    fn take_metric(&mut self, state: &State, fingerprint: Fingerprint, metric: &MetricState) {
        self.metrics.push((fingerprint, shape(metric)));
        let kinds = Arc::new(metric.kinds.clone());
        let texts = metric.dimensions.iter().map(|name| state.dimensions[name].values.texts.clone());
        let texts = Arc::new(texts.collect::<Vec<_>>());
        let names = Arc::new(Names { metric: metric.name.clone(), dimensions: metric.dimensions.clone() });
        let of_day = |day: &Arc<Day>| {
            let (names, kinds, texts) = (names.clone(), kinds.clone(), texts.clone());
            DaySnapshot { names, kinds, texts, day: day.clone() }
        };
        let changed = metric.days.iter().filter(|(_, day)| day.seq > state.saved);
        self.days.extend(changed.map(|(&number, day)| (fingerprint, number, of_day(day))));

        let mut hours: BTreeMap<Minute, (Seq, Vec<Arc<Pane>>)> = BTreeMap::new();
        for (&minute, held) in &metric.panes {
            let hour = hours.entry(minute.hour()).or_default();
            hour.0 = hour.0.max(held.seq);
            hour.1.push(held.pane.clone());
            let (save, write) = (held.seq > held.saved, minute < state.closed && held.seq > held.written);
            if let Some(day) = metric.days.get(&minute.day())
                && (save || write)
            {
                let (seq, pane, day) = (held.seq, held.pane.clone(), of_day(day));
                self.panes.push(PaneSnapshot { fingerprint, minute, seq, pane, day, save, write });
            }
        }
        for (hour, (seq, panes)) in hours {
            let closed = hour.0 + 60 <= state.closed.0;
            let written = metric.hours_written.get(&hour).is_some_and(|&written| written >= seq);
            if let Some(day) = metric.days.get(&hour.day())
                && closed
                && !written
            {
                self.hours.push(HourSnapshot { fingerprint, hour, seq, panes, day: of_day(day) });
            }
        }
    }

    /// History was not written: all that was to go there still is.
    pub fn leave_history(&mut self) {
        let minutes = self.panes.iter().filter(|pane| pane.write).map(|pane| pane.minute);
        self.head.unwritten_from = minutes.chain(self.hours.iter().map(|hour| hour.hour)).min();
        self.panes.iter_mut().for_each(|pane| pane.write = false);
        self.hours.clear();
    }

    /// Notes in the state that all of this is on disk.
    pub fn note_saved(&self, state: &mut State) {
        state.saved = self.head.seq;
        state.ledger_unsaved &= state.ledger != self.ledger;
        for pane in &self.panes {
            let held = state.metrics.get_mut(&pane.fingerprint).and_then(|metric| metric.panes.get_mut(&pane.minute));
            if let Some(Held { saved, written, .. }) = held {
                *saved = (*saved).max(pane.seq);
                *written = if pane.write { (*written).max(pane.seq) } else { *written };
            }
        }
        for hour in &self.hours {
            if let Some(metric) = state.metrics.get_mut(&hour.fingerprint) {
                metric.hours_written.insert(hour.hour, hour.seq);
            }
        }
        state.dropped.drain(..self.dropped_seen);
    }
}

fn head(state: &State) -> Head {
    let position = |(&(group, source), &(next, arrival))| (group, source, next, arrival);
    Head {
        seq: state.seq,
        closed: state.closed,
        complete_from: state.complete_from,
        forgotten: state.forgotten,
        unwritten_from: None,
        positions: state.positions.iter().map(position).collect(),
    }
}

fn shape(metric: &MetricState) -> MetricShape {
    let (name, dimensions, kinds) = (metric.name.clone(), metric.dimensions.clone(), metric.kinds.clone());
    MetricShape { name, dimensions, kinds, margins: metric.margins, limit: metric.limit }
}

/// Dropped, and came again since.
fn is_back(state: &State, dropped: &Dropped) -> bool {
    let metric = |fingerprint| state.metrics.get(fingerprint);
    let dimension = |name| state.dimensions.get::<Arc<str>>(name);
    match dropped {
        Dropped::Metric(fingerprint) => metric(fingerprint).is_some(),
        Dropped::Day(fingerprint, day) => metric(fingerprint).is_some_and(|metric| metric.days.contains_key(day)),
        Dropped::Pane(fingerprint, minute) => {
            metric(fingerprint).is_some_and(|metric| metric.panes.contains_key(minute))
        }
        Dropped::KeptValues(name, day) => dimension(name).is_some_and(|dimension| dimension.days.contains_key(day)),
        Dropped::Counts(name, day) => dimension(name).is_some_and(|dimension| dimension.counts.contains_key(day)),
    }
}
