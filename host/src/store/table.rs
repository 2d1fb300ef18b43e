//! Combinations of dimension values, numbered as they come. Values are numbers too; what they mean is their owner's.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// The number of the empty string, "no value", in every list of values.
pub const EMPTY: u32 = 0;
/// The number of `__other__` in every list of values.
pub const OTHER: u32 = 1;
/// In margins: whatever value.
pub const ANY: u32 = u32::MAX;

/// Combinations by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combinations {
    width: usize,
    len: u32,
    /// `width` values a combination, one behind the other.
    values: Vec<u32>,
}

impl Combinations {
    /// Of `width` values each; 0: there is one, the empty one.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn get(&self, number: u32) -> &[u32] {
        &self.values[number as usize * self.width..][..self.width]
    }

    /// From one list of values a dimension.
    pub fn of_columns(columns: &[Vec<u32>], rows: usize) -> Self {
        let mut values = vec![0; columns.len() * rows];
        for (at, column) in columns.iter().enumerate() {
            let places = values.iter_mut().skip(at).step_by(columns.len());
            places.zip(column).for_each(|(place, value)| *place = *value);
        }
        Self { width: columns.len(), len: rows as u32, values }
    }

    /// Without asking whether it is there already.
    pub fn push(&mut self, combination: &[u32]) -> u32 {
        assert_eq!(combination.len(), self.width);
        self.values.extend_from_slice(combination);
        self.len += 1;
        self.len - 1
    }
}

/// Combinations that can be found again.
#[derive(Clone, Debug, Default)]
pub struct Table {
    combinations: Combinations,
    index: HashTable<u32>,
}

impl Table {
    pub fn new(width: usize) -> Self {
        Self { combinations: Combinations::new(width), index: HashTable::new() }
    }

    pub fn combinations(&self) -> &Combinations {
        &self.combinations
    }

    pub fn len(&self) -> usize {
        self.combinations.len()
    }

    pub fn get(&self, number: u32) -> &[u32] {
        self.combinations.get(number)
    }

    pub fn find(&self, combination: &[u32]) -> Option<u32> {
        self.index.find(hash(combination), |&number| self.get(number) == combination).copied()
    }

    /// Its number, a new one if it is new.
    pub fn insert(&mut self, combination: &[u32]) -> u32 {
        if let Some(number) = self.find(combination) {
            return number;
        }
        let number = self.combinations.push(combination);
        self.index_number(number);
        number
    }

    /// Gives every value another number: `number_of(dimension, value)`.
    pub fn renumber(&mut self, number_of: impl Fn(usize, u32) -> u32) {
        let width = self.combinations.width.max(1);
        let values = self.combinations.values.iter_mut().enumerate();
        values.for_each(|(at, value)| *value = number_of(at % width, *value));
        self.index.clear();
        (0..self.combinations.len).for_each(|number| self.index_number(number));
    }

    /// Rough heap bytes.
    pub fn bytes(&self) -> usize {
        self.combinations.values.len() * 4 + self.len() * 8
    }

    fn index_number(&mut self, number: u32) {
        let combinations = &self.combinations;
        let hash_of = |&number: &u32| hash(combinations.get(number));
        self.index.insert_unique(hash_of(&number), number, hash_of);
    }
}

fn hash(combination: &[u32]) -> u64 {
    xxh3_64(bytemuck::cast_slice(combination))
}
