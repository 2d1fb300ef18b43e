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
fn class_of(buffer: &[u8], begin: usize, end: usize) -> u8 {
    FIRST[usize::from(buffer[begin])] & LAST[usize::from(buffer[end - 1])]
}

/// Puts a line's values into the row being read and returns how many quotes they hold; `None`: one of them is none.
pub(super) fn fill(line: &Line, spans: &[Span], mut row: Row) -> Option<u32> {
    let (buffer, backslashes) = (line.buffer, line.backslashes);
    let mut quotes = 0;
    for span in spans {
        let (mut begin, mut end) = (span.begin as usize, span.end as usize);
        let mut class = class_of(buffer, begin, end);
        if class == 0 {
            (begin, end, class) = trimmed(buffer, begin, end);
        }
        // Most are strings without an escape.
        if class == TEXT && end - begin > 1 && (begin > backslashes.1 || end <= backslashes.0) {
            quotes += 2;
            if span.column != NO_COLUMN {
                row.set(span.column, Value::new(Kind::Text, begin + 1, end - 1));
            }
            continue;
        }
        let value = if class == TEXT {
            if end - begin < 2 {
                return None;
            }
            quotes += 2;
            value::text(buffer, begin + 1, end - 1, row.scratch)?
        } else if class == NUMBER {
            if !value::is_number(buffer, begin, end) {
                return None;
            }
            Value::new(Kind::Number, begin, end)
        } else if class == CLOSED {
            // That bracket was the last of the structure, so it is all that stands there.
            continue;
        } else if class & (OBJECT | ARRAY) == 0 {
            value::literal(buffer, begin, end)?
        } else {
            composite(buffer, begin, end, class)?
        };
        if span.column != NO_COLUMN {
            row.set(span.column, value);
        }
    }
    Some(quotes)
}

/// Without the blanks around it. Mostly it is the one behind the colon.
#[inline(always)]
fn trimmed(buffer: &[u8], begin: usize, end: usize) -> (usize, usize, u8) {
    let behind_blank = begin + usize::from(is_blank(buffer[begin]) && begin + 1 < end);
    let class = class_of(buffer, behind_blank, end);
    if class == 0 { trimmed_of_many(buffer, begin, end) } else { (behind_blank, end, class) }
}

#[inline(never)]
fn trimmed_of_many(buffer: &[u8], begin: usize, end: usize) -> (usize, usize, u8) {
    let span = &buffer[begin..end];
    let before = span.iter().take_while(|byte| is_blank(**byte)).count();
    let behind = span[before..].iter().rev().take_while(|byte| is_blank(**byte)).count();
    let (begin, end) = (begin + before, end - behind);
    (begin, end, if begin < end { class_of(buffer, begin, end) } else { 0 })
}

/// An object or array that is itself wanted is checked to the last byte.
#[cold]
fn composite(buffer: &[u8], begin: usize, end: usize, class: u8) -> Option<Value> {
    check::value(&buffer[begin..end]).ok()?;
    Some(Value::new(if class == OBJECT { Kind::Object } else { Kind::Array }, begin, end))
}
