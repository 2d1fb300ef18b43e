//! Large tables of atomic words.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PAGE_WORDS: usize = 4096 / size_of::<AtomicU64>();

/// Zeros in pages that were written, not only promised: a page that is read before it is written costs two faults, and the
/// second stops every thread for a moment. `threads` share the work.
pub fn written(words: usize, threads: usize) -> Box<[AtomicU64]> {
    // The compiler asks the system for promised zeros.
    let mut table = Vec::with_capacity(words);
    table.resize_with(words, || AtomicU64::new(0));
    let write = |part: &[AtomicU64]| part.iter().step_by(PAGE_WORDS).for_each(|word| word.store(0, Relaxed));
    if threads < 2 {
        write(&table);
    } else {
        std::thread::scope(|scope| {
            for part in table.chunks(words.div_ceil(threads).next_multiple_of(PAGE_WORDS)) {
                scope.spawn(move || write(part));
            }
        });
    }
    table.into_boxed_slice()
}
