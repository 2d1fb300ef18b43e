//! Codes for the distinct values of a field. Code 0 is "no value". Knows nothing of what a value means.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::decode::Kind;

/// Distinct values of a field before the shard hands over what it has and starts anew.
pub const VALUES_MAX: usize = 1 << 16;

pub const NO_VALUE: u32 = 0;

/// A scalar as it stood in the event. Text `3` and number `3` are two values with the same text.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: Kind,
    pub text: Arc<str>,
}

pub struct Dictionary {
    /// `hash's high half << 32 | code`; 0 is empty.
    slots: Vec<u64>,
    entries: Vec<Entry>,
}

impl Default for Dictionary {
    fn default() -> Self {
        Self { slots: vec![0; 1 << 9], entries: vec![Entry { kind: Kind::Missing, text: "".into() }] }
    }
}

impl Dictionary {
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    pub fn is_full(&self, more: usize) -> bool {
        self.entries.len() + more > VALUES_MAX
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn text(&self, code: u32) -> &Arc<str> {
        &self.entries[code as usize].text
    }

    /// The code of a value, new if it was not seen. `bytes` are UTF-8: the decoder has checked them.
    #[inline]
    pub fn code(&mut self, kind: Kind, bytes: &[u8]) -> u32 {
        let hash = xxh3_64(bytes) ^ ((kind as u64) << 60);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return self.add(at, hash, kind, bytes);
            }
            if slot >> 32 == hash >> 32 {
                let entry = &self.entries[slot as u32 as usize];
                if entry.text.as_bytes() == bytes && entry.kind == kind {
                    return slot as u32;
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn add(&mut self, at: usize, hash: u64, kind: Kind, bytes: &[u8]) -> u32 {
        let code = self.entries.len() as u32;
        self.entries.push(Entry { kind, text: String::from_utf8_lossy(bytes).into() });
        self.slots[at] = (hash >> 32 << 32) | u64::from(code);
        if self.entries.len() * 2 > self.slots.len() {
            self.grow();
        }
        code
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let mut slots = vec![0; mask + 1];
        for (code, entry) in self.entries.iter().enumerate().skip(1) {
            let hash = xxh3_64(entry.text.as_bytes()) ^ ((entry.kind as u64) << 60);
            let mut at = hash as usize & mask;
            while slots[at] != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = (hash >> 32 << 32) | code as u64;
        }
        self.slots = slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_codes() {
        let mut dictionary = Dictionary::default();
        let codes: Vec<u32> =
            (0..5_000).map(|n| dictionary.code(Kind::Text, format!("value {n}").as_bytes())).collect();
        for (n, code) in codes.iter().enumerate() {
            assert_eq!(dictionary.code(Kind::Text, format!("value {n}").as_bytes()), *code);
            assert_eq!(&**dictionary.text(*code), format!("value {n}"));
        }
        assert_eq!(dictionary.count(), 5_001);
        assert_ne!(dictionary.code(Kind::Number, b"3"), dictionary.code(Kind::Text, b"3"));
        assert_ne!(dictionary.code(Kind::Text, b""), NO_VALUE, "an empty text is a value");
    }
}
