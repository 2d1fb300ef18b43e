//! What a call of the decoder gives: columns of values, and the lines that are no event.
//!
//! Knows nothing of JSON: a value is a kind and a range of bytes.

use super::Malformed;

/// What stands at a path.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Missing = 0,
    Null = 1,
    False = 2,
    True = 3,
    Number = 4,
    Text = 5,
    Object = 6,
    Array = 7,
}

const KINDS: [Kind; 8] =
    [Kind::Missing, Kind::Null, Kind::False, Kind::True, Kind::Number, Kind::Text, Kind::Object, Kind::Array];

pub(super) const VALUE_BYTES_MAX: usize = (1 << 28) - 1;
const UNESCAPED: u32 = 1 << 3;
const VALUES_IN_LINE: usize = 64 / size_of::<Value>();

/// Kind and place of a value in the batch, or, for a string with escapes, in `Rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    start: u32,
    /// 28 bits of length, one that says where, three of kind.
    len_and_kind: u32,
}

impl Value {
    pub const MISSING: Self = Self { start: 0, len_and_kind: 0 };

    /// A range of the batch.
    #[inline]
    pub(super) fn new(kind: Kind, start: usize, end: usize) -> Self {
        Self::of_bits(kind as u32, start, end)
    }

    #[inline]
    pub(super) fn of_bits(kind: u32, start: usize, end: usize) -> Self {
        Self { start: start as u32, len_and_kind: ((end - start) as u32) << 4 | kind }
    }

    /// A string in `Rows::scratch`.
    #[inline]
    pub(super) fn unescaped(start: usize, end: usize) -> Self {
        Self::of_bits(UNESCAPED | Kind::Text as u32, start, end)
    }

    #[inline]
    pub fn kind(self) -> Kind {
        KINDS[(self.len_and_kind & 7) as usize]
    }

    /// Bytes of the value: a string without its quotes and escapes, all else as it was written.
    #[inline]
    pub fn len(self) -> usize {
        (self.len_and_kind >> 4) as usize
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A line that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Counts lines that are not blank, as `Rows::line`.
    pub line: u32,
    /// Byte range in the batch.
    pub start: u32,
    pub end: u32,
    pub reason: Malformed,
}

/// The row being read: what is set in it stays if the line proves to be an event.
pub(super) struct Row<'a> {
    values: &'a mut [Value],
    row: usize,
    stride: usize,
    pub scratch: &'a mut Vec<u8>,
}

impl Row<'_> {
    #[inline(always)]
    pub fn set(&mut self, column: u16, value: Value) {
        self.values[usize::from(column) * self.stride + self.row] = value;
    }
}

/// Reused for every call.
#[derive(Default)]
pub struct Rows {
    /// Accepted events.
    pub len: usize,
    /// Of each row, the index of its line among those of the batch that are not blank.
    pub line: Vec<u32>,
    /// Byte range of the row's line in the batch.
    pub start: Vec<u32>,
    pub end: Vec<u32>,
    pub rejects: Vec<Reject>,
    /// Column after column, each `stride` long.
    values: Vec<Value>,
    stride: usize,
    column_of_path: Vec<u16>,
    scratch: Vec<u8>,
}

impl Rows {
    /// The values at a path (its index as given to `Decoder::new`), one a row.
    #[inline]
    pub fn column(&self, path: usize) -> &[Value] {
        let first = usize::from(self.column_of_path[path]) * self.stride;
        &self.values[first..first + self.len]
    }

    /// Bytes of a value of these rows; `buffer` is the one that was decoded.
    #[inline]
    pub fn bytes<'a>(&'a self, buffer: &'a [u8], value: Value) -> &'a [u8] {
        let whole = if value.len_and_kind & UNESCAPED == 0 { buffer } else { &self.scratch };
        &whole[value.start as usize..value.start as usize + value.len()]
    }

    pub(super) fn clear(&mut self, column_of_path: &[u16], rows_max: usize) {
        self.len = 0;
        self.line.clear();
        self.start.clear();
        self.end.clear();
        self.rejects.clear();
        self.scratch.clear();
        self.column_of_path.clear();
        self.column_of_path.extend_from_slice(column_of_path);
        // An odd number of cache lines: the columns' ends must not all compete for the same places in the cache.
        self.stride = rows_max.next_multiple_of(VALUES_IN_LINE) | VALUES_IN_LINE;
        let columns = column_of_path.iter().max().map_or(0, |&last| usize::from(last) + 1);
        self.values.clear();
        self.values.resize(columns * self.stride, Value::MISSING);
    }

    /// The row being read.
    #[inline]
    pub(super) fn row(&mut self) -> Row<'_> {
        Row { values: &mut self.values, row: self.len, stride: self.stride, scratch: &mut self.scratch }
    }

    #[inline]
    pub(super) fn accept(&mut self, line: u32, start: usize, end: usize) {
        self.line.push(line);
        self.start.push(start as u32);
        self.end.push(end as u32);
        self.len += 1;
    }

    /// The row being read was no event: the next one begins clean.
    #[cold]
    pub(super) fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
        let (row, stride) = (self.len, self.stride);
        self.values.iter_mut().skip(row).step_by(stride).for_each(|value| *value = Value::MISSING);
    }
}
