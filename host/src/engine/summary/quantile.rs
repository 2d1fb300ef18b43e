//! Quantiles: DDSketch with a relative error of 1 %. Masson, Rim, Lee, DDSketch: a fast and fully-mergeable quantile sketch
//! with relative-error guarantees (VLDB 2019).
//!
//! A value falls into bin `i` when it is above `γ^(i-1)` and at most `γ^i`, `γ = 1.01 / 0.99`. Whole numbers are kept sparse,
//! so that a cell of a few values takes a few bytes; that and a frozen form are why this is not a library.

use super::wire;

const ERROR: f64 = 0.01;
const GAMMA: f64 = (1.0 + ERROR) / (1.0 - ERROR);
/// Natural logarithm of `GAMMA`.
const LN_GAMMA: f64 = 0.020_000_666_706_669_435;
/// Bins of one sign. Past it those nearest to zero become one: what is exact to 1 % are the 2,048 bins of the largest
/// magnitude, at the least a range of 6e17 to 1.
pub const BINS_MAX: usize = 2_048;
/// What makes every bin's number positive: the smallest number is in bin -37,222, the largest in bin 35,488.
const OFFSET: i32 = 40_000;
/// Values gathered before they are counted into bins.
const GATHERED_MAX: usize = 4_096;

/// Equal multisets of bins give equal sketches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantiles {
    /// Ascending by value: negative keys for negative numbers, 0 for zero; with how many there were.
    bins: Vec<(i32, u64)>,
}

/// The key of a finite number's bin: ascending with the number.
#[inline]
fn key(value: f64) -> i32 {
    let bin = || (value.abs().ln() / LN_GAMMA).ceil() as i32 + OFFSET;
    if value > 0.0 {
        bin()
    } else if value < 0.0 {
        -bin()
    } else {
        0
    }
}

/// The number that is at most 1 % from all of a bin.
fn value(key: i32) -> f64 {
    let magnitude = |key: i32| {
        let value = (f64::from(key - OFFSET) * LN_GAMMA).exp() * (2.0 / (GAMMA + 1.0));
        value.min(f64::MAX)
    };
    match key {
        0 => 0.0,
        key if key > 0 => magnitude(key),
        key => -magnitude(-key),
    }
}

impl Quantiles {
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bins.capacity() * size_of::<(i32, u64)>()
    }

    pub fn merge(&mut self, other: &Self) {
        if other.bins.is_empty() {
            return;
        }
        let mut bins = Vec::with_capacity(self.bins.len() + other.bins.len());
        let (mut mine, mut theirs) = (self.bins.iter().copied().peekable(), other.bins.iter().copied().peekable());
        while let (Some(a), Some(b)) = (mine.peek().copied(), theirs.peek().copied()) {
            bins.push(match a.0.cmp(&b.0) {
                std::cmp::Ordering::Less => a,
                std::cmp::Ordering::Greater => b,
                std::cmp::Ordering::Equal => (a.0, a.1.saturating_add(b.1)),
            });
            mine.next_if(|_| a.0 <= b.0);
            theirs.next_if(|_| b.0 <= a.0);
        }
        bins.extend(mine);
        bins.extend(theirs);
        self.bins = bins;
        self.collapse();
        // Most bins are in both.
        self.bins.shrink_to_fit();
    }

    /// The bins of each sign that are nearest to zero become one, until there are no more than `BINS_MAX`. Whatever was
    /// collapsed before a merge would have been after it: the result does not depend on the order.
    fn collapse(&mut self) {
        let negative = self.bins.partition_point(|bin| bin.0 < 0);
        let zero = usize::from(self.bins.get(negative).is_some_and(|bin| bin.0 == 0));
        let positive = self.bins.len() - negative - zero;
        if let Some(over) = positive.checked_sub(BINS_MAX).filter(|over| *over > 0) {
            let first = negative + zero;
            let sum = self.bins[first..first + over].iter().fold(0u64, |sum, bin| sum.saturating_add(bin.1));
            self.bins[first + over].1 = self.bins[first + over].1.saturating_add(sum);
            self.bins.drain(first..first + over);
        }
        if let Some(over) = negative.checked_sub(BINS_MAX).filter(|over| *over > 0) {
            let sum = self.bins[negative - over..negative].iter().fold(0u64, |sum, bin| sum.saturating_add(bin.1));
            self.bins[negative - over - 1].1 = self.bins[negative - over - 1].1.saturating_add(sum);
            self.bins.drain(negative - over..negative);
        }
    }

    /// The value of rank `⌊q (n - 1)⌋`, the lowest having rank 0; `None` of nothing.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.bins.iter().fold(0u64, |sum, bin| sum.saturating_add(bin.1));
        let rank = (q * count.checked_sub(1)? as f64) as u64;
        let mut before = 0u64;
        let holds = |bin: &&(i32, u64)| {
            before = before.saturating_add(bin.1);
            before > rank
        };
        self.bins.iter().find(holds).or(self.bins.last()).map(|bin| value(bin.0))
    }

    /// How many bins; for each its key as the signed difference to the one before, and its count.
    pub fn encode(&self, out: &mut Vec<u8>) {
        wire::put(out, self.bins.len() as u64);
        let mut before = 0;
        for (key, count) in &self.bins {
            wire::put_signed(out, i64::from(key - before));
            wire::put(out, *count);
            before = *key;
        }
    }

    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let count = wire::take(bytes)?;
        if count > 2 * BINS_MAX as u64 + 1 {
            return None;
        }
        let mut bins = Vec::with_capacity(count as usize);
        let mut before = 0i64;
        for _ in 0..count {
            before = before.checked_add(wire::take_signed(bytes)?)?;
            let key = i32::try_from(before).ok().filter(|key| key.abs() <= 2 * OFFSET)?;
            bins.push((key, wire::take(bytes)?));
        }
        let sound = bins.is_sorted_by(|a, b| a.0 < b.0) && bins.iter().all(|bin| bin.1 > 0);
        let of_sign = |sign: i32| bins.iter().filter(|bin| bin.0.signum() == sign).count();
        (sound && of_sign(1) <= BINS_MAX && of_sign(-1) <= BINS_MAX).then_some(Self { bins })
    }
}

/// Collects the values of one tick for one cell.
#[derive(Clone, Debug, Default)]
pub struct Gather {
    keys: Vec<i32>,
    counted: Quantiles,
}

impl Gather {
    /// `value` is finite.
    #[inline]
    pub fn push(&mut self, value: f64) {
        self.keys.push(key(value));
        if self.keys.len() >= GATHERED_MAX {
            self.count();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.counted.is_empty()
    }

    pub fn finish(mut self) -> Quantiles {
        self.count();
        self.counted.bins.shrink_to_fit();
        self.counted
    }

    fn count(&mut self) {
        self.keys.sort_unstable();
        let same = self.keys.chunk_by(|a, b| a == b);
        self.counted.merge(&Quantiles { bins: same.map(|same| (same[0], same.len() as u64)).collect() });
        self.keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    fn sketch(values: &[f64]) -> Quantiles {
        let mut gather = Gather::default();
        values.iter().for_each(|value| gather.push(*value));
        gather.finish()
    }

    /// Every quantile within 1 % of that of the sorted values, and the same sketch however the values were split and merged.
    fn check(name: &str, values: &[f64]) {
        let whole = sketch(values);
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        for q in [0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999] {
            let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
            let found = whole.quantile(q).unwrap();
            assert!((found - exact).abs() <= exact.abs() * 0.010_000_1, "{name}: {q} is {exact}, found {found}");
        }
        let rng = &mut SmallRng::seed_from_u64(5);
        for parts in [2, 3, 17] {
            let mut split = vec![Vec::new(); parts];
            values.iter().for_each(|value| split[rng.random_range(0..parts)].push(*value));
            let mut split: Vec<Quantiles> = split.iter().map(|part| sketch(part)).collect();
            while split.len() > 1 {
                let part = split.swap_remove(rng.random_range(0..split.len()));
                let into = rng.random_range(0..split.len());
                split[into].merge(&part);
            }
            assert_eq!(split[0], whole, "{name}");
        }
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let rng = &mut SmallRng::seed_from_u64(3);
        let mut drawn = |of: fn(f64) -> f64| (0..20_000).map(|_| of(rng.random())).collect::<Vec<f64>>();
        check("one", &[7.5]);
        check("uniform", &drawn(|x| x));
        check("skewed", &drawn(|x| 35.0 + x.powi(6) * 90_000.0));
        check("both signs and zero", &drawn(|x| ((x - 0.4) * 50.0).round() * 10.0));
        check("eighteen orders of magnitude", &drawn(|x| 10f64.powf(x * 17.0 - 8.0)));
        check("the ends", &[f64::MIN_POSITIVE, 5e-324, 0.0, -0.0, f64::MAX, f64::MIN, 1.0, -1.0]);
    }

    #[test]
    fn past_the_limit_the_bins_nearest_to_zero_are_one() {
        let values: Vec<f64> = (0..60_000).map(|n| 10f64.powf(f64::from(n) / 100.0 - 300.0)).collect();
        let both: Vec<f64> = values.iter().copied().chain(values.iter().map(|value| -value)).collect();
        let whole = sketch(&both);
        assert_eq!(whole.bins.len(), 2 * BINS_MAX);
        // The upper 17 orders of magnitude of 600 are exact still.
        let exact = values[(0.98 * 59_999.0) as usize];
        let found = whole.quantile(0.5 + 0.98 / 2.0).unwrap();
        assert!((found / exact - 1.0).abs() < 0.03, "{exact} {found}");
        let mut halves = sketch(&both[..30_000]);
        halves.merge(&sketch(&both[30_000..]));
        assert_eq!(halves, whole);
    }
}
