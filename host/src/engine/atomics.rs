//! Large tables of atomic words.

use std::hint::black_box;
use std::sync::atomic::AtomicU64;

/// Zeros that were written, not only promised: a page that is read before it is written costs two faults, and the second
/// stops every thread for a moment. Without the black box the compiler asks the system for promised zeros.
pub fn written(words: usize) -> Box<[AtomicU64]> {
    let mut table = black_box(Vec::with_capacity(words));
    table.resize_with(words, || AtomicU64::new(0));
    table.into_boxed_slice()
}
