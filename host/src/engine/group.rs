//! Numbers for distinct (minute, dimension codes): one table for each distinct set of dimensions, shared by the metrics that have it.

use super::delta::GroupPartial;
use crate::time::Minute;

pub struct GroupTable {
    dimensions: usize,
    /// `hash's high half << 32 | number + 1`; 0 is empty.
    slots: Vec<u64>,
    order: Vec<u64>,
    /// Minute and codes of each group side by side, so that a comparison waits for memory once.
    keys: Vec<u32>,
    hashes: Vec<u64>,
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
        Self { dimensions, slots: vec![0; 1 << 10], order: Vec::new(), keys: Vec::new(), hashes: Vec::new() }
    }

    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// Gives `scratch.numbers` for the selected rows (`None`: all).
    pub fn number(&mut self, keys: &Keys<'_>, selection: Option<&[u32]>, scratch: &mut Scratch) {
        let Scratch { hashes, numbers } = scratch;
        hashes.clear();
        hashes.extend(keys.minutes.iter().map(|minute| mix(0, minute.0)));
        for column in keys.columns {
            hashes.iter_mut().zip(*column).for_each(|(hash, code)| *hash = mix(*hash, *code));
        }
        self.touch(hashes);
        numbers.clear();
        numbers.resize(hashes.len(), u32::MAX);
        match selection {
            None => (0..hashes.len()).for_each(|row| numbers[row] = self.find_or_add(hashes[row], keys, row)),
            Some(rows) => rows.iter().for_each(|row| {
                let row = *row as usize;
                numbers[row] = self.find_or_add(hashes[row], keys, row);
            }),
        }
    }

    /// Loads what the look-ups will need: independent loads overlap, while each look-up would wait for its own.
    fn touch(&self, hashes: &[u64]) {
        let (mask, width) = (self.slots.len() - 1, self.dimensions + 1);
        let mut sum = 0;
        for hash in hashes {
            let slot = self.slots[(hash >> 20) as usize & mask];
            let number = (slot as u32).saturating_sub(1) as usize;
            sum ^= self.keys.get(number * width).copied().unwrap_or(0);
        }
        std::hint::black_box(sum);
    }

    #[inline]
    fn find_or_add(&mut self, hash: u64, keys: &Keys<'_>, row: usize) -> u32 {
        let (mask, width) = (self.slots.len() - 1, self.dimensions + 1);
        let mut at = (hash >> 20) as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return self.add(at, hash, keys, row);
            }
            if slot >> 32 == hash >> 32 {
                let number = (slot as u32 - 1) as usize;
                let key = &self.keys[number * width..(number + 1) * width];
                let same = key[1..].iter().zip(keys.columns).all(|(code, column)| *code == column[row]);
                if same && key[0] == keys.minutes[row].0 {
                    return number as u32;
                }
            }
            at = (at + 1) & mask;
        }
    }

    fn add(&mut self, at: usize, hash: u64, keys: &Keys<'_>, row: usize) -> u32 {
        let number = self.order.len() as u32;
        self.order.push(keys.order[row]);
        self.keys.push(keys.minutes[row].0);
        self.keys.extend(keys.columns.iter().map(|column| column[row]));
        self.hashes.push(hash);
        self.slots[at] = (hash >> 32 << 32) | u64::from(number + 1);
        if self.order.len() * 2 > self.slots.len() {
            self.grow();
        }
        number
    }

    #[cold]
    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        self.slots.clear();
        self.slots.resize(mask + 1, 0);
        for (number, hash) in self.hashes.iter().enumerate() {
            let mut at = (hash >> 20) as usize & mask;
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = (hash >> 32 << 32) | (number as u64 + 1);
        }
    }

    /// Hands over the groups and starts empty; the table keeps its size.
    pub fn take(&mut self) -> GroupPartial {
        self.slots.fill(0);
        self.hashes.clear();
        let rows = self.keys.chunks_exact(self.dimensions + 1);
        let taken = GroupPartial {
            order: std::mem::take(&mut self.order),
            minutes: rows.clone().map(|key| Minute(key[0])).collect(),
            codes: rows.flat_map(|key| &key[1..]).copied().collect(),
        };
        self.keys.clear();
        taken
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

    #[test]
    fn equal_keys_get_equal_numbers() {
        let mut table = GroupTable::new(2);
        let minutes: Vec<Minute> = (0..20_000u32).map(|n| Minute(n % 7)).collect();
        let a: Vec<u32> = (0..20_000).map(|n| n % 61).collect();
        let b: Vec<u32> = (0..20_000).map(|n| n % 11).collect();
        let mut scratch = Scratch::default();
        let order: Vec<u64> = (0..20_000).collect();
        table.number(&Keys { order: &order, minutes: &minutes, columns: &[&a, &b] }, None, &mut scratch);
        assert_eq!(table.count(), 7 * 61 * 11);
        for row in 0..20_000 {
            let number = scratch.numbers[row] as usize;
            assert_eq!(table.keys[number * 3..number * 3 + 3], [minutes[row].0, a[row], b[row]]);
        }
        let taken = table.take();
        assert_eq!((taken.minutes.len(), table.count()), (7 * 61 * 11, 0));
    }
}
