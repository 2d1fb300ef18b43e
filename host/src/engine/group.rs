//! Numbers for distinct (minute, dimension codes): one table for each distinct set of dimensions, shared by the metrics that have it.
//!
//! Two steps, each in a table that fits the cache: codes to a combination, then minute and combination to a group. Most
//! events are of the newest minutes: for those the second step is an array by combination.

use super::delta::GroupPartial;
use crate::time::Minute;

/// Minutes with an array of their own: more than `ahead` usually allows, so that events from the future displace nothing.
const RECENT_MINUTES: usize = 8;
const NONE: u32 = u32::MAX;

pub struct GroupTable {
    combinations: Combinations,
    order: Vec<u64>,
    minutes: Vec<u32>,
    combination: Vec<u32>,
    slots: Slots,
    recent: [Recent; RECENT_MINUTES],
}

/// Distinct codes, numbered.
struct Combinations {
    dimensions: usize,
    count: usize,
    codes: Vec<u32>,
    slots: Slots,
}

/// Open addressing: `hash's high half << 32 | number + 1`; 0 is empty.
struct Slots(Vec<u64>);

/// The groups of one minute by combination, as far as they were looked up.
#[derive(Clone, Default)]
struct Recent {
    minute: u32,
    numbers: Vec<u32>,
}

/// The rows of a chunk as keys.
pub struct Keys<'a> {
    /// Where each row stood in the input.
    pub order: &'a [u64],
    pub minutes: &'a [Minute],
    /// One column of codes a dimension.
    pub columns: &'a [&'a [u32]],
}

/// Room that is used again for each chunk.
#[derive(Default)]
pub struct Scratch {
    hashes: Vec<u64>,
    /// The answer: a number a row, `u32::MAX` where it was not selected.
    pub numbers: Vec<u32>,
}

impl GroupTable {
    pub fn new(dimensions: usize) -> Self {
        Self {
            combinations: Combinations { dimensions, count: 0, codes: Vec::new(), slots: Slots::new() },
            order: Vec::new(),
            minutes: Vec::new(),
            combination: Vec::new(),
            slots: Slots::new(),
            recent: std::array::from_fn(|_| Recent::default()),
        }
    }

    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// Gives `scratch.numbers` for the selected rows (`None`: all).
    pub fn number(&mut self, keys: &Keys<'_>, selection: Option<&[u32]>, scratch: &mut Scratch) {
        let Scratch { hashes, numbers } = scratch;
        hashes.clear();
        hashes.resize(keys.minutes.len(), 0);
        for column in keys.columns {
            hashes.iter_mut().zip(*column).for_each(|(hash, code)| *hash = mix(*hash, *code));
        }
        self.combinations.touch(hashes);
        numbers.clear();
        numbers.resize(hashes.len(), NONE);
        // First all combinations, then all groups: look-ups of one kind overlap.
        match selection {
            None => {
                let combinations = numbers.iter_mut().zip(hashes.iter()).enumerate();
                combinations.for_each(|(row, (number, hash))| {
                    *number = self.combinations.find_or_add(*hash, keys.columns, row);
                });
                let rows = numbers.iter_mut().zip(keys.minutes).zip(keys.order);
                rows.for_each(|((number, minute), order)| *number = self.group(minute.0, *number, *order));
            }
            Some(rows) => {
                for row in rows.iter().map(|row| *row as usize) {
                    numbers[row] = self.combinations.find_or_add(hashes[row], keys.columns, row);
                }
                for row in rows.iter().map(|row| *row as usize) {
                    numbers[row] = self.group(keys.minutes[row].0, numbers[row], keys.order[row]);
                }
            }
        }
    }

    /// The group's number, a new one if it is new.
    #[inline]
    fn group(&mut self, minute: u32, combination: u32, order: u64) -> u32 {
        let recent = &self.recent[minute as usize % RECENT_MINUTES];
        if recent.minute == minute
            && let Some(&number) = recent.numbers.get(combination as usize)
            && number != NONE
        {
            return number;
        }
        self.group_not_recent(minute, combination, order)
    }

    fn group_not_recent(&mut self, minute: u32, combination: u32, order: u64) -> u32 {
        let hash = mix(mix(0, minute), combination);
        let same =
            |number: u32| (self.minutes[number as usize], self.combination[number as usize]) == (minute, combination);
        let number = match self.slots.find(hash, same) {
            Ok(number) => number,
            Err(at) => {
                self.order.push(order);
                self.minutes.push(minute);
                self.combination.push(combination);
                let hash_of = |at: usize| mix(mix(0, self.minutes[at]), self.combination[at]);
                self.slots.put(at, hash, self.order.len(), hash_of)
            }
        };
        // A newer minute takes the place of an older one, never the other way round.
        let recent = &mut self.recent[minute as usize % RECENT_MINUTES];
        if recent.minute < minute {
            *recent = Recent { minute, numbers: std::mem::take(&mut recent.numbers) };
            recent.numbers.clear();
        }
        if recent.minute == minute {
            let known = recent.numbers.len().max(self.combinations.count);
            recent.numbers.resize(known, NONE);
            recent.numbers[combination as usize] = number;
        }
        number
    }

    /// Hands over the groups and starts empty; the tables keep their size.
    pub fn take(&mut self) -> GroupPartial {
        self.slots.0.fill(0);
        self.recent.iter_mut().for_each(|recent| {
            recent.minute = 0;
            recent.numbers.clear();
        });
        self.combinations.slots.0.fill(0);
        self.combinations.count = 0;
        GroupPartial {
            codes: std::mem::take(&mut self.combinations.codes),
            order: std::mem::take(&mut self.order),
            minutes: std::mem::take(&mut self.minutes).into_iter().map(Minute).collect(),
            combinations: std::mem::take(&mut self.combination),
        }
    }
}

impl Combinations {
    /// Loads what the look-ups will need: independent loads overlap, while each look-up would wait for its own.
    fn touch(&self, hashes: &[u64]) {
        let touched = hashes.iter().fold(0, |sum, hash| {
            let number = (self.slots.at(*hash) as u32).saturating_sub(1) as usize;
            sum ^ self.codes.get(number * self.dimensions).copied().unwrap_or(0)
        });
        std::hint::black_box(touched);
    }

    #[inline]
    fn find_or_add(&mut self, hash: u64, columns: &[&[u32]], row: usize) -> u32 {
        let width = self.dimensions;
        let same = |number: u32| {
            let codes = &self.codes[number as usize * width..][..width];
            codes.iter().zip(columns).all(|(code, column)| *code == column[row])
        };
        match self.slots.find(hash, same) {
            Ok(number) => number,
            Err(at) => {
                self.codes.extend(columns.iter().map(|column| column[row]));
                self.count += 1;
                let codes = &self.codes;
                let hash_of = |at: usize| codes[at * width..][..width].iter().fold(0, |hash, code| mix(hash, *code));
                self.slots.put(at, hash, self.count, hash_of)
            }
        }
    }
}

impl Slots {
    fn new() -> Self {
        Self(vec![0; 1 << 10])
    }

    fn mask(&self) -> usize {
        self.0.len() - 1
    }

    #[inline]
    fn at(&self, hash: u64) -> u64 {
        self.0[(hash >> 20) as usize & self.mask()]
    }

    /// The number that has the key, or the empty slot where it belongs.
    #[inline]
    fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Result<u32, usize> {
        let mut at = (hash >> 20) as usize & self.mask();
        loop {
            let slot = self.0[at];
            if slot == 0 {
                return Err(at);
            }
            if slot >> 32 == hash >> 32 && same(slot as u32 - 1) {
                return Ok(slot as u32 - 1);
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Puts the newest of `count` keys into its slot and gives its number. `hash_of`: of a number, where more room is needed.
    fn put(&mut self, at: usize, hash: u64, count: usize, hash_of: impl Fn(usize) -> u64) -> u32 {
        self.0[at] = (hash >> 32 << 32) | count as u64;
        if count * 2 > self.0.len() {
            self.grow(count, hash_of);
        }
        count as u32 - 1
    }

    #[cold]
    fn grow(&mut self, count: usize, hash_of: impl Fn(usize) -> u64) {
        let slots = self.0.len() * 2;
        self.0.clear();
        self.0.resize(slots, 0);
        for number in 0..count {
            let hash = hash_of(number);
            let mut at = (hash >> 20) as usize & self.mask();
            while self.0[at] != 0 {
                at = (at + 1) & self.mask();
            }
            self.0[at] = (hash >> 32 << 32) | (number as u64 + 1);
        }
    }
}

#[inline]
fn mix(hash: u64, word: u32) -> u64 {
    let mixed = (hash.rotate_left(29) ^ u64::from(word).wrapping_add(0x9e37_79b9)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row's group is that of its minute and codes, whatever order minutes come in.
    fn check(minutes: &[u32], groups: usize) {
        let mut table = GroupTable::new(2);
        let minutes: Vec<Minute> = minutes.iter().map(|minute| Minute(*minute)).collect();
        let rows = minutes.len();
        let a: Vec<u32> = (0..rows as u32).map(|n| n % 61).collect();
        let b: Vec<u32> = (0..rows as u32).map(|n| n % 11).collect();
        let order: Vec<u64> = (0..rows as u64).collect();
        let mut scratch = Scratch::default();
        let mut numbers = Vec::new();
        for from in (0..rows).step_by(1000) {
            let part = from..(from + 1000).min(rows);
            let columns = [&a[part.clone()], &b[part.clone()]];
            let keys = Keys { order: &order[part.clone()], minutes: &minutes[part.clone()], columns: &columns };
            table.number(&keys, None, &mut scratch);
            numbers.extend_from_slice(&scratch.numbers);
        }
        assert_eq!(table.count(), groups);
        let taken = table.take();
        assert_eq!((taken.minutes.len(), table.count()), (groups, 0));
        for row in 0..rows {
            let number = numbers[row] as usize;
            let combination = taken.combinations[number] as usize;
            assert_eq!(
                (taken.minutes[number], &taken.codes[combination * 2..][..2]),
                (minutes[row], &[a[row], b[row]][..])
            );
            assert!(taken.order[number] <= row as u64);
        }
    }

    #[test]
    fn equal_keys_get_equal_numbers() {
        let rows = 20_000u32;
        check(&(0..rows).map(|n| n % 7).collect::<Vec<_>>(), 7 * 61 * 11);
        check(&(0..rows).map(|n| n / 5_000).collect::<Vec<_>>(), 4 * 61 * 11);
        // Newer and older minutes that share a place in the array.
        check(&(0..rows).map(|n| [100, 108, 92][n as usize % 3]).collect::<Vec<_>>(), 3 * 61 * 11);
        check(&(0..rows).rev().map(|n| n / 5_000).collect::<Vec<_>>(), 4 * 61 * 11);
    }
}
