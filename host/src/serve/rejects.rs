//! The newest dead letters, kept in memory for people to look at. Does not know why an event was rejected.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::time::Millis;

const ENTRIES_MAX: usize = 1_000;
const EVENT_BYTES_MAX: usize = 2_048;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Arrival.
    pub at: Millis,
    /// Where it came from: `http`, a topic and partition.
    pub source: String,
    pub reason: String,
    /// The beginning of the event as it came.
    pub event: String,
}

#[derive(Default)]
pub struct Rejects {
    ring: Mutex<(u64, VecDeque<Reject>)>,
}

impl Rejects {
    /// `event` is cut; what is no UTF-8 in it is replaced.
    pub fn push(&self, at: Millis, source: &str, reason: &str, event: &[u8]) {
        let event = String::from_utf8_lossy(&event[..event.len().min(EVENT_BYTES_MAX)]).into_owned();
        let reject = Reject { at, source: source.to_owned(), reason: reason.to_owned(), event };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.0 += 1;
        ring.1.push_front(reject);
        ring.1.truncate(ENTRIES_MAX);
    }

    /// Counts those of which nothing is kept.
    pub fn count(&self, more: u64) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).0 += more;
    }

    /// How many there were since the start, and the newest of them, newest first.
    pub fn newest(&self, limit: usize) -> (u64, Vec<Reject>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        (ring.0, ring.1.iter().take(limit).cloned().collect())
    }
}
