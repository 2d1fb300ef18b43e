//! A pane out of Redis: rows of numbers, entries of sketches, dense sketches. Knows how `lua/merge.lua` keeps them.

use std::collections::HashMap;

use redis::Value;

use super::hll;
use super::link::{Link, unexpected};
use super::parts::{BUCKET, Space};
use super::value;
use crate::engine::plan::{Fingerprint, StateKind};
use crate::engine::sketch::Sketch;
use crate::store::StoreError;
use crate::store::cells::{Cells, Column, Pane};
use crate::store::memory::Numbers;
use crate::time::Minute;

/// Where a sketch belongs: its slot, space and number.
type Cell = (usize, &'static str, u32);

/// What a pane has of sketches.
#[derive(Default)]
struct Sketches {
    entries: HashMap<Cell, Vec<u8>>,
    dense: HashMap<Cell, Vec<u8>>,
}

/// All cells of a metric at a minute. `numbers`: how many are in use on its day.
pub fn read_pane(
    link: &mut Link,
    fingerprint: Fingerprint,
    minute: Minute,
    kinds: &[StateKind],
    numbers: Numbers,
) -> Result<Pane, StoreError> {
    let (metric, at) = (fingerprint.to_string(), minute.0.to_string());
    let buckets = |space| match space {
        Space::Full => numbers.full.div_ceil(BUCKET),
        Space::Margins => numbers.margins.div_ceil(BUCKET),
    };
    let each: Vec<(Space, u32)> =
        Space::BOTH.into_iter().flat_map(|space| (0..buckets(space)).map(move |bucket| (space, bucket))).collect();
    let slots: Vec<usize> = (0..kinds.len()).filter(|&slot| kinds[slot] == StateKind::Uniq).collect();
    let mut pipeline = redis::pipe();
    for (space, bucket) in &each {
        pipeline.cmd("HGETALL").arg(link.key(&["r", &metric, &at, space.name(), &bucket.to_string()]));
    }
    for slot in &slots {
        for (space, bucket) in &each {
            let key = link.key(&["u", &metric, &at, &slot.to_string(), space.name(), &bucket.to_string()]);
            pipeline.cmd("HGETALL").arg(key);
        }
    }
    let answers = link.pipe(&pipeline)?;
    let (rows, entries) = answers.split_at(each.len().min(answers.len()));
    let mut sketches = Sketches::default();
    for (at, fields) in entries.iter().enumerate() {
        let (slot, (space, bucket)) = (slots[at / each.len()], each[at % each.len()]);
        for (field, bytes) in value::pairs(fields)? {
            let number = bucket * BUCKET + value::number::<u32>(field)?;
            sketches.entries.insert((slot, space.name(), number), value::bytes(bytes)?.to_vec());
        }
    }
    if !slots.is_empty() {
        sketches.dense = read_dense(link, &metric, &at)?;
    }
    let mut pane = Pane::new(kinds);
    for space in Space::BOTH {
        let of_space = each.iter().zip(rows).filter(|((of, _), _)| *of == space);
        let cells = cells(of_space.map(|((_, bucket), fields)| (*bucket, fields)), space, kinds, &sketches)?;
        match space {
            Space::Full => pane.full = cells,
            Space::Margins => pane.margins = cells,
        }
    }
    Ok(pane)
}

fn read_dense(link: &mut Link, metric: &str, minute: &str) -> Result<HashMap<Cell, Vec<u8>>, StoreError> {
    let names = link.query(redis::cmd("SMEMBERS").arg(link.key(&["dense", metric, minute])))?;
    let mut pipeline = redis::pipe();
    let mut cells = Vec::new();
    for name in value::list(&names)? {
        let text = value::text(name)?;
        pipeline.cmd("GET").arg(link.key(&["d", metric, minute, text]));
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
