//! NDJSON bytes → the wanted fields of each event, in columns.
//!
//! A line at a time, so that a broken one harms no other: find its structure (`scan`, 64 bytes at a time), walk that
//! structure from key to key (`walk`, `keys`), and note where each wanted value stands (`fill`, `value`). Nothing is copied
//! but strings with escapes, and nothing is allocated once the tables have grown. All of a line is checked, but inside
//! arrays that no path reads only brackets, quotes and colons are.
//!
//! Knows nothing of what the fields mean, of time, or of who sent the bytes.
//!
//! After Langdale and Lemire, Parsing Gigabytes of JSON per Second (VLDB Journal 2019), and Li and others, Mison (VLDB 2017).

mod check;
mod fill;
mod keys;
mod rows;
mod scan;
#[cfg(test)]
mod tests;
mod value;
mod walk;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

pub use rows::{Kind, Reject, Rows, Value};
pub use value::number;

use keys::Keys;
use scan::{Level, Scan, Tape};
use walk::{Line, Walk};

/// Readable bytes that must stand behind a batch in its buffer (zeros or newlines): a block is read without a copy.
pub const PADDING_BYTES: usize = 128;
/// Objects and arrays inside one another, the event itself included.
pub const DEPTH_MAX: usize = 32;
/// What a `Value` can say about a length.
const EVENT_BYTES_LIMIT: usize = rows::VALUE_BYTES_MAX;

/// Why a line is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotAnObject,
    NotUtf8,
    TooLong {
        bytes_max: u32,
    },
    TooDeep,
    /// `byte` counts from 1 at the line's first byte that is not blank.
    Syntax {
        byte: u32,
        what: &'static str,
    },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("not a JSON object"),
            Self::NotUtf8 => f.write_str("not valid UTF-8"),
            Self::TooLong { bytes_max } => write!(f, "longer than {bytes_max} bytes"),
            Self::TooDeep => write!(f, "nested deeper than {DEPTH_MAX}"),
            Self::Syntax { byte, what } => write!(f, "malformed JSON at byte {byte}: {what}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads the fields of one set of paths; learns the keys of the events it sees, in bounded tables.
pub struct Decoder {
    keys: Keys,
    tape: Tape,
    walk: Walk,
    event_bytes_max: usize,
    level: Level,
}

impl Decoder {
    /// Paths are segments of keys, fewer than 65,000 segments in all. A path may lead through another one; the same path
    /// twice gives two equal columns.
    pub fn new(paths: &[Vec<String>], event_bytes_max: usize) -> Self {
        let event_bytes_max = event_bytes_max.min(EVENT_BYTES_LIMIT);
        Self {
            keys: Keys::new(paths),
            tape: Tape::new(event_bytes_max),
            walk: Walk::new(),
            event_bytes_max,
            level: Level::best(),
        }
    }

    /// Decodes lines of `buffer[..len]` from `*at` until `rows_max` rows are there or the end, and advances `*at` and
    /// `*line`. Every line that is not blank becomes a row or a reject.
    ///
    /// `buffer` holds `PADDING_BYTES` behind `len` and is smaller than 4 GiB; `rows_max` is some hundred to some thousand.
    pub fn decode(
        &mut self,
        buffer: &[u8],
        len: usize,
        at: &mut usize,
        line: &mut u32,
        rows_max: usize,
        rows: &mut Rows,
    ) {
        assert!(buffer.len() >= len + PADDING_BYTES && u32::try_from(buffer.len()).is_ok());
        // The shortest event is `{}` and its newline.
        rows.clear(self.keys.columns_of_paths(), rows_max.min((len - (*at).min(len)) / 3 + 1));
        while rows.len < rows_max {
            let Some(start) = first_not_blank(&buffer[..len], *at) else {
                *at = len;
                break;
            };
            let scan = self.scan(buffer, start, len);
            *at = (scan.newline + 1).min(len);
            match self.line(buffer, start, &scan, rows) {
                Ok(()) => rows.accept(*line, start, scan.end),
                Err(reason) => rows.reject(Reject { line: *line, start: start as u32, end: scan.end as u32, reason }),
            }
            *line += 1;
        }
    }

    /// Finds the line's end and structure. The end excludes blanks; a line that is too long has no structure.
    #[inline]
    fn scan(&mut self, buffer: &[u8], start: usize, len: usize) -> Scan {
        let limit = len.min(start + self.event_bytes_max + 1);
        let mut scan = self.level.scan(buffer, start, limit, &mut self.tape);
        if scan.end == limit && limit < len {
            scan = self.scan_long(buffer, start, len);
        }
        scan.end -= blanks_at_end(&buffer[start..scan.end]);
        scan
    }

    /// More bytes than an event may have before the newline: blanks at the end do not count.
    #[cold]
    fn scan_long(&mut self, buffer: &[u8], start: usize, len: usize) -> Scan {
        let newline = memchr::memchr(b'\n', &buffer[start..len]).map_or(len, |at| start + at);
        let end = newline - blanks_at_end(&buffer[start..newline]);
        let mut scan = if end - start > self.event_bytes_max {
            Scan { end, ..Scan::default() }
        } else {
            self.level.scan(buffer, start, end, &mut self.tape)
        };
        scan.newline = newline;
        scan
    }

    #[inline]
    fn line(&mut self, buffer: &[u8], start: usize, scan: &Scan, rows: &mut Rows) -> Result<(), Malformed> {
        if scan.end - start > self.event_bytes_max {
            return Err(Malformed::TooLong { bytes_max: self.event_bytes_max as u32 });
        }
        if scan.high && simdutf8::basic::from_utf8(&buffer[start..scan.end]).is_err() {
            return Err(Malformed::NotUtf8);
        }
        let line = Line {
            buffer,
            start,
            end: scan.end,
            structure: &self.tape.structure[..scan.structure],
            quotes: &self.tape.quotes,
            backslashes: scan.backslashes,
        };
        let broken = scan.broken || {
            let quotes_outside = self.walk.walk(&line, &mut self.keys);
            let quotes = quotes_outside.and_then(|some| Some(some + fill::fill(&line, self.walk.spans(), rows.row())?));
            // As many as keys, strings and arrays have: every string is one string.
            quotes != Some(scan.quotes_total)
        };
        if broken { Err(check::explain(&buffer[start..scan.end])) } else { Ok(()) }
    }
}

/// Where the next line that is not blank begins to be so.
#[inline]
fn first_not_blank(batch: &[u8], at: usize) -> Option<usize> {
    if batch.get(at) == Some(&b'{') {
        return Some(at);
    }
    let blanks = batch.get(at..)?.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    (at + blanks < batch.len()).then_some(at + blanks)
}

#[inline]
fn blanks_at_end(line: &[u8]) -> usize {
    line.iter().rev().take_while(|byte| is_blank(**byte)).count()
}

/// What may stand between tokens: a newline ends the line before.
#[inline]
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}
