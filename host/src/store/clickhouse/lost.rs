//! Whether what was written is still there: tables are dropped and emptied behind the host's back.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use super::history::table;
use super::rows::Reader;
use super::{ClickHouse, seconds};
use crate::store::memory::Written;
use crate::store::{Resolution, StoreError};

/// Panes asked for in one query.
const ASKED_AT_ONCE: usize = 1_000;

impl ClickHouse {
    /// Whether these panes are there, as far as retention keeps them, and the shapes of their metrics.
    pub fn has(&self, written: &[Written]) -> Result<bool, StoreError> {
        self.prepare()?;
        let fingerprints: BTreeSet<u64> = written.iter().map(|it| it.fingerprint.0).collect();
        let fingerprints: Vec<String> = fingerprints.iter().map(u64::to_string).collect();
        for some in fingerprints.chunks(ASKED_AT_ONCE) {
            let condition = format!("fingerprint IN ({})", some.join(", "));
            if self.count("uniqExact(fingerprint)", "metrics", &condition)? < some.len() as u64 {
                return self.forget_known();
            }
        }
        for resolution in [Resolution::Minute, Resolution::Hour] {
            let kept_from = self.kept_from(resolution).load(Relaxed);
            let kept = |it: &&Written| it.resolution == resolution && it.start.0 >= kept_from;
            let kept: Vec<&Written> = written.iter().filter(kept).collect();
            for some in kept.chunks(ASKED_AT_ONCE) {
                let pane = |it: &&Written| format!("({}, toDateTime({}, 'UTC'))", it.fingerprint.0, seconds(it.start));
                let panes: Vec<String> = some.iter().map(pane).collect();
                let condition = format!("(fingerprint, start) IN ({})", panes.join(", "));
                let found = self.count("uniqExact(fingerprint, start)", table(resolution), &condition)?;
                if found < some.len() as u64 {
                    return self.forget_known();
                }
            }
        }
        Ok(true)
    }

    fn count(&self, what: &str, table: &str, condition: &str) -> Result<u64, StoreError> {
        let sql = format!("SELECT {what} FROM {} WHERE {condition}", self.schema.table(table));
        Ok(Reader::new(&self.connection.fetch_all(&sql)?).u64().unwrap_or(0))
    }

    /// What was known of columns and shapes may be gone, too.
    fn forget_known(&self) -> Result<bool, StoreError> {
        *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        Ok(false)
    }
}
