//! Files of events through the engine at full speed: the same shards, deltas, store and evaluator as a running host, without its journal.
//!
//! Shards take pieces of the input in turn. Ids are checked in the order of the input, so that any number of shards gives the same points.

mod pieces;
mod points;
mod turn;

use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::catalog::definitions::{Active, Definitions, Difference, Outcome};
use crate::engine::dedupe::Dedupe;
use crate::engine::delta::{Delta, Partial};
use crate::engine::judge::Arrival;
use crate::engine::merge;
use crate::engine::report::Report;
use crate::engine::shard::{Input, Shard};
use crate::store::memory::MemoryStore;
use crate::store::{HotStore, StoreError};
use crate::time::{Millis, Minute};
use pieces::Pieces;
pub use pieces::Source;
use turn::InTurn;

#[derive(Clone, Copy, Debug)]
pub struct ReplaySettings {
    pub shards: usize,
    /// Bytes of a piece; a piece is some whole lines.
    pub batch_bytes: usize,
    pub event_bytes_max: usize,
    /// The time that `ahead` counts from.
    pub now: Millis,
}

/// Every non-blank line is in exactly one of the first four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub events: u64,
    pub rejected: u64,
    pub late: u64,
    pub duplicates: u64,
    /// From start to last state.
    pub seconds: f64,
    pub events_per_s: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{name}: {source}")]
    Read { name: String, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Points(String),
    #[error("writing the points: {0}")]
    Write(#[from] std::io::Error),
}

/// The state that the events left behind.
pub struct Replayed {
    pub summary: Summary,
    /// The first rejected lines of the input with their reasons.
    pub errors: Vec<(u64, String)>,
    store: MemoryStore,
    minutes: Option<(Minute, Minute)>,
    active: Active,
}

/// Runs the sources through the engine. `progress` is told of bytes that were read.
pub fn replay(
    definitions: Definitions,
    sources: Vec<Source>,
    settings: ReplaySettings,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Replayed, ReplayError> {
    let started = Instant::now();
    let plan = definitions.plan.clone();
    let pieces = Mutex::new(Pieces::new(sources, settings.batch_bytes));
    let expected = pieces.lock().unwrap_or_else(PoisonError::into_inner).expected_events();
    let dedupe =
        plan.event.id.map(|_| Mutex::new(Dedupe::with_expected(plan.event.dedupe_ms, expected, settings.shards)));
    let turn = AtomicU64::new(0);
    let work = |number: usize| -> Result<(Report, Vec<Partial>), ReplayError> {
        let mut shard = Shard::new(number, plan.clone(), settings.event_bytes_max, 10);
        let (mut total, mut buffer) = (Report::default(), Vec::new());
        loop {
            let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).next(&mut buffer)?;
            let Some(piece) = piece else { break };
            // Passed on whatever comes, so that nobody waits for a piece that cannot be read.
            let mut turn = InTurn::new(piece.number, &turn, dedupe.as_ref());
            piece.read(&mut buffer)?;
            progress(piece.len as u64);
            let input = Input {
                buffer: &buffer,
                len: piece.len,
                arrival: Arrival::Own { now: settings.now },
                order: piece.number << 20,
                address: None,
                user_agent: None,
            };
            let report = shard.process(&input, &mut turn);
            add(&mut total, report);
        }
        Ok((total, shard.cut()))
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..settings.shards).map(|number| scope.spawn(move || work(number))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let (mut total, mut partials) = (Report::default(), Vec::new());
    for result in results {
        let (report, of_shard) = result?;
        add(&mut total, report);
        partials.extend(of_shard);
    }
    let store = MemoryStore::with_threads(settings.shards);
    store.apply(Delta { sources: Vec::new(), partials: merge::joined(partials).into_iter().collect() })?;
    let seconds = started.elapsed().as_secs_f64();
    let lines = total.counted + total.rejected + total.late + total.duplicates;
    let summary = Summary {
        events: total.counted,
        rejected: total.rejected,
        late: total.late,
        duplicates: total.duplicates,
        seconds,
        events_per_s: if seconds > 0.0 { (lines as f64 / seconds).round() } else { 0.0 },
    };
    Ok(Replayed {
        summary,
        errors: total.errors,
        store,
        minutes: total.minutes,
        active: active(definitions, settings.now),
    })
}

impl Replayed {
    /// Writes the final points, one JSON object a line, sorted by metric, time and labels.
    pub fn write_points(&self, out: &mut dyn Write) -> Result<(), ReplayError> {
        let Some((first, last)) = self.minutes else { return Ok(()) };
        points::write(&self.active, &self.store, first..Minute(last.0 + 1), out)
    }
}

/// Definitions in force, for those that never change.
fn active(definitions: Definitions, now: Millis) -> Active {
    let lineages = definitions.plan.metrics.iter().map(|metric| vec![(metric.fingerprint, None)]).collect();
    Active {
        revision: 1,
        applied_at: now,
        last: Arc::new(Outcome::Applied { at: now, difference: Difference::default() }),
        definitions: Arc::new(definitions),
        lineages: Arc::new(lineages),
    }
}

fn add(total: &mut Report, report: Report) {
    total.counted += report.counted;
    total.rejected += report.rejected;
    total.late += report.late;
    total.duplicates += report.duplicates;
    total.errors.extend(report.errors);
    total.errors.truncate(10);
    total.minutes = match (total.minutes, report.minutes) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    };
}
