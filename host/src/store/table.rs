//! Combinations of dimension values, numbered as they come. Values are numbers too; what they mean is their owner's.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// The number of the empty string, "no value", in every list of values.
pub const EMPTY: u32 = 0;
/// The number of `__other__` in every list of values.
pub const OTHER: u32 = 1;
/// In margins: whatever value.
pub const ANY: u32 = u32::MAX;

#[derive(Clone, Debug, Default)]
pub struct Table {
    width: usize,
    len: u32,
    /// `width` values a combination, one behind the other.
    values: Vec<u32>,
    index: HashTable<u32>,
}

impl Table {
    /// Of combinations of `width` values; 0: there is one, the empty one.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn get(&self, number: u32) -> &[u32] {
        &self.values[number as usize * self.width..][..self.width]
    }

    pub fn find(&self, combination: &[u32]) -> Option<u32> {
        self.index.find(hash(combination), |&number| self.get(number) == combination).copied()
    }

    /// Its number, a new one if it is new.
    pub fn insert(&mut self, combination: &[u32]) -> u32 {
        debug_assert_eq!(combination.len(), self.width);
        if let Some(number) = self.find(combination) {
            return number;
        }
        let number = self.len;
        self.len += 1;
        self.values.extend_from_slice(combination);
        let (values, width) = (&self.values, self.width);
        let rehash = |&number: &u32| hash(&values[number as usize * width..][..width]);
        self.index.insert_unique(hash(combination), number, rehash);
        number
    }

    /// Gives every value another number.
    pub fn renumber(&mut self, number_of: impl Fn(usize, u32) -> u32) {
        let width = self.width.max(1);
        self.values.iter_mut().enumerate().for_each(|(at, value)| *value = number_of(at % width, *value));
        self.index.clear();
        for number in 0..self.len {
            let (values, width) = (&self.values, self.width);
            let hash_of = |&number: &u32| hash(&values[number as usize * width..][..width]);
            self.index.insert_unique(hash_of(&number), number, hash_of);
        }
    }

    pub fn bytes(&self) -> usize {
        self.values.len() * 4 + self.len() * 8
    }
}

fn hash(combination: &[u32]) -> u64 {
    xxh3_64(bytemuck::cast_slice(combination))
}
