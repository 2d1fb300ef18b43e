//! Raw events on their way to ClickHouse, read again from the journal once a checkpoint covers them: the journal is the spool.
//!
//! Which lines of a batch were not counted is known since it was counted, and kept with the checkpoint. A block's ranges are
//! noted before it is sent, so that after a crash the same block is sent again, under the same token.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shards::Uncounted;
use crate::catalog::definitions::Active;
use crate::engine::decode::{Decoder, Kind, Rows, Value};
use crate::engine::delta::SourceId;
use crate::engine::timestamp;
use crate::ingest::RawBatch;
use crate::ingest::journal::Journal;
use crate::store::clickhouse::{ClickHouse, RawEvent, RawEvents, RawRange};
use crate::store::embedded::Embedded;
use crate::store::{Position, StoreError};
use crate::telemetry::Telemetry;
use crate::time::Millis;

/// A block ends with the batch that brings it over this.
const BLOCK_BYTES: usize = 16 << 20;
const ROWS_AT_ONCE: usize = 1024;

const META_SENT: &str = "raw/sent";
const META_PENDING: &str = "raw/pending";
const META_UNCOUNTED: &str = "raw/uncounted";

/// By source and position of a batch the lines of it that were not counted.
type Lines = BTreeMap<(SourceId, u64), Vec<u32>>;

pub struct Raw {
    pub clickhouse: Arc<ClickHouse>,
    pub journal: Arc<Journal>,
    pub embedded: Arc<Embedded>,
    pub active: Arc<ArcSwap<Active>>,
    pub telemetry: Arc<Telemetry>,
    pub event_bytes_max: usize,
    /// The journal has more than this while events wait here: no more are taken.
    pub journal_bytes_max: u64,
    origin: String,
    uncounted: Mutex<Lines>,
    /// Where each source goes on, and what is being sent.
    progress: Mutex<Progress>,
    full: AtomicBool,
    /// Why the last block was not written.
    problem: Mutex<Option<String>>,
}

#[derive(Default)]
struct Progress {
    sent: BTreeMap<SourceId, u64>,
    pending: Vec<RawRange>,
}

/// What is there before it.
pub struct Parts {
    pub clickhouse: Arc<ClickHouse>,
    pub journal: Arc<Journal>,
    pub embedded: Arc<Embedded>,
    pub active: Arc<ArcSwap<Active>>,
    pub telemetry: Arc<Telemetry>,
    pub event_bytes_max: usize,
    pub journal_bytes_max: u64,
    pub origin: String,
}

/// The host runs without ClickHouse: what it counts now is never sent, and a later start with ClickHouse is to know that.
pub fn leave(embedded: &Embedded) -> Result<(), StoreError> {
    if stored::<Option<Vec<(SourceId, u64)>>>(embedded, META_SENT)?.flatten().is_some() {
        tracing::warn!("without ClickHouse: raw events of the time until it is back will not be there");
        put(embedded, META_SENT, &None::<Vec<(SourceId, u64)>>)?;
    }
    Ok(())
}

impl Raw {
    /// Goes on where the last run ended. `stored`: the checkpoint's positions. Where there was no last run, it begins there.
    pub fn open(parts: Parts, positions: &[Position]) -> Result<Self, StoreError> {
        let Parts { clickhouse, journal, embedded, active, telemetry, event_bytes_max, journal_bytes_max, origin } =
            parts;
        let next: BTreeMap<SourceId, u64> = positions.iter().map(|at| (at.source, at.next)).collect();
        let sent = stored::<Option<Vec<(SourceId, u64)>>>(&embedded, META_SENT)?.flatten();
        let mut progress = Progress::default();
        let mut uncounted = Lines::new();
        if let Some(sent) = sent {
            progress.sent = sent.into_iter().collect();
            progress.pending = stored(&embedded, META_PENDING)?.unwrap_or_default();
            let lines: Vec<((SourceId, u64), Vec<u32>)> = stored(&embedded, META_UNCOUNTED)?.unwrap_or_default();
            // What is behind the checkpoint is counted again, and may be judged otherwise.
            uncounted
                .extend(lines.into_iter().filter(|((source, at), _)| next.get(source).is_some_and(|next| at < next)));
        } else {
            progress.sent = next;
            put(&embedded, META_SENT, &Some(progress.sent.iter().collect::<Vec<_>>()))?;
        }
        let (uncounted, progress) = (Mutex::new(uncounted), Mutex::new(progress));
        let full = AtomicBool::new(false);
        Ok(Self {
            clickhouse,
            journal,
            embedded,
            active,
            telemetry,
            event_bytes_max,
            journal_bytes_max,
            origin,
            uncounted,
            progress,
            full,
            problem: Mutex::default(),
        })
    }

    /// Before the delta that they belong to is applied.
    pub fn note(&self, uncounted: Vec<Uncounted>) {
        let lines = uncounted.into_iter().map(|mut it| {
            it.lines.sort_unstable();
            ((it.source, it.position), it.lines)
        });
        self.lines().extend(lines);
    }

    /// Before a checkpoint is written whose positions cover them.
    pub fn save(&self) -> Result<(), StoreError> {
        let lines: Vec<_> = self.lines().iter().map(|(at, lines)| (*at, lines.clone())).collect();
        put(&self.embedded, META_UNCOUNTED, &lines)
    }

    /// The journal keeps what is not sent.
    pub fn hold_back(&self, covered: &mut [Position]) {
        let progress = self.progress();
        for position in covered {
            position.next = position.next.min(progress.sent.get(&position.source).copied().unwrap_or(0));
        }
    }

    /// So much waits that no more is to be taken.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends all that the checkpoint covers, or until something is in the way.
    pub fn send_all(&self, covered: &[Position]) {
        let outcome = loop {
            match self.send(covered) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        let reason = outcome.err();
        self.telemetry.clickhouse.raw_behind.set(i64::from(reason.is_some()));
        self.telemetry.clickhouse.raw_failures.inc_by(u64::from(reason.is_some()));
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*problem, &reason) {
            (None, Some(reason)) => tracing::warn!(%reason, "raw events are not written; they stay in the journal"),
            (Some(_), None) => tracing::info!("raw events are written again"),
            _ => {}
        }
        *problem = reason;
    }

    /// Sends a block of what the checkpoint covers. True: there may be more.
    pub fn send(&self, covered: &[Position]) -> Result<bool, StoreError> {
        let (sent, pending) = {
            let progress = self.progress();
            (progress.sent.clone(), progress.pending.clone())
        };
        let from = |source: &SourceId| sent.get(source).copied().unwrap_or(0);
        // The last block, if it is not known that it arrived; else the next one.
        let again = !pending.is_empty() && pending.iter().all(|(source, begin, _)| *begin == from(source));
        let wanted: Vec<RawRange> = if again {
            pending
        } else {
            covered.iter().map(|at| (at.source, from(&at.source), at.next)).filter(|(_, from, to)| from < to).collect()
        };
        if wanted.is_empty() {
            self.full.store(false, Relaxed);
            return Ok(false);
        }
        let (ranges, events) = self.read(&wanted, if again { usize::MAX } else { BLOCK_BYTES })?;
        if !again {
            put(&self.embedded, META_PENDING, &ranges)?;
            self.progress().pending = ranges.clone();
        }
        self.full.store(self.journal.bytes() > self.journal_bytes_max + self.journal_bytes_max / 8, Relaxed);
        self.clickhouse.append(&ranges, &events)?;
        self.telemetry.clickhouse.raw_events.inc_by(events.count() as u64);
        let mut progress = self.progress();
        progress.sent.extend(ranges.iter().map(|(source, _, to)| (*source, *to)));
        progress.pending.clear();
        put(&self.embedded, META_SENT, &Some(progress.sent.iter().collect::<Vec<_>>()))?;
        self.lines().retain(|(source, at), _| progress.sent.get(source).is_none_or(|sent| at >= sent));
        Ok(true)
    }

    /// The counted events of these ranges, as far as they fit, and how far that is.
    fn read(&self, wanted: &[RawRange], bytes_max: usize) -> Result<(Vec<RawRange>, RawEvents), StoreError> {
        let plan = self.active.load().definitions.plan.clone();
        let path = |field: Option<usize>| field.map(|field| plan.fields[field].path.clone());
        let paths: Vec<Vec<String>> = [path(plan.event.time), path(plan.event.key)].into_iter().flatten().collect();
        let mut reading = Reading {
            decoder: Decoder::new(&paths, self.event_bytes_max),
            rows: Rows::default(),
            time: plan.event.time.map(|_| 0),
            key: plan.event.key.map(|_| paths.len() - 1),
            events: RawEvents::new(&self.origin),
        };
        let mut ranges = Vec::new();
        for &(source, from, to) in wanted {
            if reading.events.bytes() >= bytes_max {
                break;
            }
            // Where the last batches are damaged, the range ends behind them all the same.
            let mut end = to;
            for batch in self.journal.read(source as usize, from) {
                let (position, batch) = batch.map_err(|error| StoreError::Engine(error.to_string()))?;
                if position >= to {
                    break;
                }
                let uncounted = self.lines().get(&(source, position)).cloned().unwrap_or_default();
                reading.add(source, position, &batch, &uncounted);
                if reading.events.bytes() >= bytes_max {
                    end = position + 1;
                    break;
                }
            }
            ranges.push((source, from, end));
        }
        Ok((ranges, reading.events))
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.uncounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Batches to rows.
struct Reading {
    decoder: Decoder,
    rows: Rows,
    /// Columns of the decoder.
    time: Option<usize>,
    key: Option<usize>,
    events: RawEvents,
}

impl Reading {
    fn add(&mut self, source: SourceId, position: u64, batch: &RawBatch, uncounted: &[u32]) {
        let (mut at, mut line) = (0, 0);
        while at < batch.len {
            self.decoder.decode(&batch.bytes, batch.len, &mut at, &mut line, ROWS_AT_ONCE, &mut self.rows);
            let rows = &self.rows;
            for row in (0..rows.len).filter(|row| uncounted.binary_search(&rows.line[*row]).is_err()) {
                let value = |column: Option<usize>| column.map_or(Value::MISSING, |column| rows.column(column)[row]);
                let key = value(self.key);
                self.events.push(&RawEvent {
                    time: time(rows, &batch.bytes, value(self.time)).unwrap_or(batch.arrival),
                    arrival: batch.arrival,
                    key: if key.kind() > Kind::Null { rows.bytes(&batch.bytes, key) } else { b"" },
                    event: batch.bytes[rows.start[row] as usize..rows.end[row] as usize].trim_ascii(),
                    address: batch.client.address,
                    user_agent: batch.client.user_agent.as_deref().unwrap_or_default(),
                    place: (source, position, rows.line[row]),
                });
            }
        }
    }
}

fn time(rows: &Rows, buffer: &[u8], value: Value) -> Option<Millis> {
    match value.kind() {
        Kind::Number => timestamp::from_number(rows.bytes(buffer, value)),
        Kind::Text => timestamp::from_text(rows.bytes(buffer, value)),
        _ => None,
    }
}

fn stored<T: DeserializeOwned>(embedded: &Embedded, key: &str) -> Result<Option<T>, StoreError> {
    let Some(bytes) = embedded.meta_get(key)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| StoreError::Corrupt(format!("`{key}` in the data folder is damaged: {error}")))
}

fn put(embedded: &Embedded, key: &str, value: &impl Serialize) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|error| StoreError::Engine(error.to_string()))?;
    embedded.meta_put(key, &bytes)
}
