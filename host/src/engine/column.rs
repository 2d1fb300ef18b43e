//! One chunk of accepted events as columns: codes, numbers and hashes of the fields that the plan reads.

use xxhash_rust::xxh3::xxh3_64;

use super::arith::{Arith, Operator};
use super::decode::{Kind, number};
use super::plan::FieldId;
use crate::time::Millis;

/// Rows decoded, judged and added up together: columns of this length stay in cache.
pub const CHUNK_ROWS: usize = 1024;

#[derive(Default)]
pub struct Columns {
    pub rows: usize,
    /// When each event happened; empty where the plan does not want it.
    pub times: Vec<Millis>,
    /// By field; empty where the plan does not want that form of the field.
    pub codes: Vec<Vec<u32>>,
    /// NaN: not a number.
    pub numbers: Vec<Vec<f64>>,
    /// 0: no value.
    pub hashes: Vec<Vec<u64>>,
}

impl Columns {
    pub fn new(fields: usize) -> Self {
        Self {
            rows: 0,
            times: Vec::new(),
            codes: vec![Vec::new(); fields],
            numbers: vec![Vec::new(); fields],
            hashes: vec![Vec::new(); fields],
        }
    }

    /// Sets one row of a field in the forms that the plan wants.
    #[inline]
    pub fn fill(&mut self, field: FieldId, row: usize, code: u32, number: f64, hash: u64) {
        if let Some(place) = self.codes[field].get_mut(row) {
            *place = code;
        }
        if let Some(place) = self.numbers[field].get_mut(row) {
            *place = number;
        }
        if let Some(place) = self.hashes[field].get_mut(row) {
            *place = hash;
        }
    }

    /// Arithmetic row by row; NaN where a part is null or the result is not finite.
    pub fn numbers_of(&self, arith: &Arith<FieldId>, out: &mut Vec<f64>) {
        out.clear();
        match arith {
            Arith::Leaf(field) => out.extend_from_slice(&self.numbers[*field]),
            Arith::Literal(value) => out.resize(self.rows, *value),
            Arith::Negate(inner) => {
                self.numbers_of(inner, out);
                out.iter_mut().for_each(|value| *value = -*value);
            }
            Arith::Binary(operator, left, right) => {
                let mut other = Vec::new();
                self.numbers_of(left, out);
                self.numbers_of(right, &mut other);
                let pairs = out.iter_mut().zip(&other);
                match operator {
                    Operator::Add => pairs.for_each(|(a, b)| *a = finite(*a + b)),
                    Operator::Subtract => pairs.for_each(|(a, b)| *a = finite(*a - b)),
                    Operator::Multiply => pairs.for_each(|(a, b)| *a = finite(*a * b)),
                    Operator::Divide => pairs.for_each(|(a, b)| *a = finite(*a / b)),
                    Operator::Modulo => pairs.for_each(|(a, b)| *a = finite(*a % b)),
                }
            }
        }
    }
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NAN }
}

/// Hash of a value for counting distinct ones: equal numbers are equal however they are written, a number differs from its text. Never 0.
#[inline]
pub fn value_hash(kind: Kind, bytes: &[u8]) -> u64 {
    let hash = match kind {
        Kind::Text => xxh3_64(bytes),
        Kind::Number => number_hash(bytes),
        _ => xxh3_64(&[kind as u8, 0xff]),
    };
    hash.max(1)
}

fn number_hash(literal: &[u8]) -> u64 {
    const NUMBER: u64 = 0x9e37_79b9_7f4a_7c15;
    /// Below it every whole number is an `f64` of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value = number(literal);
    let plain = literal.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    let hash =
        if value.abs() < EXACT || !plain { xxh3_64(&(value + 0.0).to_bits().to_le_bytes()) } else { xxh3_64(literal) };
    hash ^ NUMBER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_hash_alike_and_unlike_their_text() {
        let hash = |literal: &str| value_hash(Kind::Number, literal.as_bytes());
        assert_eq!(hash("5"), hash("5.0"));
        assert_eq!(hash("5"), hash("0.5e1"));
        assert_eq!(hash("0"), hash("-0"));
        assert_ne!(hash("5"), value_hash(Kind::Text, b"5"));
        assert_ne!(hash("9007199254740993"), hash("9007199254740992"), "ids beyond 2^53 stay apart");
        assert_ne!(value_hash(Kind::True, b"true"), value_hash(Kind::False, b"false"));
    }
}
