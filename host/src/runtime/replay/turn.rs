//! One after the other, in the order of the input: the check of ids.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::dedupe::Dedupe;
use crate::engine::judge::IdCheck;
use crate::time::Millis;

/// The turn of one piece. Passed on after its last chunk, at the latest when it is dropped.
pub struct InTurn<'a> {
    number: u64,
    turn: &'a AtomicU64,
    /// `None`: events have no ids, and nobody has to wait.
    dedupe: Option<&'a Mutex<Dedupe>>,
    passed: bool,
}

impl<'a> InTurn<'a> {
    pub fn new(number: u64, turn: &'a AtomicU64, dedupe: Option<&'a Mutex<Dedupe>>) -> Self {
        Self { number, turn, dedupe, passed: dedupe.is_none() }
    }

    fn wait(&self) {
        let mut spins = 0u32;
        while self.turn.load(Ordering::Acquire) != self.number {
            spins += 1;
            if spins.is_multiple_of(64) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    fn pass(&mut self) {
        self.turn.store(self.number + 1, Ordering::Release);
        self.passed = true;
    }
}

impl IdCheck for InTurn<'_> {
    fn check(&mut self, hashes: &[u64], arrivals: &[Millis], last: bool, duplicate: &mut dyn FnMut(usize)) {
        let Some(dedupe) = self.dedupe else { return };
        self.wait();
        // Nobody else has the turn, so nobody waits here.
        let mut dedupe = dedupe.lock().unwrap_or_else(PoisonError::into_inner);
        dedupe.make_room();
        dedupe.check_alone(hashes, arrivals, duplicate);
        drop(dedupe);
        if last {
            self.pass();
        }
    }
}

impl Drop for InTurn<'_> {
    fn drop(&mut self) {
        if !self.passed {
            self.wait();
            self.pass();
        }
    }
}
