//! Funnels: when each of a sample of keys took which step. What is kept merges exactly; how far a key came is only found when
//! it is read, since a window of first steps looks ahead at later ones.
//!
//! Dasgupta, Lang, Rhodes, Thaler, A framework for estimating stream expression cardinalities (2016): of all keys those with the
//! smallest hashes are kept, all below a threshold θ; what is counted among them, divided by θ, estimates the whole, with a
//! standard error of 1 / sqrt(16384) = 0.8 % of all keys. At a merge the smaller θ wins. With fewer keys everything is exact.

use std::collections::HashMap;

use super::wire;
use crate::time::{MINUTE_MS, Millis};

/// Keys of a cell; of more those with the smallest hashes.
pub const KEYS_MAX: usize = 16_384;
/// Times of a cell, of all keys and steps: with more of them it has fewer keys.
pub const TIMES_MAX: usize = 4 * KEYS_MAX;
pub const STEPS_MAX: usize = 10;
/// Of a key's times at one step in one minute the first two and the last two are kept: as many again in the next minute.
const ENDS_KEPT: usize = 2;
/// No key's hash is left out.
const ALL: u64 = u64::MAX;
const TIME_BITS: u32 = 48;

/// A key took a step at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Visit {
    key: u64,
    /// The step in the upper bits, the time in ms in the lower 48: enough for the year 9999.
    at: u64,
}

impl Visit {
    fn step(self) -> usize {
        (self.at >> TIME_BITS) as usize
    }

    fn ms(self) -> Millis {
        (self.at & ((1 << TIME_BITS) - 1)) as Millis
    }
}

/// Equal visits give equal summaries, in whatever order and from whatever merges they came.
#[derive(Clone, Debug, PartialEq)]
pub struct Visits {
    /// Keys with a hash of at least this are left out.
    theta: u64,
    /// Ascending, each once.
    list: Vec<Visit>,
}

impl Visits {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.theta == ALL
    }

    pub fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Visit>()
    }

    pub fn merge(&mut self, other: &Self) {
        let theta = self.theta.min(other.theta);
        let mut list = Vec::with_capacity(self.list.len() + other.list.len());
        let (mut mine, mut theirs) = (self.list.iter().copied().peekable(), other.list.iter().copied().peekable());
        while let (Some(&a), Some(&b)) = (mine.peek(), theirs.peek()) {
            list.push(a.min(b));
            mine.next_if(|_| a <= b);
            theirs.next_if(|_| b <= a);
        }
        list.extend(mine);
        list.extend(theirs);
        *self = Self { theta, list };
        self.trim();
    }

    /// Brings what is sorted and without repeats within its limits.
    fn trim(&mut self) {
        let (mut keys, mut kept) = (0, Vec::with_capacity(self.list.len()));
        for of_key in self.list.chunk_by(|a, b| a.key == b.key) {
            let (key, before) = (of_key[0].key, kept.len());
            if key >= self.theta {
                break;
            }
            let minute = |visit: &Visit| (visit.step(), visit.ms() / MINUTE_MS);
            for same in of_key.chunk_by(|a, b| minute(a) == minute(b)) {
                let last = same.len().saturating_sub(ENDS_KEPT).max(ENDS_KEPT.min(same.len()));
                kept.extend_from_slice(&same[..ENDS_KEPT.min(same.len())]);
                kept.extend_from_slice(&same[last..]);
            }
            keys += 1;
            if keys > KEYS_MAX || kept.len() > TIMES_MAX {
                kept.truncate(before);
                self.theta = key;
                break;
            }
        }
        self.list = kept;
    }

    /// θ; how many visits; for each the difference of its key to the one before, and of its step and time to those before
    /// it of the same key.
    pub fn encode(&self, out: &mut Vec<u8>) {
        wire::put(out, self.theta);
        wire::put(out, self.list.len() as u64);
        let mut before = Visit { key: 0, at: 0 };
        for visit in &self.list {
            let same = visit.key == before.key;
            wire::put(out, visit.key - before.key);
            wire::put(out, if same { visit.at - before.at } else { visit.at });
            before = *visit;
        }
    }

    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (theta, length) = (wire::take(bytes)?, wire::take(bytes)?);
        if length > TIMES_MAX as u64 || length > bytes.len() as u64 {
            return None;
        }
        let mut list = Vec::with_capacity(length as usize);
        let mut before = Visit { key: 0, at: 0 };
        for _ in 0..length {
            let key = before.key.checked_add(wire::take(bytes)?)?;
            let at = wire::take(bytes)?;
            let at = if key == before.key { before.at.checked_add(at)? } else { at };
            before = Visit { key, at };
            list.push(before);
        }
        let sound = list.is_sorted_by(|a, b| a < b)
            && list.iter().all(|visit| visit.key < theta && visit.step() < STEPS_MAX)
            && list.chunk_by(|a, b| a.key == b.key).count() <= KEYS_MAX;
        sound.then_some(Self { theta, list })
    }
}

/// Collects the visits of one tick for one cell.
#[derive(Clone, Debug)]
pub struct Gather(Visits);

impl Default for Gather {
    fn default() -> Self {
        Self(Visits { theta: ALL, list: Vec::new() })
    }
}

impl Gather {
    /// `key` is a hash; `ms` within the years 1970 to 9999.
    #[inline]
    pub fn push(&mut self, key: u64, step: usize, ms: Millis) {
        self.0.list.push(Visit { key, at: (step as u64) << TIME_BITS | ms as u64 });
        if self.0.list.len() >= 4 * TIMES_MAX {
            self.order();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn finish(mut self) -> Visits {
        self.order();
        self.0.list.shrink_to_fit();
        self.0
    }

    #[cold]
    fn order(&mut self) {
        self.0.list.sort_unstable();
        self.0.list.dedup();
        self.0.trim();
    }
}

/// Later steps of a stretch of time, to be looked up by key.
#[derive(Default)]
pub struct Later {
    /// Ascending by step, then time.
    of_key: HashMap<u64, Vec<u64>>,
}

impl Later {
    pub fn add(&mut self, visits: &Visits) {
        for of_key in visits.list.chunk_by(|a, b| a.key == b.key) {
            self.of_key.entry(of_key[0].key).or_default().extend(of_key.iter().map(|visit| visit.at));
        }
    }

    /// After the last `add`.
    pub fn order(&mut self) {
        self.of_key.values_mut().for_each(|visits| visits.sort_unstable());
    }

    /// How many steps, the first included, a key that took the first one at `first` took in order within the span.
    fn depth(&self, key: u64, first: Millis, span_ms: Millis, steps: usize) -> u8 {
        let Some(visits) = self.of_key.get(&key) else { return 1 };
        // The earliest time at which each step can be taken leaves most room for the next.
        let mut ms = first;
        for step in 1..steps {
            let wanted = (step as u64) << TIME_BITS | ms as u64;
            let next = visits.get(visits.partition_point(|at| *at < wanted)).map(|at| Visit { key, at: *at });
            match next {
                Some(next) if next.step() == step && next.ms() <= first.saturating_add(span_ms) => ms = next.ms(),
                _ => return step as u8,
            }
        }
        steps as u8
    }
}

/// How far each key of a window came.
#[derive(Clone, Debug, PartialEq)]
pub struct Depths {
    theta: u64,
    /// Ascending by key.
    keys: Vec<(u64, u8)>,
}

impl Depths {
    /// Of the keys in `first`. `theta`: the least of those of the later steps looked at.
    pub fn of(first: &Visits, later: &Later, theta: u64, span_ms: Millis, steps: usize) -> Self {
        let theta = theta.min(first.theta);
        let sampled = first.list.iter().take_while(|visit| visit.key < theta);
        let mut keys: Vec<(u64, u8)> = Vec::new();
        for visit in sampled {
            let depth = later.depth(visit.key, visit.ms(), span_ms, steps);
            match keys.last_mut() {
                Some((key, deepest)) if *key == visit.key => *deepest = depth.max(*deepest),
                _ => keys.push((visit.key, depth)),
            }
        }
        Self { theta, keys }
    }

    pub fn merge(&mut self, other: &Self) {
        self.theta = self.theta.min(other.theta);
        let mut keys = Vec::with_capacity(self.keys.len() + other.keys.len());
        let (mut mine, mut theirs) = (self.keys.iter().copied().peekable(), other.keys.iter().copied().peekable());
        while let (Some(a), Some(b)) = (mine.peek().copied(), theirs.peek().copied()) {
            keys.push((
                a.0.min(b.0),
                if a.0 == b.0 {
                    a.1.max(b.1)
                } else if a.0 < b.0 {
                    a.1
                } else {
                    b.1
                },
            ));
            mine.next_if(|_| a.0 <= b.0);
            theirs.next_if(|_| b.0 <= a.0);
        }
        keys.extend(mine);
        keys.extend(theirs);
        if let Some((key, _)) = keys.get(KEYS_MAX) {
            self.theta = self.theta.min(*key);
        }
        keys.truncate(keys.partition_point(|(key, _)| *key < self.theta));
        self.keys = keys;
    }

    /// For each step how many keys came that far.
    pub fn counts(&self, steps: usize) -> Vec<u64> {
        let mut counts = vec![0u64; steps];
        for (_, depth) in &self.keys {
            counts[..usize::from(*depth).min(steps)].iter_mut().for_each(|count| *count += 1);
        }
        if self.theta < ALL {
            let share = (self.theta as f64) / (u64::MAX as f64);
            counts.iter_mut().for_each(|count| *count = (*count as f64 / share).round() as u64);
        }
        counts
    }
}

impl Visits {
    pub fn theta(&self) -> u64 {
        self.theta
    }
}

/// `[n1,n2,…]`
pub fn json(counts: &[u64]) -> String {
    let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
    format!("[{}]", counts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use xxhash_rust::xxh3::xxh3_64;

    const SPAN_MS: Millis = 5 * MINUTE_MS;
    const STEPS: usize = 3;

    fn hash(key: u64) -> u64 {
        xxh3_64(&key.to_le_bytes())
    }

    /// Tries every way through a key's events.
    fn comes_to(first: Millis, from: Millis, step: usize, visits: &[(usize, Millis)]) -> usize {
        let next = visits.iter().filter(|(of, ms)| *of == step && *ms >= from && *ms <= first + SPAN_MS);
        next.map(|(_, ms)| comes_to(first, *ms, step + 1, visits)).max().unwrap_or(step)
    }

    fn exact(events: &[(u64, usize, Millis)]) -> Vec<u64> {
        let mut of_key: HashMap<u64, Vec<(usize, Millis)>> = HashMap::new();
        events.iter().for_each(|(key, step, ms)| of_key.entry(*key).or_default().push((*step, *ms)));
        let mut counts = vec![0; STEPS];
        for visits in of_key.values() {
            let firsts = visits.iter().filter(|(step, _)| *step == 0);
            let depth = firsts.map(|(_, ms)| comes_to(*ms, *ms, 1, visits)).max().unwrap_or(0);
            counts[..depth].iter_mut().for_each(|count| *count += 1);
        }
        counts
    }

    /// Steps of visitors who act every half minute in the mean.
    fn events(seed: u64, keys: u64) -> Vec<(u64, usize, Millis)> {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let mut events = Vec::new();
        for key in 0..keys {
            let mut ms = 1_772_409_600_000 + rng.random_range(0..20 * MINUTE_MS);
            for _ in 0..rng.random_range(1..9) {
                events.push((key, (rng.random::<f64>() * 1.6) as usize + rng.random_range(0..2), ms));
                ms += rng.random_range(0..4) * 45_000;
            }
        }
        events
    }

    /// By minute, shared out over `parts` at random and merged again at random: counts of the whole.
    fn counted(seed: u64, events: &[(u64, usize, Millis)], parts: usize) -> (Depths, Vec<Visits>) {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let mut minutes: std::collections::BTreeMap<Millis, Vec<(Gather, Gather)>> = Default::default();
        for (key, step, ms) in events {
            let minute = minutes.entry(ms / MINUTE_MS).or_insert_with(|| vec![Default::default(); parts]);
            let (first, later) = &mut minute[rng.random_range(0..parts)];
            (if *step == 0 { first } else { later }).push(hash(*key), *step, *ms);
        }
        let mut merged = |mut all: Vec<Visits>| {
            while all.len() > 1 {
                let part = all.swap_remove(rng.random_range(0..all.len()));
                let into = rng.random_range(0..all.len());
                all[into].merge(&part);
            }
            all.swap_remove(0)
        };
        let mut cells = Vec::new();
        for parts in minutes.into_values() {
            let (first, later): (Vec<_>, Vec<_>) = parts.into_iter().map(|(a, b)| (a.finish(), b.finish())).unzip();
            cells.push((merged(first), merged(later)));
        }
        let mut later = Later::default();
        cells.iter().for_each(|(_, visits)| later.add(visits));
        later.order();
        let theta = cells.iter().map(|(_, visits)| visits.theta).min().unwrap_or(ALL);
        let depths = cells.iter().map(|(first, _)| Depths::of(first, &later, theta, SPAN_MS, STEPS));
        let whole = depths.reduce(|mut a, b| {
            a.merge(&b);
            a
        });
        (whole.unwrap(), cells.into_iter().flat_map(|(a, b)| [a, b]).collect())
    }

    #[test]
    fn exact_with_few_keys() {
        for (seed, keys, parts) in [(1, 1, 1), (2, 50, 2), (3, 1_000, 3), (4, 10_000, 7)] {
            let events = events(seed, keys);
            let expected = exact(&events);
            assert!(keys == 1 || expected.is_sorted_by(|a, b| a > b) && expected[STEPS - 1] > 0, "{expected:?}");
            let (depths, cells) = counted(seed, &events, parts);
            assert_eq!(depths.counts(STEPS), expected, "{keys} keys");
            assert_eq!(cells, counted(seed + 100, &events, parts + 1).1, "the same cells however they came about");
        }
    }

    #[test]
    fn an_estimate_with_many_keys() {
        let events = events(9, 400_000);
        let expected = exact(&events);
        let (depths, cells) = counted(9, &events, 3);
        assert!(cells.iter().any(|cell| cell.theta < ALL) && cells.iter().all(|cell| cell.list.len() <= TIMES_MAX));
        assert_eq!(depths.keys.len(), depths.keys.len().min(KEYS_MAX));
        // Four standard errors: 0.8 % of the keys, relative to what is counted.
        for (found, exact) in depths.counts(STEPS).into_iter().zip(expected.iter().copied()) {
            let bound = 4.0 * (400_000f64 * exact as f64 / KEYS_MAX as f64).sqrt();
            assert!((found as f64 - exact as f64).abs() <= bound, "{exact}, found {found}");
        }
        assert_eq!(cells, counted(10, &events, 5).1);
    }

    #[test]
    fn any_first_step_may_lead_on() {
        let minute = |n: Millis| n * MINUTE_MS;
        for (events, expected) in [
            // View 0, buy 5, cart 10, buy 20: the buy before the cart is none.
            (vec![(1, 0, 0), (1, 2, minute(1)), (1, 1, minute(2)), (1, 2, minute(4))], [1, 1, 1]),
            (vec![(1, 0, 0), (1, 2, minute(1)), (1, 1, minute(2))], [1, 1, 0]),
            // The span counts from the first step, its end included.
            (vec![(1, 0, 0), (1, 1, minute(4)), (1, 2, minute(5))], [1, 1, 1]),
            (vec![(1, 0, 0), (1, 1, minute(4)), (1, 2, minute(5) + 1)], [1, 1, 0]),
            // A later first step has more time left.
            (vec![(1, 0, 0), (1, 0, minute(3)), (1, 1, minute(4)), (1, 2, minute(7))], [1, 1, 1]),
            // Equal times are in order.
            (vec![(1, 0, 7), (1, 1, 7), (1, 2, 7)], [1, 1, 1]),
            (vec![(1, 0, 7), (2, 1, 8), (2, 2, 9)], [1, 0, 0]),
        ] {
            assert_eq!(exact(&events), expected, "the oracle: {events:?}");
            assert_eq!(counted(1, &events, 1).0.counts(STEPS), expected, "{events:?}");
        }
    }

    #[test]
    fn of_many_times_in_a_minute_the_ends_stay() {
        let mut gather = Gather::default();
        (0..100).for_each(|n| gather.push(5, 0, n * 100));
        let times: Vec<Millis> = gather.finish().list.iter().map(|visit| visit.ms()).collect();
        assert_eq!(times, [0, 100, 9_800, 9_900]);
    }
}
