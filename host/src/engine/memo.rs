//! What an enricher answered, by the hash of its input: shared by the shards, bounded, one atomic word a slot.
//!
//! A slot holds 40 bits of the hash and the number of an answer; the slot's place gives the other bits. Distinct answers are
//! few (countries, devices), so they are kept once, numbered; a shard translates a number to its own codes once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};

use super::atomics::written;

/// 16 MB of slots: about a million inputs remembered well.
pub const SLOTS: usize = 1 << 21;
pub const ANSWERS_MAX: usize = 1 << 20;

/// The number of no answer.
pub const NONE: u32 = u32::MAX;

const NUMBER_BITS: u32 = 24;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

/// One output value.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Null,
    Text(Arc<str>),
    Number(f64),
}

pub struct Memo {
    /// `hash's high 40 bits << 24 | number + 1`; 0 is empty.
    slots: Box<[AtomicU64]>,
    answers: RwLock<Answers>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

#[derive(Default)]
struct Answers {
    numbers: HashMap<Vec<u8>, u32>,
    tuples: Vec<Arc<[Answer]>>,
}

impl Default for Memo {
    fn default() -> Self {
        Self::with_slots(SLOTS)
    }
}

impl Memo {
    /// `slots`: a power of two, at least 2.
    pub fn with_slots(slots: usize) -> Self {
        assert!(slots.is_power_of_two() && slots >= 2);
        Self {
            slots: written(slots, 1),
            answers: RwLock::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub fn count(&self, hits: u64, misses: u64) {
        self.hits.fetch_add(hits, Relaxed);
        self.misses.fetch_add(misses, Relaxed);
    }

    /// The numbers of the answers to inputs with these hashes; `NONE` where there is none. Independent loads and no branch on
    /// what they bring, so that they overlap.
    pub fn get_all(&self, hashes: &[u64], numbers: &mut Vec<u32>) {
        numbers.clear();
        numbers.extend(hashes.iter().map(|hash| self.get(*hash)));
    }

    #[inline]
    fn get(&self, hash: u64) -> u32 {
        let at = self.place(hash);
        let number_in = |word: u64| ((word ^ hash) >> NUMBER_BITS == 0) as u64 * (word & NUMBER_MASK);
        let (first, second) = (self.slots[at].load(Relaxed), self.slots[at ^ 1].load(Relaxed));
        (number_in(first).max(number_in(second)) as u32).wrapping_sub(1)
    }

    /// Remembers which answer the input with this hash has.
    pub fn insert(&self, hash: u64, number: u32) {
        let at = self.place(hash);
        // The newest takes its place, what was there moves beside it, what was beside it is forgotten.
        let before = self.slots[at].load(Relaxed);
        if before != 0 {
            self.slots[at ^ 1].store(before, Relaxed);
        }
        self.slots[at].store((hash & !NUMBER_MASK) | u64::from(number + 1), Relaxed);
    }

    /// The answer with this number.
    pub fn answer(&self, number: u32) -> Option<Arc<[Answer]>> {
        self.answers.read().ok()?.tuples.get(number as usize).cloned()
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    /// The number of an answer by bytes that are equal for equal answers only; `None` when there are too many distinct ones.
    pub fn number_of(&self, key: &[u8], answer: impl FnOnce() -> Vec<Answer>) -> Option<u32> {
        if let Some(number) = self.answers.read().ok()?.numbers.get(key) {
            return Some(*number);
        }
        let mut answers = self.answers.write().ok()?;
        if let Some(number) = answers.numbers.get(key) {
            return Some(*number);
        }
        if answers.tuples.len() >= ANSWERS_MAX {
            return None;
        }
        let number = answers.tuples.len() as u32;
        answers.tuples.push(answer().into());
        answers.numbers.insert(key.to_vec(), number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn gives_back_what_was_inserted_or_nothing() {
        let memo = Memo::with_slots(64);
        let answer = |n: u64| vec![Answer::Text(format!("v{}", n % 5).into()), Answer::Null];
        let mut kept = 0;
        for n in 0..1_000u64 {
            let hash = xxh3_64(&n.to_le_bytes());
            let number = memo.number_of(&[(n % 5) as u8], || answer(n)).unwrap();
            memo.insert(hash, number);
            assert_eq!(memo.get(hash), number, "an answer just given is there");
        }
        for n in 0..1_000u64 {
            let number = memo.get(xxh3_64(&n.to_le_bytes()));
            if number != NONE {
                kept += 1;
                assert_eq!(*memo.answer(number).unwrap(), answer(n)[..]);
            }
        }
        assert!((50..=64).contains(&kept), "{kept} kept");
    }
}
