//! A pane as rows of a rollup table, and rows as a pane. Knows which column holds which state; not how rows travel.
//!
//! The first state of each kind has a column of its own; further ones of a kind, and those that only the engine merges, are
//! behind one another in `rest`.

use std::collections::HashMap;
use std::sync::Arc;

use super::rows::{Reader, malformed, put_bytes};
use crate::engine::plan::StateKind;
use crate::engine::sketch::Sketch;
use crate::engine::summary::Summary;
use crate::store::cells::{Cells, Column};
use crate::store::pane::Decoded;
use crate::store::table::{ANY, Combinations};
use crate::store::{Names, PaneRecord, StoreError};

/// `part` of the total of a metric with a sketch. Of its single dimensions it is their name, of full combinations empty.
pub const TOTAL: &str = "*";

/// For each slot of a metric whether it has a column of its own.
fn firsts(kinds: &[StateKind]) -> Vec<bool> {
    (0..kinds.len()).map(|slot| !kinds[slot].is_summary() && !kinds[..slot].contains(&kinds[slot])).collect()
}

/// Whether the metric has states without a column of their own.
pub fn has_rest(kinds: &[StateKind]) -> bool {
    firsts(kinds).contains(&false)
}

/// The columns of `put_rows`, without the dimensions.
pub const COLUMNS: &str =
    "metric, fingerprint, part, start, row, version, gone, count, sum, min, max, uniq, sketch, rest";

/// Appends a row for each cell. `dimensions`: the columns that follow `COLUMNS`. `rows_before`: by part, how many rows are
/// there of an older version; the new one has as many at least, so that nothing of the old one shows. Gives the rows put.
pub fn put_rows(
    out: &mut Vec<u8>,
    record: &PaneRecord,
    pane: &Decoded,
    dimensions: &[Arc<str>],
    rows_before: &HashMap<String, u32>,
) -> usize {
    let names = &record.names;
    let mut rows_of: HashMap<&str, u32> = HashMap::new();
    let at: Vec<Option<usize>> =
        dimensions.iter().map(|name| names.dimensions.iter().position(|own| own == name)).collect();
    let mut put = |cells: &Cells, combinations: &Combinations, margins: bool| {
        for row in 0..cells.rows.len() {
            let values = combinations.get(cells.rows[row]);
            let part = if margins { part_of(values, names) } else { "" };
            let number = rows_of.entry(part).or_default();
            put_head(out, record, part, *number, false);
            *number += 1;
            put_states(out, &pane.kinds, &cells.columns, row);
            for at in &at {
                let value = at.map(|at| (at, values[at])).filter(|(_, value)| *value != ANY);
                put_bytes(out, value.map_or("", |(at, value)| &pane.texts[at][value as usize]).as_bytes());
            }
        }
    };
    put(&pane.pane.margins, &pane.margins, true);
    put(&pane.pane.full, &pane.full, false);
    let mut total: usize = rows_of.values().map(|rows| *rows as usize).sum();
    for (part, &before) in rows_before {
        for number in rows_of.get(part.as_str()).copied().unwrap_or(0)..before {
            put_head(out, record, part, number, true);
            put_nothing(out, dimensions.len());
            total += 1;
        }
    }
    total
}

fn part_of<'n>(values: &[u32], names: &'n Names) -> &'n str {
    values.iter().position(|value| *value != ANY).map_or(TOTAL, |at| &names.dimensions[at])
}

fn put_head(out: &mut Vec<u8>, record: &PaneRecord, part: &str, row: u32, gone: bool) {
    put_bytes(out, record.names.metric.as_bytes());
    out.extend_from_slice(&record.fingerprint.0.to_le_bytes());
    put_bytes(out, part.as_bytes());
    out.extend_from_slice(&super::seconds(record.start).to_le_bytes());
    out.extend_from_slice(&row.to_le_bytes());
    out.extend_from_slice(&record.version.to_le_bytes());
    out.push(u8::from(gone));
}

fn put_states(out: &mut Vec<u8>, kinds: &[StateKind], columns: &[Column], row: usize) {
    let first = |kind| kinds.iter().position(|&it| it == kind).map(|slot| &columns[slot]);
    let number = |kind| match first(kind) {
        Some(Column::Sum(column) | Column::Min(column) | Column::Max(column)) => column[row],
        _ => 0.0,
    };
    let count = if let Some(Column::Count(column)) = first(StateKind::Count) { column[row] } else { 0 };
    out.extend_from_slice(&count.to_le_bytes());
    for kind in [StateKind::Sum, StateKind::Min, StateKind::Max] {
        out.extend_from_slice(&number(kind).to_le_bytes());
    }
    let mut sketch = Vec::new();
    let mut uniq = 0;
    if let Some(Column::Uniq(column)) = first(StateKind::Uniq) {
        uniq = column[row].estimate().round() as u64;
        column[row].encode(&mut sketch);
    }
    out.extend_from_slice(&uniq.to_le_bytes());
    put_bytes(out, &sketch);
    let mut rest = Vec::new();
    for (column, _) in columns.iter().zip(firsts(kinds)).filter(|(_, first)| !first) {
        match column {
            Column::Count(column) => rest.extend_from_slice(&column[row].to_le_bytes()),
            Column::Sum(column) | Column::Min(column) | Column::Max(column) => {
                rest.extend_from_slice(&column[row].to_le_bytes());
            }
            Column::Uniq(column) => column[row].encode(&mut rest),
            Column::Summary(column) => column[row].encode(&mut rest),
        }
    }
    put_bytes(out, &rest);
}

/// States that change nothing in sums, minima and maxima.
fn put_nothing(out: &mut Vec<u8>, dimensions: usize) {
    out.extend_from_slice(&0u64.to_le_bytes());
    [0.0, f64::INFINITY, f64::NEG_INFINITY]
        .iter()
        .for_each(|number: &f64| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(&0u64.to_le_bytes());
    (0..2 + dimensions).for_each(|_| put_bytes(out, b""));
}

/// One row of an answer: cells of one combination, merged as far as columns of numbers go.
pub struct Row<'b> {
    pub start: u32,
    pub version: u64,
    pub part: &'b str,
    /// For each of the metric's dimensions; empty where it was not asked for.
    pub values: Vec<&'b str>,
    count: u64,
    numbers: [f64; 3],
    sketches: Vec<&'b [u8]>,
    rests: Vec<&'b [u8]>,
}

impl<'b> Row<'b> {
    /// `asked`: for each dimension whether the answer has it.
    pub fn read(reader: &mut Reader<'b>, asked: &[bool]) -> Option<Self> {
        let (start, version, part) = (reader.u32()?, reader.u64()?, reader.text()?);
        let value = |asked: &bool| if *asked { reader.text() } else { Some("") };
        let values = asked.iter().map(value).collect::<Option<_>>()?;
        let count = reader.u64()?;
        let numbers = [reader.f64()?, reader.f64()?, reader.f64()?];
        let (sketches, rests) = (reader.list(Reader::bytes)?, reader.list(Reader::bytes)?);
        Some(Self { start, version, part, values, count, numbers, sketches, rests })
    }
}

/// Gathers the rows of one pane.
pub struct Builder<'m> {
    names: &'m Names,
    kinds: &'m [StateKind],
    codes: Vec<HashMap<Arc<str>, u32>>,
    decoded: Decoded,
}

impl<'m> Builder<'m> {
    pub fn new(names: &'m Names, kinds: &'m [StateKind]) -> Self {
        let width = names.dimensions.len();
        let decoded = Decoded {
            kinds: kinds.to_vec(),
            texts: vec![Vec::new(); width],
            full: Combinations::new(width),
            margins: Combinations::new(width),
            pane: crate::store::cells::Pane::new(kinds),
        };
        Self { names, kinds, codes: vec![HashMap::new(); width], decoded }
    }

    pub fn finish(self) -> Decoded {
        self.decoded
    }

    pub fn add(&mut self, row: &Row<'_>) -> Result<(), StoreError> {
        let of_margin = |at: usize| row.part == &*self.names.dimensions[at];
        let stands = |at: usize| row.part.is_empty() || of_margin(at);
        let mut combination = Vec::with_capacity(row.values.len());
        for (at, text) in row.values.iter().enumerate() {
            combination.push(if stands(at) {
                code(&mut self.codes[at], &mut self.decoded.texts[at], text)
            } else {
                ANY
            });
        }
        let Decoded { full, margins, pane, .. } = &mut self.decoded;
        let (cells, combinations) =
            if row.part.is_empty() { (&mut pane.full, full) } else { (&mut pane.margins, margins) };
        cells.rows.push(combinations.push(&combination));
        add_states(&mut cells.columns, self.kinds, row).ok_or_else(malformed)
    }
}

fn code(codes: &mut HashMap<Arc<str>, u32>, texts: &mut Vec<Arc<str>>, text: &str) -> u32 {
    if let Some(&code) = codes.get(text) {
        return code;
    }
    let text: Arc<str> = text.into();
    texts.push(text.clone());
    let code = codes.len() as u32;
    codes.insert(text, code);
    code
}

fn add_states(columns: &mut [Column], kinds: &[StateKind], row: &Row<'_>) -> Option<()> {
    let first = firsts(kinds);
    for ((column, kind), _) in columns.iter_mut().zip(kinds).zip(&first).filter(|(_, first)| **first) {
        match column {
            Column::Count(column) => column.push(row.count),
            Column::Sum(column) => column.push(row.numbers[0]),
            Column::Min(column) => column.push(row.numbers[1]),
            Column::Max(column) => column.push(row.numbers[2]),
            Column::Uniq(column) => {
                debug_assert_eq!(*kind, StateKind::Uniq);
                column.push(Arc::new(merged_sketch(row.sketches.iter().copied())?));
            }
            Column::Summary(_) => unreachable!("summaries have no column of their own"),
        }
    }
    if !first.contains(&false) {
        return Some(());
    }
    let mut merged: Option<Vec<Column>> = None;
    for &rest in &row.rests {
        let states = rest_states(kinds, &first, rest)?;
        match &mut merged {
            None => merged = Some(states),
            Some(merged) => merged.iter_mut().zip(&states).for_each(|(into, from)| merge_one(into, from)),
        }
    }
    let mut states = merged?.into_iter();
    for (column, _) in columns.iter_mut().zip(&first).filter(|(_, first)| !**first) {
        append(column, states.next()?);
    }
    Some(())
}

/// The states of one `rest`, as columns of one row.
fn rest_states(kinds: &[StateKind], first: &[bool], mut bytes: &[u8]) -> Option<Vec<Column>> {
    let mut states = Vec::new();
    for (&kind, _) in kinds.iter().zip(first).filter(|(_, first)| !**first) {
        let mut number = || {
            let (number, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            Some(*number)
        };
        states.push(match kind {
            StateKind::Count => Column::Count(vec![u64::from_le_bytes(number()?)]),
            StateKind::Sum => Column::Sum(vec![f64::from_le_bytes(number()?)]),
            StateKind::Min => Column::Min(vec![f64::from_le_bytes(number()?)]),
            StateKind::Max => Column::Max(vec![f64::from_le_bytes(number()?)]),
            StateKind::Uniq => Column::Uniq(vec![Arc::new(Sketch::decode(&mut bytes)?)]),
            StateKind::Quantile | StateKind::Top | StateKind::Funnel => {
                Column::Summary(vec![Arc::new(Summary::decode(kind, &mut bytes)?)])
            }
        });
    }
    bytes.is_empty().then_some(states)
}

fn merged_sketch<'b>(sketches: impl Iterator<Item = &'b [u8]>) -> Option<Sketch> {
    let mut merged = Sketch::default();
    for mut bytes in sketches {
        let sketch = Sketch::decode(&mut bytes)?;
        if merged.is_empty() { merged = sketch } else { merged.merge(&sketch) }
    }
    Some(merged)
}

fn merge_one(into: &mut Column, from: &Column) {
    match (into, from) {
        (Column::Count(into), Column::Count(from)) => into[0] = into[0].saturating_add(from[0]),
        (Column::Sum(into), Column::Sum(from)) => into[0] += from[0],
        (Column::Min(into), Column::Min(from)) => into[0] = into[0].min(from[0]),
        (Column::Max(into), Column::Max(from)) => into[0] = into[0].max(from[0]),
        (Column::Uniq(into), Column::Uniq(from)) => Arc::make_mut(&mut into[0]).merge(&from[0]),
        (Column::Summary(into), Column::Summary(from)) => Arc::make_mut(&mut into[0]).merge(&from[0]),
        _ => unreachable!("both are of the metric's kinds"),
    }
}

fn append(column: &mut Column, one: Column) {
    match (column, one) {
        (Column::Count(column), Column::Count(one)) => column.extend(one),
        (Column::Sum(column), Column::Sum(one))
        | (Column::Min(column), Column::Min(one))
        | (Column::Max(column), Column::Max(one)) => column.extend(one),
        (Column::Uniq(column), Column::Uniq(one)) => column.extend(one),
        (Column::Summary(column), Column::Summary(one)) => column.extend(one),
        _ => unreachable!("both are of the metric's kinds"),
    }
}
