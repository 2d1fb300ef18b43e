//! The stored form of a pane: all cells of one metric at one minute or hour, complete in itself. Encoding 1, frozen.
//!
//! Byte 0 is the version (1). Two parts follow, each: its length as `u32`, its compressed length as `u32`, one zstd frame.
//! Who wants margins only does not touch the second. All numbers are little endian. Columns of numbers are byte-shuffled: all
//! first bytes, then all second bytes, …
//!
//! ```text
//! part 1   u8 dimensions, u8 slots, a u8 kind for each slot (the numbers of `StateKind`)
//!          for each dimension its values: u32 count; u32 length and UTF-8 bytes for each
//!          the section of margins
//! part 2   the section of full combinations
//! section  u32 rows; for each dimension a u32 a row (index of the value; u32::MAX: any); for each slot
//!          counts as u64, sums, minima, maxima as f64, or sketches or summaries in their encoding 1, one behind the other
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use super::StoreError;
use super::cells::{Cells, Column, Pane};
use super::table::{ANY, Combinations};
use crate::engine::plan::StateKind;
use crate::engine::sketch::Sketch;
use crate::engine::summary::Summary;

const VERSION: u8 = 1;
const ZSTD_LEVEL: i32 = 1;
/// A longer part is taken for damage.
const PART_BYTES_MAX: usize = 1 << 30;

/// What the numbers in a pane mean.
#[derive(Clone, Copy)]
pub struct Meaning<'m> {
    pub kinds: &'m [StateKind],
    /// For each dimension the texts of its values.
    pub texts: &'m [&'m [Arc<str>]],
    pub full: &'m Combinations,
    pub margins: &'m Combinations,
}

/// For each dimension its values.
type Texts = Vec<Vec<Arc<str>>>;

/// A pane with its meaning. Its combinations are numbered by row.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub kinds: Vec<StateKind>,
    pub texts: Texts,
    pub full: Combinations,
    pub margins: Combinations,
    pub pane: Pane,
}

/// What is wanted of a stored pane; the rest stays empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    Full,
    Margins,
}

pub fn encode(meaning: Meaning<'_>, pane: &Pane) -> Result<Vec<u8>, StoreError> {
    let mut head = vec![meaning.texts.len() as u8, meaning.kinds.len() as u8];
    head.extend(meaning.kinds.iter().map(|&kind| kind as u8));
    // Of every dimension only the values that occur, in the order in which they do.
    let mut codes: Vec<HashMap<u32, u32>> = vec![HashMap::new(); meaning.texts.len()];
    let mut code_of = |dimension: usize, value: u32| {
        if value == ANY {
            return ANY;
        }
        let next = codes[dimension].len() as u32;
        *codes[dimension].entry(value).or_insert(next)
    };
    let mut coded = |cells: &Cells, combinations: &Combinations| {
        let mut column = |dimension: usize| {
            let values = cells.rows.iter().map(|&row| combinations.get(row)[dimension]);
            values.map(|value| code_of(dimension, value)).collect::<Vec<u32>>()
        };
        (0..meaning.texts.len()).map(&mut column).collect::<Vec<_>>()
    };
    let full_codes = coded(&pane.full, meaning.full);
    let margin_codes = coded(&pane.margins, meaning.margins);
    for (codes, texts) in codes.iter().zip(meaning.texts) {
        let mut values: Vec<(u32, u32)> = codes.iter().map(|(&value, &code)| (code, value)).collect();
        values.sort_unstable();
        put_u32(&mut head, values.len());
        for (_, value) in values {
            let text = &texts[value as usize];
            put_u32(&mut head, text.len());
            head.extend_from_slice(text.as_bytes());
        }
    }
    let mut full = Vec::new();
    put_section(&mut head, &pane.margins, &margin_codes);
    put_section(&mut full, &pane.full, &full_codes);
    let mut out = vec![VERSION];
    for part in [head, full] {
        let compressed = zstd::bulk::compress(&part, ZSTD_LEVEL)?;
        put_u32(&mut out, part.len());
        put_u32(&mut out, compressed.len());
        out.extend(compressed);
    }
    Ok(out)
}

fn put_section(out: &mut Vec<u8>, cells: &Cells, codes: &[Vec<u32>]) {
    put_u32(out, cells.rows.len());
    codes.iter().for_each(|column| shuffle(out, column.iter().map(|code| code.to_le_bytes())));
    cells.columns.iter().for_each(|column| put_column(out, column));
}

fn put_column(body: &mut Vec<u8>, column: &Column) {
    match column {
        Column::Count(column) => shuffle(body, column.iter().map(|value| value.to_le_bytes())),
        Column::Sum(column) | Column::Min(column) | Column::Max(column) => {
            shuffle(body, column.iter().map(|value| value.to_bits().to_le_bytes()));
        }
        Column::Uniq(column) => column.iter().for_each(|sketch| sketch.encode(body)),
        Column::Summary(column) => column.iter().for_each(|summary| summary.encode(body)),
    }
}

fn put_u32(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(value as u32).to_le_bytes());
}

fn shuffle<const N: usize>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = [u8; N]>) {
    let (start, rows) = (out.len(), values.len());
    out.resize(start + rows * N, 0);
    for (row, bytes) in values.enumerate() {
        for (at, byte) in bytes.into_iter().enumerate() {
            out[start + at * rows + row] = byte;
        }
    }
}

/// Never panics, whatever the bytes.
pub fn decode(bytes: &[u8], wanted: Wanted) -> Result<Decoded, StoreError> {
    let (&version, mut rest) = bytes.split_first().ok_or_else(|| corrupt("it is empty"))?;
    if version != VERSION {
        return Err(corrupt("its version is not known"));
    }
    let malformed = || corrupt("it is not well formed");
    let head = part(&mut rest)?;
    let mut head = Reader(&head);
    let (kinds, texts) = head.meaning().ok_or_else(malformed)?;
    let section = |reader: &mut Reader<'_>, margins| {
        reader.section(&texts, &kinds, margins).filter(|_| reader.0.is_empty()).ok_or_else(malformed)
    };
    let nothing = || (Combinations::new(texts.len()), Cells::new(&kinds));
    let (margins, margin_cells) = if wanted == Wanted::Full { nothing() } else { section(&mut head, true)? };
    let (full, full_cells) =
        if wanted == Wanted::Margins { nothing() } else { section(&mut Reader(&part(&mut rest)?), false)? };
    let pane = Pane { full: full_cells, margins: margin_cells };
    Ok(Decoded { kinds, texts, full, margins, pane })
}

/// Takes a part off the front and decompresses it.
fn part(bytes: &mut &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut reader = Reader(bytes);
    let lengths = reader.u32().zip(reader.u32()).ok_or_else(|| corrupt("it is cut off"))?;
    let compressed = reader.take(lengths.1 as usize).ok_or_else(|| corrupt("it is cut off"))?;
    *bytes = reader.0;
    if lengths.0 as usize > PART_BYTES_MAX {
        return Err(corrupt("it is too long"));
    }
    let part = zstd::bulk::decompress(compressed, lengths.0 as usize);
    part.map_err(|_| corrupt("it does not decompress"))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a stored pane is damaged: {what}"))
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn meaning(&mut self) -> Option<(Vec<StateKind>, Texts)> {
        let (dimensions, slots) = (self.u8()?, self.u8()?);
        let kinds = (0..slots).map(|_| kind(self.u8()?)).collect::<Option<Vec<_>>>()?;
        let texts = (0..dimensions).map(|_| self.texts()).collect::<Option<Vec<_>>>()?;
        Some((kinds, texts))
    }

    fn texts(&mut self) -> Option<Vec<Arc<str>>> {
        let count = self.u32()?;
        let mut texts = Vec::new();
        for _ in 0..count {
            let len = self.u32()? as usize;
            texts.push(std::str::from_utf8(self.take(len)?).ok()?.into());
        }
        Some(texts)
    }

    fn section(
        &mut self,
        texts: &[Vec<Arc<str>>],
        kinds: &[StateKind],
        margins: bool,
    ) -> Option<(Combinations, Cells)> {
        let rows = self.u32()? as usize;
        // A row takes at least a byte, but for a lone count of rows: without dimensions there is one combination.
        if rows > self.0.len() && rows > 1 {
            return None;
        }
        let mut columns = Vec::with_capacity(texts.len());
        for texts in texts {
            let codes: Vec<u32> = self.shuffled(rows)?.map(u32::from_le_bytes).collect();
            let known = |&code: &u32| (code as usize) < texts.len() || margins && code == ANY;
            if !codes.iter().all(known) {
                return None;
            }
            columns.push(codes);
        }
        let combinations = Combinations::of_columns(&columns, rows);
        let columns = kinds.iter().map(|&kind| self.column(kind, rows)).collect::<Option<Vec<_>>>()?;
        Some((combinations, Cells { rows: (0..rows as u32).collect(), columns }))
    }

    fn column(&mut self, kind: StateKind, rows: usize) -> Option<Column> {
        let number = |bytes| f64::from_bits(u64::from_le_bytes(bytes));
        Some(match kind {
            StateKind::Count => Column::Count(self.shuffled(rows)?.map(u64::from_le_bytes).collect()),
            StateKind::Sum => Column::Sum(self.shuffled(rows)?.map(number).collect()),
            StateKind::Min => Column::Min(self.shuffled(rows)?.map(number).collect()),
            StateKind::Max => Column::Max(self.shuffled(rows)?.map(number).collect()),
            StateKind::Uniq => {
                let sketch = |_| Sketch::decode(&mut self.0).map(Arc::new);
                Column::Uniq((0..rows).map(sketch).collect::<Option<Vec<_>>>()?)
            }
            StateKind::Quantile | StateKind::Top | StateKind::Funnel => {
                let summary = |_| Summary::decode(kind, &mut self.0).map(Arc::new);
                Column::Summary((0..rows).map(summary).collect::<Option<Vec<_>>>()?)
            }
        })
    }

    fn shuffled<const N: usize>(&mut self, rows: usize) -> Option<impl Iterator<Item = [u8; N]> + 'b> {
        let bytes = self.take(rows.checked_mul(N)?)?;
        Some((0..rows).map(move |row| std::array::from_fn(|at| bytes[at * rows + row])))
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

fn kind(number: u8) -> Option<StateKind> {
    StateKind::ALL.into_iter().find(|&kind| kind as u8 == number)
}
