//! The values of one line: checked, and noted in the row.
//!
//! Knows nothing of keys and of structure.

use super::keys::NO_COLUMN;
use super::rows::{Kind, Row, Value};
use super::walk::{Line, Span};
use super::{check, is_blank, value};

// What a value begins with and what it ends with must have a bit in common.
const TEXT: u8 = 1;
const NUMBER: u8 = 2;
const LITERAL_IN_E: u8 = 4;
const LITERAL_IN_L: u8 = 8;
/// An object or an array that has been walked: its closing bracket stands for it.
const CLOSED: u8 = 16;
/// One that is itself wanted stands there as a whole.
const OBJECT: u8 = 32;
const ARRAY: u8 = 64;

const FIRST: [u8; 256] = classes(true);
const LAST: [u8; 256] = classes(false);

const fn classes(first: bool) -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match (byte as u8, first) {
            (b'"', _) => TEXT,
            (b'0'..=b'9', _) | (b'-', true) => NUMBER,
            (b't' | b'f', true) | (b'e', false) => LITERAL_IN_E,
            (b'n', true) | (b'l', false) => LITERAL_IN_L,
            (b'}', true) | (b']', true) => CLOSED,
            (b'}', false) => CLOSED | OBJECT,
            (b']', false) => CLOSED | ARRAY,
            (b'{', true) => OBJECT,
            (b'[', true) => ARRAY,
            _ => 0,
        };
        byte += 1;
    }
    classes
}

#[inline(always)]
fn class(buffer: &[u8], begin: usize, end: usize) -> u8 {
    FIRST[usize::from(buffer[begin])] & LAST[usize::from(buffer[end - 1])]
}

/// Puts a line's values into the row being read and returns how many quotes they hold; `None`: one of them is none.
pub(super) fn fill(line: &Line, spans: &[Span], mut row: Row) -> Option<u32> {
    let backslashes = line.backslashes;
    let mut quotes = 0;
    for span in spans {
        let (mut begin, mut end) = (span.begin as usize, span.end as usize);
        let mut class = class(line.buffer, begin, end);
        if class == 0 {
            (begin, end, class) = trimmed(line.buffer, begin, end);
        }
        let value = if class == TEXT {
            quotes += 2;
            if end - begin < 2 {
                return None;
            }
            if begin <= backslashes.1 && end > backslashes.0 {
                value::text(line.buffer, begin + 1, end - 1, row.scratch)?
            } else {
                Value::new(Kind::Text, begin + 1, end - 1)
            }
        } else if class == NUMBER {
            if !value::is_number(line.buffer, begin, end) {
                return None;
            }
            Value::new(Kind::Number, begin, end)
        } else if class == CLOSED {
            if end != begin + 1 {
                return None;
            }
            continue;
        } else if class & (OBJECT | ARRAY) == 0 {
            value::literal(line.buffer, begin, end)?
        } else {
            composite(line.buffer, begin, end, class)?
        };
        if span.column != NO_COLUMN {
            row.set(span.column, value);
        }
    }
    Some(quotes)
}

/// Without the blanks around it.
#[inline(never)]
fn trimmed(buffer: &[u8], begin: usize, end: usize) -> (usize, usize, u8) {
    let span = &buffer[begin..end];
    let before = span.iter().take_while(|byte| is_blank(**byte)).count();
    let behind = span[before..].iter().rev().take_while(|byte| is_blank(**byte)).count();
    let (begin, end) = (begin + before, end - behind);
    (begin, end, if begin < end { class(buffer, begin, end) } else { 0 })
}

/// An object or array that is itself wanted is checked to the last byte.
#[cold]
fn composite(buffer: &[u8], begin: usize, end: usize, class: u8) -> Option<Value> {
    check::value(&buffer[begin..end]).ok()?;
    Some(Value::new(if class == OBJECT { Kind::Object } else { Kind::Array }, begin, end))
}
