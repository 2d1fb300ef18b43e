//! `where` clauses over columns, in SQL's three-valued logic: 0 is false, 1 is null, 2 is true, so that AND is the minimum and OR the maximum.

use super::arith::Arith;
use super::column::Columns;
use super::decode::Kind;
use super::dictionary::{Dictionary, Entry, NO_VALUE};
use super::plan::{Compare, FieldId, Predicate, ValueTest};

pub const FALSE: u8 = 0;
pub const NULL: u8 = 1;
pub const TRUE: u8 = 2;

/// A predicate that remembers what it decided for each code of a field.
pub enum Filter {
    Constant(u8),
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Value { field: FieldId, test: ValueTest, by_code: Vec<u8> },
    Number { left: Arith<FieldId>, compare: Compare, right: Arith<FieldId> },
    IsNull { field: FieldId },
}

impl Filter {
    pub fn new(predicate: &Predicate) -> Self {
        match predicate {
            Predicate::Constant(value) => Self::Constant(truth(*value)),
            Predicate::And(parts) => Self::And(parts.iter().map(Self::new).collect()),
            Predicate::Or(parts) => Self::Or(parts.iter().map(Self::new).collect()),
            Predicate::Not(inner) => Self::Not(Box::new(Self::new(inner))),
            Predicate::Value { field, test } => Self::Value { field: *field, test: test.clone(), by_code: Vec::new() },
            Predicate::Number { left, compare, right } => {
                Self::Number { left: left.clone(), compare: *compare, right: right.clone() }
            }
            Predicate::IsNull { field } => Self::IsNull { field: *field },
        }
    }

    /// Codes mean something else from now on.
    pub fn forget(&mut self) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter_mut().for_each(Self::forget),
            Self::Not(inner) => inner.forget(),
            Self::Value { by_code, .. } => by_code.clear(),
            Self::Constant(_) | Self::Number { .. } | Self::IsNull { .. } => {}
        }
    }

    /// One truth a row.
    pub fn evaluate(&mut self, columns: &Columns, dictionaries: &[Option<Dictionary>], out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Constant(value) => out.resize(columns.rows, *value),
            Self::And(parts) => fold(parts, columns, dictionaries, out, TRUE, u8::min),
            Self::Or(parts) => fold(parts, columns, dictionaries, out, FALSE, u8::max),
            Self::Not(inner) => {
                inner.evaluate(columns, dictionaries, out);
                out.iter_mut().for_each(|value| *value = TRUE - *value);
            }
            Self::Value { field, test, by_code } => {
                let entries = dictionaries[*field].as_ref().map_or(&[][..], Dictionary::entries);
                by_code.extend(entries[by_code.len()..].iter().map(|entry| decide(test, entry)));
                out.extend(columns.codes[*field].iter().map(|code| by_code[*code as usize]));
            }
            Self::Number { left, compare, right } => {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                columns.numbers_of(left, &mut a);
                columns.numbers_of(right, &mut b);
                let compare = *compare;
                out.extend(
                    a.iter()
                        .zip(&b)
                        .map(|(a, b)| if a.is_nan() || b.is_nan() { NULL } else { truth(holds(compare, a, b)) }),
                );
            }
            Self::IsNull { field } => out.extend(columns.codes[*field].iter().map(|code| truth(*code == NO_VALUE))),
        }
    }
}

fn truth(value: bool) -> u8 {
    if value { TRUE } else { FALSE }
}

fn fold(
    parts: &mut [Filter],
    columns: &Columns,
    dictionaries: &[Option<Dictionary>],
    out: &mut Vec<u8>,
    unit: u8,
    join: fn(u8, u8) -> u8,
) {
    let mut part_out = Vec::new();
    out.resize(columns.rows, unit);
    for part in parts {
        part.evaluate(columns, dictionaries, &mut part_out);
        out.iter_mut().zip(&part_out).for_each(|(value, part)| *value = join(*value, *part));
    }
}

fn holds<T: PartialOrd + ?Sized>(compare: Compare, a: &T, b: &T) -> bool {
    match compare {
        Compare::Equal => a == b,
        Compare::NotEqual => a != b,
        Compare::Less => a < b,
        Compare::LessOrEqual => a <= b,
        Compare::Greater => a > b,
        Compare::GreaterOrEqual => a >= b,
    }
}

/// A test of a value of another type is null, as with a missing one.
fn decide(test: &ValueTest, entry: &Entry) -> u8 {
    match (test, entry.kind) {
        (ValueTest::Boolean(want), Kind::True | Kind::False) => truth((entry.kind == Kind::True) == *want),
        (ValueTest::Text(compare, want), Kind::Text) => truth(holds(*compare, entry.text.as_bytes(), want.as_bytes())),
        (ValueTest::TextIn(list), Kind::Text) => truth(list.iter().any(|want| **want == *entry.text)),
        (ValueTest::Like { pattern, escape, ignore_case }, Kind::Text) => {
            let fold = |text: &str| if *ignore_case { text.to_lowercase() } else { text.to_string() };
            truth(like(&fold(pattern), *escape, &fold(&entry.text)))
        }
        _ => NULL,
    }
}

enum Piece {
    Any,
    One,
    Exactly(char),
}

/// SQL's LIKE: greedy, going back to the last `%` only.
fn like(pattern: &str, escape: Option<char>, text: &str) -> bool {
    let mut pieces = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            letter if Some(letter) == escape => Piece::Exactly(letters.next().unwrap_or(letter)),
            '%' => Piece::Any,
            '_' => Piece::One,
            letter => Piece::Exactly(letter),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut piece, mut back) = (0, 0, None);
    while at < text.len() {
        match pieces.get(piece) {
            Some(Piece::Any) => {
                back = Some((piece + 1, at));
                piece += 1;
            }
            Some(Piece::One) => (at, piece) = (at + 1, piece + 1),
            Some(Piece::Exactly(letter)) if *letter == text[at] => (at, piece) = (at + 1, piece + 1),
            _ => match back {
                Some((after, from)) => {
                    (piece, at) = (after, from + 1);
                    back = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pieces[piece..].iter().all(|piece| matches!(piece, Piece::Any))
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn like_patterns() {
        for (pattern, text, want) in [
            ("%", "", true),
            ("", "", true),
            ("", "a", false),
            ("/p/%", "/p/1", true),
            ("/p/%", "/q/1", false),
            ("%shoe%", "red shoes", true),
            ("_at", "cat", true),
            ("_at", "at", false),
            ("a%b%c", "a-b-b-c", true),
            ("a%b%c", "a-b-b-d", false),
            ("_", "é", true),
            ("50!%", "50%", true),
            ("50!%", "50x", false),
            ("%a", "aaa", true),
        ] {
            assert_eq!(like(pattern, Some('!'), text), want, "{pattern} {text}");
        }
    }
}
