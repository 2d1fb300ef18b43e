//! Collects the hashes of one tick for one cell: an append a hash, sorted when the buffer is full.

use super::{REGISTERS, SPARSE_ENTRIES_MAX, Sketch, compact, raise};

#[derive(Clone, Debug, Default)]
pub struct Gather {
    entries: Vec<u32>,
    dense: Option<Box<[u8; REGISTERS]>>,
}

impl Gather {
    #[inline]
    pub fn push(&mut self, entry: u32) {
        if let Some(registers) = &mut self.dense {
            return raise(registers, entry);
        }
        self.entries.push(entry);
        if self.entries.len() >= 2 * SPARSE_ENTRIES_MAX {
            self.fold();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dense.is_none()
    }

    pub fn finish(self) -> Sketch {
        match self.dense {
            Some(registers) => Sketch::Dense(registers),
            None => Sketch::from_entries(self.entries),
        }
    }

    #[cold]
    fn fold(&mut self) {
        compact(&mut self.entries);
        if self.entries.len() > SPARSE_ENTRIES_MAX {
            let mut registers = Box::new([0; REGISTERS]);
            self.entries.drain(..).for_each(|entry| raise(&mut registers, entry));
            self.dense = Some(registers);
            self.entries = Vec::new();
        }
    }
}
