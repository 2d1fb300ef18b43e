//! What a delta writes, as parts for `lua/merge.lua`: each small enough that merging it keeps Redis from others for a few
//! milliseconds only. A field of a key is in one item of a delta at most.

use std::collections::BTreeMap;

use super::hll;
use super::pack::Pack;
use super::translate::{MetricPanes, Translated};
use crate::engine::plan::StateKind;
use crate::engine::sketch::Sketch;
use crate::store::cells::{Cells, Column};
use crate::time::Minute;

/// Rows under one key, so that Redis keeps them in its compact form.
pub const BUCKET: u32 = 100;

/// What merging a part may cost Redis, by the estimates below.
const PART_COST_MAX_US: usize = 5_000;
const PART_BYTES_MAX: usize = 1 << 20;

const ITEM_COST_US: usize = 4;
const ROW_COST_US: usize = 1;
const DENSE_COST_US: usize = 100;
const ENTRIES_COST_US: usize = 3;
const VALUE_COST_US: usize = 1;
/// Bytes appended in a microsecond, those that are there already copied.
const SUMMARY_BYTES_A_US: usize = 500;
/// Values under one item.
const VALUES_EACH: usize = 500;

/// Full combinations, or margins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Full,
    Margins,
}

impl Space {
    pub const BOTH: [Self; 2] = [Self::Full, Self::Margins];

    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "f",
            Self::Margins => "m",
        }
    }
}

/// How the slots that are numbers merge, as `lua/merge.lua` names it; sketches are kept apart.
pub fn row_kinds(kinds: &[StateKind]) -> String {
    let name = |kind: &StateKind| match kind {
        StateKind::Count | StateKind::Sum => Some('+'),
        StateKind::Min => Some('<'),
        StateKind::Max => Some('>'),
        StateKind::Uniq | StateKind::Quantile | StateKind::Top | StateKind::Funnel => None,
    };
    kinds.iter().filter_map(name).collect()
}

/// Collects items into parts.
#[derive(Default)]
struct Parts {
    done: Vec<Vec<u8>>,
    items: Vec<u8>,
    count: usize,
    cost: usize,
}

impl Parts {
    fn push(&mut self, item: Pack, cost_us: usize) {
        let full = self.cost + cost_us > PART_COST_MAX_US || self.items.len() + item.0.len() > PART_BYTES_MAX;
        if full && self.count > 0 {
            self.close();
        }
        self.items.extend(item.0);
        self.count += 1;
        self.cost += cost_us;
    }

    fn close(&mut self) {
        let mut part = Pack::default();
        part.array(self.count);
        part.0.append(&mut self.items);
        self.done.push(part.0);
        (self.count, self.cost) = (0, 0);
    }
}

pub fn parts(translated: &Translated) -> Vec<Vec<u8>> {
    let mut parts = Parts::default();
    for metric in &translated.metrics {
        for (&minute, pane) in &metric.panes {
            for (space, cells) in [(Space::Full, &pane.full), (Space::Margins, &pane.margins)] {
                push_rows(&mut parts, metric, minute, space, cells);
                push_sketches(&mut parts, metric, minute, space, cells);
                push_summaries(&mut parts, metric, minute, space, cells);
            }
        }
    }
    for ((dimension, day), values) in &translated.values {
        let values: Vec<_> = values.iter().collect();
        for values in values.chunks(VALUES_EACH) {
            let mut item = Pack::default();
            item.array(5).bytes("v").bytes(&**dimension).bytes(day.to_string()).array(values.len());
            for (text, _) in values.iter() {
                item.bytes(text.as_bytes());
            }
            item.array(values.len());
            for (_, events) in values.iter() {
                item.number(**events);
            }
            parts.push(item, ITEM_COST_US + VALUE_COST_US * values.len());
        }
    }
    if parts.count > 0 {
        parts.close();
    }
    parts.done
}

/// Counts are floats here: exact up to 2^53, and one kind of number for all.
fn number(column: &Column, row: usize) -> Option<f64> {
    match column {
        Column::Count(column) => Some(column[row] as f64),
        Column::Sum(column) | Column::Min(column) | Column::Max(column) => Some(column[row]),
        Column::Uniq(_) | Column::Summary(_) => None,
    }
}

fn push_rows(parts: &mut Parts, metric: &MetricPanes, minute: Minute, space: Space, cells: &Cells) {
    let kinds = row_kinds(&metric.shape.kinds);
    let mut from = 0;
    for rows in cells.rows.chunk_by(|a, b| a / BUCKET == b / BUCKET) {
        let bucket = rows[0] / BUCKET;
        let mut item = head("r", metric, minute);
        item.bytes(space.name()).bytes(bucket.to_string()).bytes(&kinds).array(rows.len());
        for number in rows.iter() {
            item.number(u64::from(number % BUCKET));
        }
        let mut bytes = Vec::with_capacity(rows.len() * kinds.len() * 8);
        for row in from..from + rows.len() {
            for value in cells.columns.iter().filter_map(|column| number(column, row)) {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        item.bytes(bytes);
        parts.push(item, ITEM_COST_US + ROW_COST_US * rows.len() * (kinds.len() + 1));
        from += rows.len();
    }
}

/// What only the engine merges is appended as it is encoded, and merged by whoever reads it.
fn push_summaries(parts: &mut Parts, metric: &MetricPanes, minute: Minute, space: Space, cells: &Cells) {
    for (slot, column) in cells.columns.iter().enumerate() {
        let Column::Summary(summaries) = column else { continue };
        for (&number, summary) in cells.rows.iter().zip(summaries).filter(|(_, summary)| !summary.is_empty()) {
            let mut bytes = Vec::new();
            summary.encode(&mut bytes);
            let mut item = head("u", metric, minute);
            item.bytes(slot.to_string()).bytes(space.name()).bytes((number / BUCKET).to_string());
            item.array(1).number(u64::from(number % BUCKET));
            let cost = ITEM_COST_US + ENTRIES_COST_US + bytes.len() / SUMMARY_BYTES_A_US;
            item.array(1).bytes(bytes);
            parts.push(item, cost);
        }
    }
}

fn push_sketches(parts: &mut Parts, metric: &MetricPanes, minute: Minute, space: Space, cells: &Cells) {
    for (slot, column) in cells.columns.iter().enumerate() {
        let Column::Uniq(sketches) = column else { continue };
        let slot = slot.to_string();
        let mut sparse: BTreeMap<u32, Vec<(u32, &[u32])>> = BTreeMap::new();
        for (&number, sketch) in cells.rows.iter().zip(sketches) {
            match &**sketch {
                Sketch::Sparse(entries) if entries.is_empty() => {}
                Sketch::Sparse(entries) => {
                    sparse.entry(number / BUCKET).or_default().push((number % BUCKET, entries));
                }
                Sketch::Dense(registers) => {
                    let mut item = head("d", metric, minute);
                    item.bytes(&slot).bytes(space.name()).bytes(number.to_string());
                    item.bytes(hll::encode_dense(registers));
                    parts.push(item, DENSE_COST_US);
                }
            }
        }
        for (bucket, cells) in sparse {
            let mut item = head("u", metric, minute);
            item.bytes(&slot).bytes(space.name()).bytes(bucket.to_string()).array(cells.len());
            for (field, _) in cells.iter() {
                item.number(u64::from(*field));
            }
            item.array(cells.len());
            for (_, entries) in cells.iter() {
                item.bytes(hll::entry_bytes(entries));
            }
            parts.push(item, ITEM_COST_US + ENTRIES_COST_US * cells.len());
        }
    }
}

fn head(what: &str, metric: &MetricPanes, minute: Minute) -> Pack {
    let fields = match what {
        "d" => 7,
        _ => 8,
    };
    let mut item = Pack::default();
    item.array(fields).bytes(what).bytes(metric.fingerprint.to_string()).bytes(minute.0.to_string());
    item
}
