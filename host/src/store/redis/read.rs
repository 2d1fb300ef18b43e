//! A pane out of Redis: rows of numbers, entries of sketches, dense sketches, summaries one behind the other. Knows how `lua/merge.lua` keeps them.

use std::collections::HashMap;

use redis::{Pipeline, Value};

use super::hll;
use super::link::{Function, Link, unexpected};
use super::parts::{BUCKET, Space};
use super::value::{self, Answer};
use crate::engine::plan::{Fingerprint, StateKind};
use crate::engine::sketch::{SPARSE_ENTRIES_MAX, Sketch};
use crate::engine::summary::Summary;
use crate::store::StoreError;
use crate::store::cells::{Cells, Column, Pane};
use crate::store::memory::Numbers;
use crate::time::Minute;

/// Hashes and strings asked for in one go.
const COMMANDS_AT_ONCE: usize = 1_000;
/// Entries of a cell that are fewer bytes than this stay as they were appended.
const FOLD_BYTES_MIN: usize = SPARSE_ENTRIES_MAX * 4;

/// Where a sketch belongs: its slot, space and number.
type Cell = (usize, &'static str, u32);

/// What a pane has of sketches.
#[derive(Default)]
struct Sketches {
    entries: HashMap<Cell, Vec<u8>>,
    dense: HashMap<Cell, Vec<u8>>,
}

/// A pane to be read.
pub struct Wanted<'w> {
    pub fingerprint: Fingerprint,
    pub minute: Minute,
    pub kinds: &'w [StateKind],
    /// How many are in use on its day.
    pub numbers: Numbers,
}

/// How a pane's keys stand in a pipeline: for each bucket its rows, for each slot with sketches the buckets again, the set.
struct Layout {
    metric: String,
    minute: String,
    buckets: Vec<(Space, u32)>,
    slots: Vec<usize>,
}

impl Layout {
    fn new(wanted: &Wanted<'_>) -> Self {
        let count = |space| match space {
            Space::Full => wanted.numbers.full.div_ceil(BUCKET),
            Space::Margins => wanted.numbers.margins.div_ceil(BUCKET),
        };
        let of_space = |space| (0..count(space)).map(move |bucket| (space, bucket));
        Self {
            metric: wanted.fingerprint.to_string(),
            minute: wanted.minute.0.to_string(),
            buckets: Space::BOTH.into_iter().flat_map(of_space).collect(),
            slots: (0..wanted.kinds.len()).filter(|&slot| wanted.kinds[slot].is_sketch()).collect(),
        }
    }

    fn len(&self) -> usize {
        self.buckets.len() * (1 + self.slots.len()) + usize::from(!self.slots.is_empty())
    }

    fn ask(&self, link: &Link, pipeline: &mut Pipeline) {
        let (metric, minute) = (self.metric.as_str(), self.minute.as_str());
        for (space, bucket) in &self.buckets {
            pipeline.cmd("HGETALL").arg(link.key(&["r", metric, minute, space.name(), &bucket.to_string()]));
        }
        for slot in &self.slots {
            for (space, bucket) in &self.buckets {
                let key = link.key(&["u", metric, minute, &slot.to_string(), space.name(), &bucket.to_string()]);
                pipeline.cmd("HGETALL").arg(key);
            }
        }
        if !self.slots.is_empty() {
            pipeline.cmd("SMEMBERS").arg(link.key(&["dense", metric, minute]));
        }
    }

    fn entries(&self, answers: &[Value]) -> Result<HashMap<Cell, Vec<u8>>, StoreError> {
        let mut entries = HashMap::new();
        for (at, fields) in answers.iter().enumerate() {
            let (slot, (space, bucket)) = (self.slots[at / self.buckets.len()], self.buckets[at % self.buckets.len()]);
            for (field, bytes) in value::pairs(fields)? {
                let number = bucket * BUCKET + value::number::<u32>(field)?;
                entries.insert((slot, space.name(), number), value::bytes(bytes)?.to_vec());
            }
        }
        Ok(entries)
    }
}

/// All cells of metrics at minutes, in the order of the request. Cells that have grown long are folded in Redis on the way.
pub fn read_panes(link: &mut Link, wanted: &[Wanted<'_>]) -> Result<Vec<Pane>, StoreError> {
    let layouts: Vec<Layout> = wanted.iter().map(Layout::new).collect();
    let mut panes = Vec::with_capacity(wanted.len());
    let mut from = 0;
    while from < wanted.len() {
        let (mut pipeline, mut to, mut commands) = (redis::pipe(), from, 0);
        while to < wanted.len() && (commands == 0 || commands + layouts[to].len() <= COMMANDS_AT_ONCE) {
            layouts[to].ask(link, &mut pipeline);
            commands += layouts[to].len();
            to += 1;
        }
        let answers = link.pipe(&pipeline)?;
        let mut rest = answers.as_slice();
        for (wanted, layout) in wanted[from..to].iter().zip(&layouts[from..to]) {
            let answers;
            (answers, rest) = rest.split_at_checked(layout.len()).ok_or_else(|| unexpected(&Value::Nil))?;
            panes.push(pane(link, wanted, layout, answers)?);
        }
        from = to;
    }
    Ok(panes)
}

fn pane(link: &mut Link, wanted: &Wanted<'_>, layout: &Layout, answers: &[Value]) -> Result<Pane, StoreError> {
    let (rows, rest) = answers.split_at(layout.buckets.len());
    let mut sketches = Sketches::default();
    if let Some((names, entries)) = rest.split_last() {
        sketches.entries = layout.entries(entries)?;
        sketches.dense = read_dense(link, layout, names)?;
        fold(link, &layout.metric, &layout.minute, wanted.kinds, &sketches)?;
    }
    let mut pane = Pane::new(wanted.kinds);
    for space in Space::BOTH {
        let of_space = layout.buckets.iter().zip(rows).filter(|((of, _), _)| *of == space);
        let buckets = of_space.map(|((_, bucket), fields)| (*bucket, fields));
        let cells = cells(buckets, space, wanted.kinds, &sketches)?;
        match space {
            Space::Full => pane.full = cells,
            Space::Margins => pane.margins = cells,
        }
    }
    Ok(pane)
}

fn read_dense(link: &mut Link, layout: &Layout, names: &Value) -> Result<HashMap<Cell, Vec<u8>>, StoreError> {
    let mut pipeline = redis::pipe();
    let mut cells = Vec::new();
    for name in value::list(names)? {
        let text = value::text(name)?;
        pipeline.cmd("GET").arg(link.key(&["d", &layout.metric, &layout.minute, text]));
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or_else(|| unexpected(name));
        let (slot, space, number) = (next()?, next()?, next()?);
        let space = Space::BOTH.into_iter().find(|known| known.name() == space).ok_or_else(|| unexpected(name))?;
        let parse = |text: &str| text.parse::<u32>().map_err(|_| unexpected(name));
        cells.push((parse(slot)? as usize, space.name(), parse(number)?));
    }
    let strings = link.pipe(&pipeline)?;
    cells.into_iter().zip(&strings).map(|(cell, string)| Ok((cell, value::bytes(string)?.to_vec()))).collect()
}

/// Has Redis keep as a dense sketch what no longer is a sparse one, and each entry once where most are repeats.
fn fold(
    link: &mut Link,
    metric: &str,
    minute: &str,
    kinds: &[StateKind],
    sketches: &Sketches,
) -> Result<(), StoreError> {
    let long = sketches.entries.iter().filter(|(_, read)| read.len() > FOLD_BYTES_MIN);
    for (&(slot, space, number), read) in long {
        let Some((instead, dense)) = folded(kinds[slot], read)? else { continue };
        let (bucket, field) = ((number / BUCKET).to_string(), (number % BUCKET).to_string());
        let cell = format!("{slot}:{space}:{number}");
        let hash = link.key(&["u", metric, minute, &slot.to_string(), space, &bucket]);
        let (name, set) = (link.key(&["d", metric, minute, &cell]), link.key(&["dense", metric, minute]));
        let token = link.token().to_owned();
        let texts = [&token, &hash, &field].map(|text| text.as_bytes());
        let names = [&name, &set, &cell].map(|text| text.as_bytes());
        let arguments = [&texts[..], &[read, &instead], &names, &[&dense]].concat();
        Answer::of(link.call(Function::Fold, &arguments)?)?;
    }
    Ok(())
}

/// What stands for entries, and the dense sketch that does.
type Folded = (Vec<u8>, Vec<u8>);

/// `None`: they are best left as they are.
fn folded(kind: StateKind, read: &[u8]) -> Result<Option<Folded>, StoreError> {
    if kind.is_summary() {
        let mut instead = Vec::new();
        summary(kind, read)?.encode(&mut instead);
        return Ok((instead.len() * 2 <= read.len()).then_some((instead, Vec::new())));
    }
    let sketch = hll::join(read, None).ok_or_else(|| damaged("a sketch is none"))?;
    Ok(match &sketch {
        Sketch::Dense(registers) => Some((Vec::new(), hll::encode_dense(registers))),
        Sketch::Sparse(entries) if entries.len() * 8 <= read.len() => Some((hll::entry_bytes(entries), Vec::new())),
        Sketch::Sparse(_) => None,
    })
}

/// Summaries that were appended, merged.
fn summary(kind: StateKind, mut bytes: &[u8]) -> Result<Summary, StoreError> {
    let mut merged = Summary::Nothing;
    while !bytes.is_empty() {
        merged.merge(&Summary::decode(kind, &mut bytes).ok_or_else(|| damaged("a summary is none"))?);
    }
    Ok(merged)
}

/// The cells of a space from its buckets.
fn cells<'v>(
    buckets: impl Iterator<Item = (u32, &'v Value)>,
    space: Space,
    kinds: &[StateKind],
    sketches: &Sketches,
) -> Result<Cells, StoreError> {
    let mut rows: Vec<(u32, &[u8])> = Vec::new();
    for (bucket, fields) in buckets {
        for (field, row) in value::pairs(fields)? {
            rows.push((bucket * BUCKET + value::number::<u32>(field)?, value::bytes(row)?));
        }
    }
    rows.sort_unstable_by_key(|(number, _)| *number);
    let mut cells = Cells::new(kinds);
    cells.rows = rows.iter().map(|(number, _)| *number).collect();
    let mut place = 0;
    for (slot, column) in cells.columns.iter_mut().enumerate() {
        let numbers = || rows.iter().map(|(_, row)| float(row, place));
        match column {
            Column::Count(column) => *column = numbers().map(|n| n.map(|n| n as u64)).collect::<Result<_, _>>()?,
            Column::Sum(column) | Column::Min(column) | Column::Max(column) => {
                *column = numbers().collect::<Result<_, _>>()?;
            }
            Column::Uniq(column) => {
                let sketch =
                    |(number, _): &(u32, &[u8])| sketches.sketch((slot, space.name(), *number)).map(Into::into);
                *column = rows.iter().map(sketch).collect::<Result<_, _>>()?;
                continue;
            }
            Column::Summary(column) => {
                let of_cell = |(number, _): &(u32, &[u8])| {
                    let appended = sketches.entries.get(&(slot, space.name(), *number));
                    summary(kinds[slot], appended.map_or(&[][..], Vec::as_slice)).map(Into::into)
                };
                *column = rows.iter().map(of_cell).collect::<Result<_, _>>()?;
                continue;
            }
        }
        place += 1;
    }
    Ok(cells)
}

fn float(row: &[u8], place: usize) -> Result<f64, StoreError> {
    let bytes = row.get(place * 8..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map(|bytes| f64::from_le_bytes(*bytes)).ok_or_else(|| damaged("a row is too short"))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("the state in Redis is damaged: {what}"))
}

impl Sketches {
    fn sketch(&self, cell: Cell) -> Result<Sketch, StoreError> {
        let entries = self.entries.get(&cell).map_or(&[][..], Vec::as_slice);
        hll::join(entries, self.dense.get(&cell).map(Vec::as_slice)).ok_or_else(|| damaged("a sketch is none"))
    }
}
