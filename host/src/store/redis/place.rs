//! What values and combinations are kept under, as Redis has decided it: the hosts' common numbers.
//!
//! Follows `memory/state.rs::Day::place`, with the deciding in Redis (`lua/place.lua`). What is kept there only grows while a
//! token lasts, so what is found here holds; Redis is asked only about what may have to be added.

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;

use super::link::{Function, Link, unexpected};
use super::pack::{Pack, texts};
use super::value::{self, Answer};
use crate::engine::plan::Fingerprint;
use crate::store::{OTHER, StoreError};

/// Combinations Redis decides about in one call: a few milliseconds.
const ASKED_MAX: usize = 1_000;
/// In keys of margins: whatever value.
const ANY: u32 = u32::MAX;

/// Combinations kept of one metric on one day, or values of a dimension.
#[derive(Default)]
pub struct Kept {
    numbers: HashMap<Box<[u8]>, u32>,
    count: u32,
    kept: u32,
    firsts: u32,
    margins: HashMap<Box<[u8]>, u32>,
    /// For each number its margins, as many for all.
    margins_of: Vec<u32>,
    margins_each: usize,
}

/// What is known of a life of Redis.
#[derive(Default)]
pub struct Places {
    token: String,
    days: HashMap<(Fingerprint, u32), Kept>,
    values: HashMap<(Arc<str>, u32), Kept>,
}

impl Places {
    /// Forgets what was of another life.
    pub fn of(&mut self, token: &str) -> &mut Self {
        if self.token != token {
            *self = Self { token: token.to_owned(), ..Self::default() };
        }
        self
    }

    /// Which life the numbers are of.
    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Forgets days before this one.
    pub fn forget_before(&mut self, day: u32) {
        self.days.retain(|(_, of), _| *of >= day);
        self.values.retain(|(_, of), _| *of >= day);
    }

    pub fn day(&mut self, fingerprint: Fingerprint, day: u32, margins_each: usize) -> &mut Kept {
        self.days.entry((fingerprint, day)).or_insert_with(|| Kept { margins_each, ..Kept::default() })
    }

    pub fn values(&mut self, dimension: &str, day: u32) -> &mut Kept {
        self.values.entry((dimension.into(), day)).or_default()
    }

    /// Whether a value of a dimension is kept on any day.
    pub fn is_kept_somewhere(&self, dimension: &str, value: &str) -> bool {
        let key = key(&[value]);
        self.values.iter().any(|((name, _), kept)| **name == *dimension && kept.numbers.contains_key(key.as_slice()))
    }
}

/// What a combination is looked up by.
fn key(combination: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(combination.iter().map(|value| value.len() + 4).sum());
    write_key(&mut key, combination);
    key
}

fn write_key(key: &mut Vec<u8>, combination: &[&str]) {
    key.clear();
    for value in combination {
        key.extend_from_slice(&(value.len() as u32).to_le_bytes());
        key.extend_from_slice(value.as_bytes());
    }
}

impl Kept {
    pub fn has_margins(&self) -> bool {
        self.margins_each > 0
    }

    pub fn margins_of(&self, number: u32) -> &[u32] {
        &self.margins_of[number as usize * self.margins_each..][..self.margins_each]
    }

    /// The number a combination is kept under; `None`: Redis is to decide. What it is kept as is left in `wanted`.
    pub fn resolve(&self, wanted: &mut [&str], limit: u32, scratch: &mut Vec<u8>) -> Option<u32> {
        let mut find = |wanted: &[&str]| {
            write_key(scratch, wanted);
            self.numbers.get(scratch.as_slice()).copied()
        };
        if let Some(number) = find(wanted) {
            return Some(number);
        }
        if self.kept < limit {
            return None;
        }
        for last in (1..wanted.len()).rev() {
            wanted[last] = OTHER;
            if let Some(number) = find(wanted) {
                return Some(number);
            }
        }
        if wanted.len() > 1 && wanted[0] != OTHER && self.firsts < limit {
            return None;
        }
        wanted.fill(OTHER);
        find(wanted)
    }

    /// Whether a value of a dimension is kept; `None`: Redis is to decide.
    pub fn holds(&self, value: &str, limit: u32) -> Option<bool> {
        let found = self.numbers.contains_key(key(&[value]).as_slice());
        if found || self.kept >= limit { Some(found) } else { None }
    }

    fn add(&mut self, combination: &[&str]) {
        self.numbers.insert(key(combination).into(), self.count);
        self.count += 1;
        if self.margins_each > 0 {
            self.add_margins(combination);
        }
    }

    /// The total first, then each single dimension, numbered as they come: as `memory/state.rs::Day` does.
    fn add_margins(&mut self, combination: &[&str]) {
        let singles = if self.margins_each == 1 { 0 } else { combination.len() };
        let total = ANY.to_le_bytes().to_vec();
        let single = |at: usize| [&(at as u32).to_le_bytes(), combination[at].as_bytes()].concat();
        for margin in std::iter::once(total).chain((0..singles).map(single)) {
            let next = self.margins.len() as u32;
            self.margins_of.push(*self.margins.entry(margin.into()).or_insert(next));
        }
    }

    /// Has Redis decide about these, in their order, and learns what is kept since.
    pub fn ask(
        &mut self,
        link: &mut Link,
        token: &str,
        what: &str,
        limit: u32,
        fold: bool,
        wanted: &[Vec<&str>],
    ) -> Result<(), StoreError> {
        for wanted in wanted.chunks(ASKED_MAX) {
            let mut packed = Pack::default();
            packed.array(wanted.len());
            for combination in wanted {
                packed.array(combination.len());
                for value in combination.iter() {
                    packed.bytes(value);
                }
            }
            let (limit, known) = (limit.to_string(), self.count.to_string());
            let past = if fold { "fold" } else { "none" };
            let arguments =
                [token.as_bytes(), what.as_bytes(), limit.as_bytes(), known.as_bytes(), past.as_bytes(), &packed.0];
            let answer = Answer::of(link.call(Function::Place, &arguments)?)?;
            self.learn(answer.rest())?;
        }
        Ok(())
    }

    fn learn(&mut self, answer: &[Value]) -> Result<(), StoreError> {
        let [kept, firsts, Value::Array(list)] = answer else {
            return Err(unexpected(&Value::Array(answer.to_vec())));
        };
        for packed in list {
            let bytes = value::bytes(packed)?;
            let combination = texts(bytes).ok_or_else(|| unexpected(packed))?;
            self.add(&combination);
        }
        (self.kept, self.firsts) = (value::number(kept)?, value::number(firsts)?);
        Ok(())
    }
}
