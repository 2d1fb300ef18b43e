//! Raw events on their way to ClickHouse, read again from the log once the stored state covers them: the log is the spool.
//!
//! Which lines of it were not counted is known since they were read for counting, and kept with the state. A block's range is
//! noted before it is sent, so that after a crash the same block is sent again, under the same token.

mod folder;
mod journal;
mod judging;
mod places;
mod rows;
mod topic;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

pub use folder::{Folder, leave};
pub use journal::FromJournal;
pub use places::Places;
pub use topic::FromTopic;

use crate::catalog::definitions::Active;
use crate::engine::delta::{SourceRange, Uncounted};
use crate::store::clickhouse::ClickHouse;
use crate::store::{Position, StoreError};
use crate::telemetry::Telemetry;

/// A block ends with the batch or message that brings it over this.
const BLOCK_BYTES: usize = 16 << 20;
/// While nothing waits, ClickHouse is asked with each so many looks at what waits.
const LOOK_EVERY: u64 = 10;

pub struct Raw {
    pub sending: Sending,
    pub from: From,
    /// Why the last block was not written.
    problem: Mutex<Option<String>>,
}

/// What sending needs, whatever the log.
pub struct Sending {
    pub clickhouse: Arc<ClickHouse>,
    pub active: Arc<ArcSwap<Active>>,
    pub telemetry: Arc<Telemetry>,
    pub event_bytes_max: usize,
    /// Whose sources these are.
    pub origin: String,
    /// Messages that were gone before they were sent.
    pub lost: AtomicU64,
    /// The host ends: no further block is begun but one of each source.
    pub ending: AtomicBool,
    /// How often it was asked whether it is time to look.
    pub asked: AtomicU64,
}

impl Sending {
    /// Whether to look for what ClickHouse has lost: before something is sent, since that would hide a loss, and now and then.
    fn is_time_to_look(&self, something_waits: bool) -> bool {
        self.asked.fetch_add(1, Relaxed).is_multiple_of(LOOK_EVERY) || something_waits
    }
}

pub enum From {
    Journal(FromJournal),
    Topic(FromTopic),
}

impl Raw {
    pub fn new(sending: Sending, from: From) -> Self {
        Self { sending, from, problem: Mutex::default() }
    }

    /// Before the delta that they belong to is applied: what of its ranges was not counted. Gives what is to be kept in the
    /// step that applies it.
    pub fn note(&self, ranges: &[SourceRange], uncounted: Vec<Uncounted>) -> Option<Vec<Uncounted>> {
        match self.folder() {
            Some(folder) => {
                folder.note(ranges, uncounted);
                None
            }
            None => Some(uncounted),
        }
    }

    /// Before positions that cover them are durable.
    pub fn save(&self) -> Result<(), StoreError> {
        self.folder().map_or(Ok(()), Folder::save)
    }

    /// The journal keeps what is not sent.
    pub fn hold_back(&self, covered: &mut [Position]) {
        let Some(folder) = self.folder() else { return };
        for position in covered {
            position.next = position.next.min(folder.sent(position.source));
        }
    }

    /// So much waits that no more is to be taken.
    pub fn is_full(&self) -> bool {
        let journal = matches!(&self.from, From::Journal(journal) if journal.is_full());
        journal || self.folder().is_some_and(Folder::is_full)
    }

    /// What is wrong, as far as it is known.
    pub fn problems(&self) -> Vec<String> {
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost = Some(self.sending.lost.load(Relaxed)).filter(|lost| *lost > 0).map(|lost| {
            format!(
                "{lost} messages were gone from the topic before their raw events were written: those are not there"
            )
        });
        problem.map(|reason| format!("raw events are not written: {reason}")).into_iter().chain(lost).collect()
    }

    /// Sends what the stored state covers, or until something is in the way.
    pub fn send_all(&self, covered: &[Position]) {
        let outcome = match &self.from {
            From::Journal(journal) => journal.send_all(&self.sending, covered),
            From::Topic(topic) => topic.send_all(&self.sending, covered),
        };
        let reason = outcome.err().map(|error| error.to_string());
        let telemetry = &self.sending.telemetry.clickhouse;
        telemetry.raw_behind.set(i64::from(reason.is_some()));
        telemetry.raw_failures.inc_by(u64::from(reason.is_some()));
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*problem, &reason) {
            (None, Some(reason)) => tracing::warn!(%reason, "raw events are not written; they stay in the log"),
            (Some(_), None) => tracing::info!("raw events are written again"),
            _ => {}
        }
        *problem = reason;
    }

    /// The host ends: what is begun is finished, and one more block of each source sent.
    pub fn end(&self) {
        self.sending.ending.store(true, Relaxed);
    }

    fn folder(&self) -> Option<&Folder> {
        match &self.from {
            From::Journal(journal) => Some(&journal.folder),
            From::Topic(topic) => topic.places.folder(),
        }
    }
}
