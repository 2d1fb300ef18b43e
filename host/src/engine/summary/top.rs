//! The most frequent values: Space-Saving with as many counters as fit, in the form that merges.
//!
//! Metwally, Agrawal, El Abbadi, Efficient computation of frequent and top-k elements in data streams (2005); Agarwal and
//! others, Mergeable summaries (2012), where counters of Space-Saving less their minimum are those of Misra-Gries, which add up:
//! past the capacity the largest counter that finds no room is taken off all of them. A count is then too low by at most
//! `error`, and `error` at most all events divided by the capacity.

use std::fmt::Write as _;
use std::sync::Arc;

use super::wire;

/// Of longer texts only the beginning counts.
pub const TEXT_BYTES_MAX: usize = 256;
pub const N_MAX: u32 = 1_000;
const CAPACITY_MAX: u32 = 100 * N_MAX;

#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    capacity: u32,
    /// What a count may be too low by.
    error: u64,
    /// Ascending by value. At most `capacity`.
    counts: Vec<(Arc<str>, u64)>,
}

/// Counters that a list of `n` takes: exact while there are no more distinct values than that.
pub fn capacity(n: u32) -> u32 {
    (100 * n).clamp(1_000, CAPACITY_MAX)
}

impl Top {
    /// From counts in any order, repeats included.
    pub fn of(capacity: u32, mut counts: Vec<(Arc<str>, u64)>) -> Self {
        for (text, _) in &mut counts {
            if text.len() > TEXT_BYTES_MAX {
                *text = text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into();
            }
        }
        counts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        counts.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0 };
            same
        });
        let mut top = Self { capacity, error: 0, counts };
        top.reduce();
        top
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.error == 0
    }

    pub fn bytes(&self) -> usize {
        let texts: usize = self.counts.iter().map(|(text, _)| text.len() + 24).sum();
        self.counts.capacity() * size_of::<(Arc<str>, u64)>() + texts
    }

    pub fn merge(&mut self, other: &Self) {
        self.capacity = self.capacity.max(other.capacity);
        self.error = self.error.saturating_add(other.error);
        let mut counts = Vec::with_capacity(self.counts.len() + other.counts.len());
        let mut mine = std::mem::take(&mut self.counts).into_iter().peekable();
        let mut theirs = other.counts.iter().peekable();
        while let (Some(a), Some(b)) = (mine.peek_mut(), theirs.peek()) {
            match a.0.cmp(&b.0) {
                std::cmp::Ordering::Greater => counts.extend(theirs.next().cloned()),
                order => {
                    if order.is_eq() {
                        a.1 = a.1.saturating_add(b.1);
                        theirs.next();
                    }
                    counts.extend(mine.next());
                }
            }
        }
        counts.extend(mine);
        counts.extend(theirs.cloned());
        self.counts = counts;
        self.reduce();
        // Most values are in both.
        self.counts.shrink_to_fit();
    }

    fn reduce(&mut self) {
        let capacity = self.capacity as usize;
        if self.counts.len() <= capacity {
            return;
        }
        let mut sorted: Vec<u64> = self.counts.iter().map(|(_, count)| *count).collect();
        let (_, &mut largest_without_room, _) = sorted.select_nth_unstable_by(capacity, |a, b| b.cmp(a));
        self.error = self.error.saturating_add(largest_without_room);
        self.counts.iter_mut().for_each(|(_, count)| *count = count.saturating_sub(largest_without_room));
        self.counts.retain(|(_, count)| *count > 0);
    }

    /// The `n` most frequent values with their counts, ties by value. Exact, or past the capacity at most `error` too high.
    pub fn list(&self, n: u32) -> Vec<(&str, u64)> {
        let mut list: Vec<(&str, u64)> =
            self.counts.iter().map(|(text, count)| (&**text, count.saturating_add(self.error))).collect();
        let order = |a: &(&str, u64), b: &(&str, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
        if list.len() > n as usize {
            list.select_nth_unstable_by(n as usize, order);
            list.truncate(n as usize);
        }
        list.sort_unstable_by(order);
        list
    }

    /// `[["value",count],…]`
    pub fn json(&self, n: u32) -> String {
        let mut out = String::from("[");
        for (at, (text, count)) in self.list(n).into_iter().enumerate() {
            out.push_str(if at > 0 { ",[" } else { "[" });
            quote(&mut out, text);
            // Writing to a string cannot fail.
            let _ = write!(out, ",{count}]");
        }
        out.push(']');
        out
    }

    /// Capacity, error, how many counters; for each the length of its text, the text, the count.
    pub fn encode(&self, out: &mut Vec<u8>) {
        [u64::from(self.capacity), self.error, self.counts.len() as u64]
            .iter()
            .for_each(|&number| wire::put(out, number));
        for (text, count) in &self.counts {
            wire::put(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
            wire::put(out, *count);
        }
    }

    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let capacity = wire::take(bytes)?;
        let (error, length) = (wire::take(bytes)?, wire::take(bytes)?);
        if capacity > u64::from(CAPACITY_MAX) || length > capacity || length > bytes.len() as u64 {
            return None;
        }
        let mut counts: Vec<(Arc<str>, u64)> = Vec::with_capacity(length as usize);
        for _ in 0..length {
            let length = wire::take(bytes).filter(|length| *length <= TEXT_BYTES_MAX as u64)?;
            let (text, rest) = bytes.split_at_checked(length as usize)?;
            *bytes = rest;
            counts.push((std::str::from_utf8(text).ok()?.into(), wire::take(bytes)?));
        }
        let sound = counts.is_sorted_by(|a, b| a.0 < b.0) && counts.iter().all(|(_, count)| *count > 0);
        sound.then_some(Self { capacity: capacity as u32, error, counts })
    }
}

/// A JSON string.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            letter if (letter as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", letter as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    /// `parts` of a stream of `distinct` values, more of the low ones, merged in any order; and the true counts.
    fn merged(seed: u64, distinct: u32, parts: usize, capacity: u32) -> (Top, HashMap<String, u64>, u64) {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let mut exact: HashMap<String, u64> = HashMap::new();
        let mut split: Vec<Vec<(Arc<str>, u64)>> = vec![Vec::new(); parts];
        let events = 30_000;
        for _ in 0..events {
            let text = format!("/p/{}", (rng.random::<f64>().powi(3) * f64::from(distinct)) as u32);
            split[rng.random_range(0..parts)].push((text.as_str().into(), 1));
            *exact.entry(text).or_default() += 1;
        }
        let mut tops: Vec<Top> = split.into_iter().map(|part| Top::of(capacity, part)).collect();
        while tops.len() > 1 {
            let part = tops.swap_remove(rng.random_range(0..tops.len()));
            let into = rng.random_range(0..tops.len());
            tops[into].merge(&part);
        }
        (tops.swap_remove(0), exact, events)
    }

    #[test]
    fn exact_up_to_the_capacity() {
        for (seed, parts) in [(1, 1), (2, 2), (3, 30)] {
            let (top, exact, _) = merged(seed, 900, parts, capacity(5));
            let mut expected: Vec<(&str, u64)> = exact.iter().map(|(text, count)| (text.as_str(), *count)).collect();
            expected.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
            assert_eq!(top.list(1_000), expected);
            assert_eq!(top.list(5), expected[..5]);
        }
    }

    #[test]
    fn past_the_capacity_within_the_bound() {
        for (seed, parts) in [(4, 1), (5, 3), (6, 60)] {
            let (top, exact, events) = merged(seed, 20_000, parts, 1_000);
            assert!(top.counts.len() <= 1_000 && top.error > 0);
            assert!(top.error <= events / 1_000, "{}", top.error);
            for (text, count) in top.list(1_000) {
                let exact = exact[text];
                assert!(count >= exact && count - exact <= top.error, "{text}: {exact}, found {count}");
            }
            let kept: Vec<&str> = top.counts.iter().map(|(text, _)| &**text).collect();
            let missed = exact.iter().find(|(text, count)| **count > top.error && !kept.contains(&text.as_str()));
            assert_eq!(missed, None);
        }
    }

    #[test]
    fn ties_go_by_value_and_texts_are_cut_and_quoted() {
        let long = "é".repeat(200);
        let counts = [("b", 2), ("a", 2), ("a", 1), ("c\"\\\n", 2), (&long, 9)];
        let top = Top::of(1_000, counts.map(|(text, count)| (text.into(), count)).to_vec());
        assert_eq!(top.json(3), format!(r#"[["{}",9],["a",3],["b",2]]"#, "é".repeat(128)));
        assert!(top.json(9).ends_with(r#",["c\"\\\u000a",2]]"#));
        assert!(serde_json::from_str::<serde_json::Value>(&top.json(9)).is_ok());
    }
}
