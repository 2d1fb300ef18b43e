//! Minutes that only wait for ClickHouse: they stay in hot, in memory and in its checkpoint on disk, and are bounded. At the limit
//! nothing more is counted until ClickHouse takes them. Knows bytes; not what waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

pub struct HistoryWaiting {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Another host on the same store has as much as it may.
    others: AtomicBool,
}

impl HistoryWaiting {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), others: AtomicBool::new(false) }
    }

    /// Of minutes that would be forgotten if history had them, as of now.
    pub fn note(&self, bytes: usize) {
        let was_full = self.is_full();
        self.bytes.store(bytes, Relaxed);
        match (was_full, self.is_full()) {
            (false, true) => {
                tracing::error!(
                    bytes,
                    bytes_max = self.bytes_max,
                    "as much history as may waits for ClickHouse: no more events are counted"
                )
            }
            (true, false) => tracing::info!(bytes, "history has been written: events are counted again"),
            _ => {}
        }
    }

    pub fn note_others(&self, full: bool) {
        self.others.store(full, Relaxed);
    }

    /// Here.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Relaxed) > self.bytes_max
    }

    /// Why nothing more may be counted.
    pub fn problem(&self) -> Option<String> {
        if self.is_full() {
            return Some(format!(
                "{} MB of minutes wait for ClickHouse, which does not take them (--history-waiting-bytes-max)",
                self.bytes.load(Relaxed) >> 20
            ));
        }
        let others = self.others.load(Relaxed);
        others.then(|| "another host has as much history waiting for ClickHouse as it may".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_full_beyond_the_limit_here_or_elsewhere() {
        let waiting = HistoryWaiting::new(3 << 20);
        waiting.note(3 << 20);
        assert_eq!(waiting.problem(), None);
        waiting.note((3 << 20) + 1);
        assert!(waiting.is_full() && waiting.problem().unwrap().starts_with("3 MB of minutes wait"));
        waiting.note(0);
        waiting.note_others(true);
        assert!(!waiting.is_full() && waiting.problem().unwrap().starts_with("another host"));
        waiting.note_others(false);
        assert_eq!(waiting.problem(), None);
    }
}
