//! The structure of one line → its wanted values.
//!
//! Goes from one `: { } [ ]` to the next. Between them lie a value and the next key; where the key begins is known once
//! it is recognized, and so the value is all that stands between. That every string is one string is known from the
//! number of quotes. Knows nothing of blocks, nor of how keys are recognized.

use super::keys::{Keys, Meaning, NO_COLUMN, ROOT, START};
use super::rows::{Kind, Rows, Value};
use super::{DEPTH_MAX, check, is_blank, value};

/// A scanned line; places are in `buffer`.
pub(super) struct Line<'a> {
    pub buffer: &'a [u8],
    pub start: usize,
    pub end: usize,
    pub structure: &'a [u32],
    /// A bit a byte from `start`.
    pub quotes: &'a [u64],
    pub quotes_total: u32,
    /// Some string has an escape.
    pub backslash: bool,
}

/// An object that is open: what its parent needs when it closes.
#[derive(Clone, Copy, Default)]
pub(super) struct Frame {
    parent: u16,
    column: u16,
    start: u32,
}

// What a value begins with and what it ends with must have a bit in common.
const TEXT: u8 = 1;
const NUMBER: u8 = 2;
const TRUE: u8 = 4;
const FALSE: u8 = 8;
const NULL: u8 = 16;
/// An object or an array that has been walked: its closing bracket stands for it.
const CLOSED_OBJECT: u8 = 32;
const CLOSED_ARRAY: u8 = 64;

const FIRST: [u8; 256] = classes(true);
const LAST: [u8; 256] = classes(false);

const fn classes(first: bool) -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'"' => TEXT,
            b'0'..=b'9' => NUMBER,
            b'-' if first => NUMBER,
            b't' if first => TRUE,
            b'f' if first => FALSE,
            b'n' if first => NULL,
            b'e' if !first => TRUE | FALSE,
            b'l' if !first => NULL,
            b'}' => CLOSED_OBJECT,
            b']' => CLOSED_ARRAY,
            _ => 0,
        };
        byte += 1;
    }
    classes
}

/// Puts the line's values into the current row; `None`: the line is no event (`check` says why).
pub(super) fn walk(line: &Line, keys: &mut Keys, frames: &mut [Frame; DEPTH_MAX], rows: &mut Rows) -> Option<()> {
    let buffer = line.buffer;
    let mut structure = line.structure.iter();
    if *structure.next()? as usize != line.start || buffer[line.start] != b'{' {
        return None;
    }
    frames[0] = Frame { parent: ROOT, column: keys.root_column(), start: line.start as u32 };
    let mut depth = 1;
    let (mut parent, mut last) = (ROOT, START);
    // What must stand before the next key: the brace that opened its object, or a comma.
    let mut lead = b'{';
    // The value since the last colon: where it begins at the earliest, and who wants it.
    let (mut value_start, mut column, mut node) = (line.start + 1, NO_COLUMN, ROOT);
    let (mut quotes, mut seen) = (0, 0_u64);
    loop {
        let at = *structure.next()? as usize;
        match buffer[at] {
            b':' => {
                let followed = keys.follow(buffer, at, last, parent).and_then(|id| {
                    let key = keys.get(id);
                    Some((id, key.meaning, lead_before(line, at - usize::from(key.quoted_bytes), lead)?))
                });
                let (id, meaning, before) = match followed {
                    Some(followed) => followed,
                    None => look_up(line, keys, at, last, parent, lead)?,
                };
                if lead == b',' {
                    quotes += finish(line, rows, column, value_start, before)?;
                }
                quotes += 2;
                (last, lead, value_start) = (id, b',', at + 1);
                (column, node) = (meaning.column, meaning.node);
                if seen & meaning.inner != 0 {
                    clear(keys, rows, node);
                }
                seen |= meaning.inner;
            }
            b'{' => {
                if depth == DEPTH_MAX || lead == b'{' || !is_all_blank(&buffer[value_start..at]) {
                    return None;
                }
                frames[depth] = Frame { parent, column, start: at as u32 };
                depth += 1;
                (parent, lead, value_start, column) = (node, b'{', at + 1, NO_COLUMN);
            }
            b'}' => {
                if lead == b',' {
                    quotes += finish(line, rows, column, value_start, at)?;
                } else if !is_all_blank(&buffer[value_start..at]) {
                    return None;
                }
                depth -= 1;
                let frame = frames[depth];
                if frame.column != NO_COLUMN {
                    keep_composite(line, rows, frame.column, Kind::Object, frame.start as usize, at + 1)?;
                }
                if depth == 0 {
                    value_start = at + 1;
                    break;
                }
                (parent, lead, value_start, column) = (frame.parent, b',', at, NO_COLUMN);
            }
            b'[' => {
                if lead == b'{' || !is_all_blank(&buffer[value_start..at]) {
                    return None;
                }
                let close = skip_array(line, &mut structure, depth)?;
                quotes += quotes_between(line, at, close);
                if column != NO_COLUMN {
                    keep_composite(line, rows, column, Kind::Array, at, close + 1)?;
                }
                (value_start, column) = (close, NO_COLUMN);
            }
            _ => return None,
        }
    }
    let whole = structure.next().is_none() && quotes == line.quotes_total && value_start == line.end;
    whole.then_some(())
}

/// A value that has ended: all that stands in a range must be one, blanks around it aside. Returns its quotes.
#[inline(always)]
fn finish(line: &Line, rows: &mut Rows, column: u16, start: usize, end: usize) -> Option<u32> {
    let buffer = line.buffer;
    let (mut start, mut end) = (start, end);
    let mut class = FIRST[usize::from(buffer[start])] & LAST[usize::from(buffer[end - 1])];
    if class == 0 {
        start += buffer[start..end].iter().take_while(|byte| is_blank(**byte)).count();
        end -= blanks_before(&buffer[start..end]);
        class = FIRST[usize::from(buffer[start])] & LAST[usize::from(buffer[end - 1])];
    }
    if class & (CLOSED_OBJECT | CLOSED_ARRAY) != 0 {
        return (end == start + 1).then_some(0);
    }
    let value = match class {
        TEXT if end < start + 2 => return None,
        TEXT if line.backslash => value::text(buffer, start + 1, end - 1, rows)?,
        TEXT => Value::new(Kind::Text, start + 1, end - 1),
        NUMBER if value::is_number(buffer, start, end) => Value::new(Kind::Number, start, end),
        TRUE if &buffer[start..end] == b"true" => Value::new(Kind::True, start, end),
        FALSE if &buffer[start..end] == b"false" => Value::new(Kind::False, start, end),
        NULL if &buffer[start..end] == b"null" => Value::new(Kind::Null, start, end),
        _ => return None,
    };
    if column != NO_COLUMN {
        rows.set(column, value);
    }
    Some(u32::from(class & TEXT) * 2)
}

/// What stands before a key, if it is what must; else the key is none, or its quote was one inside a longer key.
#[inline(always)]
fn lead_before(line: &Line, quote: usize, lead: u8) -> Option<usize> {
    let before = quote - 1;
    if line.buffer[before] == lead {
        return Some(before);
    }
    let before = before - blanks_before(&line.buffer[line.start..quote]);
    (line.buffer[before] == lead).then_some(before)
}

/// The key before a colon that is none of the expected ones: its id, its meaning, and the place of what leads it.
#[cold]
#[inline(never)]
fn look_up(
    line: &Line,
    keys: &mut Keys,
    colon: usize,
    last: u16,
    parent: u16,
    lead: u8,
) -> Option<(u16, Meaning, usize)> {
    let buffer = line.buffer;
    let close = colon - 1 - blanks_before(&buffer[line.start..colon]);
    if buffer[close] != b'"' {
        return None;
    }
    let open = quote_before(line, close)?;
    let before = lead_before(line, open, lead)?;
    let spelled = &buffer[open + 1..close];
    let (id, meaning) = if spelled.contains(&b'\\') {
        let mut name = Vec::new();
        value::unescape(spelled, &mut name)?;
        keys.look_up(spelled, &name, last, parent)
    } else {
        keys.look_up(spelled, spelled, last, parent)
    };
    Some((id, meaning, before))
}

/// The nearest unescaped quote before `at`.
fn quote_before(line: &Line, at: usize) -> Option<usize> {
    let bit = at - line.start;
    let mut index = bit / 64;
    let mut word = line.quotes[index] & ((1 << (bit % 64)) - 1);
    while word == 0 {
        index = index.checked_sub(1)?;
        word = line.quotes[index];
    }
    Some(line.start + index * 64 + 63 - word.leading_zeros() as usize)
}

/// The same key again, and paths lead through it: what stood below counts no more.
#[cold]
fn clear(keys: &Keys, rows: &mut Rows, node: u16) {
    for &column in keys.below(node) {
        rows.set(column, Value::MISSING);
    }
}

/// An object or array that is itself wanted is checked to the last byte.
#[cold]
fn keep_composite(line: &Line, rows: &mut Rows, column: u16, kind: Kind, start: usize, end: usize) -> Option<()> {
    check::value(&line.buffer[start..end]).ok()?;
    rows.set(column, Value::new(kind, start, end));
    Some(())
}

/// From behind an opening `[` to its `]`, inside `depth` others. No path leads into it; brackets must match, and a
/// colon stands in an object.
fn skip_array(line: &Line, structure: &mut std::slice::Iter<u32>, depth: usize) -> Option<usize> {
    let mut arrays = 1_u64;
    let mut inner = 1;
    loop {
        if depth + inner > DEPTH_MAX {
            return None;
        }
        let at = *structure.next()? as usize;
        match (line.buffer[at], arrays & 1) {
            (b'{', _) => (arrays, inner) = (arrays << 1, inner + 1),
            (b'[', _) => (arrays, inner) = (arrays << 1 | 1, inner + 1),
            (b'}', 0) | (b']', 1) => (arrays, inner) = (arrays >> 1, inner - 1),
            (b':', 0) => {}
            _ => return None,
        }
        if inner == 0 {
            return Some(at);
        }
    }
}

/// Unescaped quotes in a range.
fn quotes_between(line: &Line, from: usize, to: usize) -> u32 {
    let (from, to) = (from - line.start, to - line.start);
    let words = &line.quotes[from / 64..=to / 64];
    let all: u32 = words.iter().map(|word| word.count_ones()).sum();
    let before = words[0] & ((1 << (from % 64)) - 1);
    let behind = words[words.len() - 1] >> (to % 64);
    all - before.count_ones() - behind.count_ones()
}

#[inline]
fn is_all_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| is_blank(*byte))
}

#[inline]
fn blanks_before(bytes: &[u8]) -> usize {
    bytes.iter().rev().take_while(|byte| is_blank(**byte)).count()
}
