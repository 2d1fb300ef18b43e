//! Ids seen before: one table for all shards, atomic slots, no locks. Does not know what an id is, only its hash and when it arrived.
//!
//! Entries stand in a log in the order in which they came; a table of 4-byte slots says where. A slot names its entry and a few
//! bits of its hash, so that the walk to an empty slot seldom leaves the slots, and these are a quarter of what the entries take.
//!
//! Two generations, each of at most one `dedupe` span: the older is dropped when the younger is that old. Nothing is ever removed
//! from a generation, so that two shards with the same id walk to the same empty slot and one of them takes it.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::atomics::{promised, written};
use crate::time::Millis;

const SLOTS_MIN: usize = 1 << 17;
/// Steps to an empty slot before an id counts as forgotten.
const PROBES_MAX: usize = 4_096;
/// 1 GB with their entries. Beyond it ids are not remembered, and counted.
const SLOTS_MAX: usize = 1 << 26;
/// Up to this size a table that fills up is made anew; a larger one gets another beside it, so that no tick waits long.
const REHASH_MAX: usize = 1 << 20;
/// Entries that are taken from the log at once, so that shards seldom meet there.
const ENTRIES_AT_ONCE: usize = 64;

/// Bits of a slot that name an entry: one more than its place. The others are of its hash.
const ENTRY_BITS: u32 = 26;
const ENTRY_MASK: u32 = (1 << ENTRY_BITS) - 1;

struct Table {
    /// 0: empty.
    slots: Box<[AtomicU32]>,
    /// Pairs: hash and arrival.
    log: Box<[AtomicU64]>,
    /// Entries that were taken; a few of them may hold nothing.
    used: AtomicU64,
}

/// Places in the log that one caller may write to.
#[derive(Default)]
struct Taken {
    next: usize,
    end: usize,
}

struct Generation {
    /// Newest last; only the last takes ids.
    tables: Vec<Table>,
    /// Arrival of the first id.
    since: Millis,
}

pub struct Dedupe {
    span_ms: Millis,
    current: Generation,
    previous: Option<Generation>,
    /// Ids that found no place.
    pub forgotten: AtomicU64,
}

impl Table {
    fn new(slots: usize, threads: usize) -> Self {
        // Three quarters of the slots are filled at most: `ENTRY_BITS` are enough for the largest table.
        let entries = slots / 4 * 3;
        Self { slots: written(slots, threads), log: promised(entries * 2), used: AtomicU64::new(0) }
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn entries(&self) -> usize {
        self.log.len() / 2
    }

    /// Of the slots.
    fn fill(&self) -> f64 {
        self.used.load(Relaxed) as f64 / self.slots() as f64
    }

    fn is_full(&self) -> bool {
        self.used.load(Relaxed) as usize >= self.entries()
    }

    fn entry(&self, place: usize) -> (&AtomicU64, &AtomicU64) {
        (&self.log[place * 2], &self.log[place * 2 + 1])
    }

    /// The slot of an id begins at its low bits; these are others.
    fn mark(hash: u64) -> u32 {
        (hash >> 32) as u32 & !ENTRY_MASK
    }

    /// Walks from the id's first slot to its entry, or to an empty slot and `None`; no answer where neither is near.
    #[inline]
    fn walk(&self, hash: u64, from: usize) -> Option<(usize, Option<usize>)> {
        let mask = self.slots() - 1;
        let mut at = from & mask;
        for _ in 0..PROBES_MAX {
            let slot = self.slots[at].load(Acquire);
            if slot == 0 {
                return Some((at, None));
            }
            if slot & !ENTRY_MASK == Self::mark(hash) {
                let place = (slot & ENTRY_MASK) as usize - 1;
                if self.entry(place).0.load(Relaxed) == hash {
                    return Some((at, Some(place)));
                }
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// When the id arrived first.
    #[inline]
    fn find(&self, hash: u64) -> Option<Millis> {
        let (_, place) = self.walk(hash, hash as usize)?;
        Some(self.entry(place?).1.load(Relaxed) as Millis)
    }

    /// The next place in the log; `wanted`: how many more may follow.
    #[inline]
    fn take<const SHARED: bool>(&self, taken: &mut Taken, wanted: usize) -> Option<usize> {
        if taken.next == taken.end {
            let count = wanted.clamp(1, ENTRIES_AT_ONCE);
            let from = if SHARED {
                self.used.fetch_add(count as u64, Relaxed)
            } else {
                let from = self.used.load(Relaxed);
                self.used.store(from + count as u64, Relaxed);
                from
            } as usize;
            *taken = Taken { next: from, end: from + count };
        }
        (taken.next < self.entries()).then_some(taken.next)
    }

    /// `Some(true)`: this call put it there, or renewed what was older than the span; `None`: no place near, or none left.
    /// `SHARED`: others may insert at the same time.
    #[inline]
    fn insert<const SHARED: bool>(
        &self,
        hash: u64,
        arrival: Millis,
        span_ms: Millis,
        taken: &mut Taken,
        wanted: usize,
    ) -> Option<bool> {
        let mut from = hash as usize;
        loop {
            let (at, place) = self.walk(hash, from)?;
            if let Some(place) = place {
                return Some(self.renew::<SHARED>(place, arrival, span_ms));
            }
            let place = self.take::<SHARED>(taken, wanted)?;
            let (key, time) = self.entry(place);
            key.store(hash, Relaxed);
            time.store(arrival as u64, Relaxed);
            let slot = Self::mark(hash) | (place as u32 + 1);
            if !SHARED {
                self.slots[at].store(slot, Relaxed);
            } else if self.slots[at].compare_exchange(0, slot, Release, Relaxed).is_err() {
                // Somebody was faster, perhaps with the same id. The entry is written over by the next one.
                from = at;
                continue;
            }
            taken.next += 1;
            return Some(true);
        }
    }

    fn renew<const SHARED: bool>(&self, place: usize, arrival: Millis, span_ms: Millis) -> bool {
        let (_, time) = self.entry(place);
        let before = time.load(Relaxed);
        if arrival - (before as Millis) < span_ms {
            return false;
        }
        if !SHARED {
            time.store(arrival as u64, Relaxed);
            return true;
        }
        // Of two that race for the same id one wins; the other sees a fresh arrival and is the duplicate.
        time.compare_exchange(before, arrival as u64, Relaxed, Relaxed).is_ok()
    }
}

impl Dedupe {
    pub fn new(span_ms: Millis) -> Self {
        Self::with_expected(span_ms, 0, 1)
    }

    /// `expected`: ids within a span, if known; `threads` make room for them.
    pub fn with_expected(span_ms: Millis, expected: usize, threads: usize) -> Self {
        let slots = (expected * 2).next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
        let current = Generation { tables: vec![Table::new(slots, threads)], since: Millis::MIN };
        Self { span_ms, current, previous: None, forgotten: AtomicU64::new(0) }
    }

    pub fn span_ms(&self) -> Millis {
        self.span_ms
    }

    /// Calls `duplicate` with the index of each id that was seen within the span; all others are remembered from now on.
    pub fn check(&self, hashes: &[u64], arrivals: &[Millis], duplicate: impl FnMut(usize)) {
        self.check_all::<true>(hashes, arrivals, duplicate);
    }

    /// The same, faster, since nobody else is at it.
    pub fn check_alone(&mut self, hashes: &[u64], arrivals: &[Millis], duplicate: impl FnMut(usize)) {
        self.check_all::<false>(hashes, arrivals, duplicate);
    }

    fn check_all<const SHARED: bool>(&self, hashes: &[u64], arrivals: &[Millis], mut duplicate: impl FnMut(usize)) {
        let (newest, older) = self.current.tables.split_last().expect("a generation has a table");
        let older: Vec<&Table> = older.iter().chain(self.previous.iter().flat_map(|it| &it.tables)).collect();
        let full = newest.is_full();
        // The loads of one batch overlap instead of each waiting for memory.
        let touched =
            hashes.iter().fold(0, |sum, hash| sum ^ newest.slots[*hash as usize & (newest.slots() - 1)].load(Relaxed));
        std::hint::black_box(touched);
        let (mut taken, mut forgotten) = (Taken::default(), 0);
        for (at, (hash, arrival)) in hashes.iter().zip(arrivals).enumerate() {
            let hash = (*hash).max(1);
            let fresh = |first: Millis| arrival - first >= self.span_ms;
            let known = older.iter().any(|table| table.find(hash).is_some_and(|first| !fresh(first)));
            let inserted = if known {
                Some(false)
            } else if full {
                None
            } else {
                newest.insert::<SHARED>(hash, *arrival, self.span_ms, &mut taken, hashes.len() - at)
            };
            match inserted {
                Some(true) => {}
                Some(false) => duplicate(at),
                None => {
                    forgotten += 1;
                    if newest.find(hash).is_some_and(|first| !fresh(first)) {
                        duplicate(at);
                    }
                }
            }
        }
        self.forgotten.fetch_add(forgotten, Relaxed);
    }

    /// Between two ticks, when no shard is at work: makes room and drops what is older than the span.
    /// `span_ms`: how long ids are remembered from now on.
    pub fn maintain(&mut self, arrival: Millis, span_ms: Millis) {
        self.span_ms = span_ms;
        if self.current.since == Millis::MIN {
            if self.current.tables[0].used.load(Relaxed) == 0 {
                return;
            }
            self.current.since = arrival;
        }
        if arrival - self.current.since > self.span_ms {
            let ids: u64 = self.current.tables.iter().map(|table| table.used.load(Relaxed)).sum();
            let slots = (ids as usize * 3).next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
            let fresh = Generation { tables: vec![Table::new(slots, 1)], since: Millis::MIN };
            self.previous = Some(std::mem::replace(&mut self.current, fresh));
            return;
        }
        self.make_room();
    }

    /// More room is to be made before much more is put in.
    pub fn wants_room(&self) -> bool {
        self.current.tables.last().is_some_and(|newest| newest.fill() > 0.55)
    }

    /// Makes room before a table is full. Nobody else may be at work.
    pub fn make_room(&mut self) {
        let newest = self.current.tables.last().expect("a generation has a table");
        let total = self.current.tables.iter().map(Table::slots).sum::<usize>();
        if !self.wants_room() || total >= SLOTS_MAX {
            return;
        }
        let slots = newest.slots();
        let larger = Table::new(slots * 4, 1);
        if slots <= REHASH_MAX {
            let old = self.current.tables.pop().expect("a generation has a table");
            let mut taken = Taken::default();
            for pair in old.log.chunks_exact(2).take(old.used.load(Relaxed) as usize) {
                let (hash, time) = (pair[0].load(Relaxed), pair[1].load(Relaxed));
                if hash != 0 {
                    larger.insert::<false>(hash, time as Millis, self.span_ms, &mut taken, 1);
                }
            }
        }
        self.current.tables.push(larger);
    }

    /// Bytes of all tables, as far as they are filled.
    pub fn bytes(&self) -> usize {
        let tables = self.current.tables.iter().chain(self.previous.iter().flat_map(|generation| &generation.tables));
        let of = |table: &Table| {
            let filled = table.entries().min(table.used.load(Relaxed) as usize);
            table.slots() * size_of::<u32>() + filled * 2 * size_of::<u64>()
        };
        tables.map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hash(n: u64) -> u64 {
        xxh3_64(&n.to_le_bytes())
    }

    fn new_ones(dedupe: &Dedupe, hashes: &[u64], arrival: Millis) -> usize {
        let mut duplicates = 0;
        dedupe.check(hashes, &vec![arrival; hashes.len()], |_| duplicates += 1);
        hashes.len() - duplicates
    }

    #[test]
    fn remembered_for_the_span_and_no_longer() {
        let dedupe = Dedupe::new(1_000);
        let is_new = |arrival| new_ones(&dedupe, &[7], arrival) == 1;
        assert!(is_new(5_000));
        assert!(!is_new(5_999));
        assert!(is_new(6_000), "the span is over");
        assert!(!is_new(6_500), "counted again, remembered from then on");
        assert!(!is_new(4_000), "an earlier arrival of an id that is known");
        assert_eq!(new_ones(&dedupe, &[8, 9, 8, 8], 6_000), 2, "within one batch");
    }

    #[test]
    fn none_is_lost_while_tables_grow_and_turn() {
        let mut dedupe = Dedupe::new(10_000);
        let hashes: Vec<u64> = (0..40 * 20_000).map(hash).collect();
        for tick in 0..40usize {
            let now = tick as Millis * 1_000;
            assert_eq!(new_ones(&dedupe, &hashes[tick * 20_000..(tick + 1) * 20_000], now), 20_000, "tick {tick}");
            assert_eq!(
                new_ones(&dedupe, &hashes[tick.saturating_sub(9) * 20_000..(tick + 1) * 20_000], now),
                0,
                "tick {tick}"
            );
            dedupe.maintain(now, 10_000);
        }
        assert_eq!(dedupe.forgotten.load(Relaxed), 0);
        assert!(dedupe.bytes() <= 64 << 20, "{} bytes", dedupe.bytes());
    }

    #[test]
    fn shards_that_race_agree_on_one() {
        let dedupe = Dedupe::with_expected(1_000, 100_000, 2);
        let hashes: Vec<u64> = (0..50_000).map(hash).collect();
        let counted: usize = std::thread::scope(|scope| {
            let run = || hashes.chunks(100).map(|chunk| new_ones(&dedupe, chunk, 1)).sum::<usize>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(counted, 50_000);
    }

    #[test]
    fn a_full_table_forgets_and_says_so() {
        let dedupe = Dedupe::new(1_000);
        let hashes: Vec<u64> = (0..2 * SLOTS_MIN as u64).map(hash).collect();
        hashes.chunks(1_000).for_each(|chunk| assert_eq!(new_ones(&dedupe, chunk, 1), chunk.len()));
        assert!(dedupe.forgotten.load(Relaxed) > 0);
    }
}
