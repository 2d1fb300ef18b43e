//! Large tables of atomic words.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

const PAGE_BYTES: usize = 4096;

pub trait Word: Send + Sync {
    fn zero() -> Self;
    fn clear(&self);
}

impl Word for AtomicU32 {
    fn zero() -> Self {
        Self::new(0)
    }

    fn clear(&self) {
        self.store(0, Relaxed);
    }
}

impl Word for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    fn clear(&self) {
        self.store(0, Relaxed);
    }
}

/// Zeros that the system promises, and gives page by page when they are written: for what is written in order.
pub fn promised<T: Word>(words: usize) -> Box<[T]> {
    // The compiler asks the system for promised zeros.
    let mut table = Vec::with_capacity(words);
    table.resize_with(words, T::zero);
    table.into_boxed_slice()
}

/// Zeros in pages that were written, not only promised: a page that is read before it is written costs two faults, and the
/// second stops every thread for a moment. `threads` share the work.
pub fn written<T: Word>(words: usize, threads: usize) -> Box<[T]> {
    let page_words = PAGE_BYTES / size_of::<T>();
    let table = promised::<T>(words);
    let write = |part: &[T]| part.iter().step_by(page_words).for_each(T::clear);
    if threads < 2 {
        write(&table);
    } else {
        std::thread::scope(|scope| {
            for part in table.chunks(words.div_ceil(threads).next_multiple_of(page_words)) {
                scope.spawn(move || write(part));
            }
        });
    }
    table
}
