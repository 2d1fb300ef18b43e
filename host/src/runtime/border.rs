//! The border between async and sync: batches get their place in the journal, go to their shard, and are acknowledged when they are durable.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::oneshot;

use super::shards::{Job, Reply, Reserved, Shards};
use crate::engine::delta::SourceId;
use crate::ingest::journal::{Frame, Journal};
use crate::ingest::{Intake, RawBatch, Receipt, Refusal};
use crate::telemetry::Telemetry;

/// Smaller batches are compressed where they are, larger ones on a thread of their own.
const INLINE_BYTES_MAX: usize = 32 << 10;
/// Batches made durable together.
const GROUP_BATCHES_MAX: usize = 4096;
const RETRY_AFTER_S: u32 = 1;
/// What a batch costs in the queue beyond its bytes.
const BATCH_OVERHEAD_BYTES: usize = 512;

struct Entry {
    frame: Frame,
    batch: RawBatch,
    report: oneshot::Sender<crate::engine::report::Report>,
    durable: oneshot::Sender<Result<(), String>>,
    reserved: Reserved,
}

pub struct Border {
    /// Recovery is over: until then a new batch would be counted before older ones of its lane, and read again besides.
    open: AtomicBool,
    entries: Mutex<Option<Sender<Entry>>>,
    waiting_bytes: Arc<AtomicUsize>,
    queue_bytes_max: usize,
    problem: Arc<Mutex<Option<String>>>,
    /// Held over the writing of a group.
    writing: Arc<Mutex<()>>,
}

impl Border {
    /// Starts the thread that writes the journal.
    pub fn start(
        journal: Arc<Journal>,
        shards: Arc<Shards>,
        telemetry: Arc<Telemetry>,
        queue_bytes_max: usize,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let (sender, receiver) = unbounded();
        let problem = Arc::new(Mutex::new(None));
        let writing = Arc::new(Mutex::new(()));
        let writer =
            Writer { journal, shards, telemetry, problem: problem.clone(), writing: writing.clone(), round: 0 };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(receiver));
        let entries = Mutex::new(Some(sender));
        let (open, waiting_bytes) = (AtomicBool::new(false), Arc::default());
        let border = Self { open, entries, waiting_bytes, queue_bytes_max, problem, writing };
        (Arc::new(border), thread.expect("the system starts threads"))
    }

    /// Everything from before the start is with the shards: now others may follow.
    pub fn open(&self) {
        self.open.store(true, Relaxed);
    }

    /// Nothing goes into the journal, nor from there to the shards, while the guard is held: who sends waits.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nothing more; the thread ends when it has written what it was given.
    pub fn close(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Relaxed)
    }

    /// Why nothing can be made durable right now.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reserve(&self, bytes: usize) -> Result<Reserved, Refusal> {
        let reserved = Reserved { bytes, total: self.waiting_bytes.clone() };
        let before = self.waiting_bytes.fetch_add(bytes, Relaxed);
        // One batch is always taken, however large it is.
        if before > 0 && before + bytes > self.queue_bytes_max {
            return Err(Refusal::Busy { retry_after_s: RETRY_AFTER_S });
        }
        Ok(reserved)
    }
}

fn unavailable(reason: impl Into<String>) -> Refusal {
    Refusal::Unavailable { reason: reason.into(), retry_after_s: RETRY_AFTER_S }
}

impl Intake for Border {
    async fn submit(&self, batch: RawBatch) -> Result<Receipt, Refusal> {
        if !self.open.load(Relaxed) {
            return Err(unavailable("the host is still counting what came before its start"));
        }
        let reserved = self.reserve(batch.bytes.len() + BATCH_OVERHEAD_BYTES)?;
        let (batch, frame) = if batch.len > INLINE_BYTES_MAX && batch.zstd.is_none() {
            let encode = move || {
                let frame = Frame::encode(&batch);
                (batch, frame)
            };
            tokio::task::spawn_blocking(encode).await.map_err(|error| unavailable(error.to_string()))?
        } else {
            let frame = Frame::encode(&batch);
            (batch, frame)
        };
        let frame = frame.map_err(|error| unavailable(error.to_string()))?;
        let ((report, reported), (durable, is_durable)) = (oneshot::channel(), oneshot::channel());
        let entry = Entry { frame, batch, report, durable, reserved };
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if entries.is_none_or(|entries| entries.send(entry).is_err()) {
            return Err(unavailable("the host is stopping"));
        }
        match is_durable.await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return Err(unavailable(reason)),
            Err(_) => return Err(unavailable("the host is stopping")),
        }
        let report = reported.await.map_err(|_| unavailable("the host is stopping"))?;
        Ok(Receipt {
            accepted: report.counted + report.late + report.duplicates,
            rejected: report.rejected,
            errors: report.errors,
        })
    }
}

/// Writes batches in groups: one sync for all that came while the one before was under way.
struct Writer {
    journal: Arc<Journal>,
    shards: Arc<Shards>,
    telemetry: Arc<Telemetry>,
    problem: Arc<Mutex<Option<String>>>,
    writing: Arc<Mutex<()>>,
    round: usize,
}

impl Writer {
    fn run(mut self, entries: Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let group = std::iter::once(first).chain(entries.try_iter().take(GROUP_BATCHES_MAX));
            self.write(group);
            self.round += 1;
        }
    }

    fn write(&mut self, group: impl Iterator<Item = Entry>) {
        let writing = self.writing.clone();
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.shards.generation();
        let mut written: Vec<(usize, oneshot::Sender<Result<(), String>>)> = Vec::new();
        for (at, entry) in group.enumerate() {
            let lane = self.lane(self.shards.idlest(self.round + at));
            let Entry { frame, batch, report, durable, reserved } = entry;
            let bytes = frame.len() as u64;
            match self.journal.append(lane, frame) {
                Ok(sequence) => {
                    self.telemetry.journal.written_bytes.inc_by(bytes);
                    let (source, from, to) = (lane as SourceId, sequence, sequence + 1);
                    let reply = Reply::To(report, reserved);
                    self.shards.send(Job { source, from, to, batch, reply, generation });
                    written.push((lane, durable));
                }
                Err(error) => {
                    self.failed(&error.to_string());
                    let _ = durable.send(Err(error.to_string()));
                }
            }
        }
        let mut lanes: Vec<usize> = written.iter().map(|(lane, _)| *lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        let started = Instant::now();
        let outcomes: Vec<(usize, Result<(), String>)> =
            lanes.iter().map(|lane| (*lane, self.journal.sync(&[*lane]).map_err(|error| error.to_string()))).collect();
        self.telemetry.journal.sync_seconds.observe(started.elapsed().as_secs_f64());
        match outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err()) {
            Some(error) => self.failed(error),
            None if !written.is_empty() => *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None,
            None => {}
        }
        for (lane, durable) in written {
            let outcome = outcomes.iter().find(|(of, _)| *of == lane).map_or(Ok(()), |(_, outcome)| outcome.clone());
            // Whoever waited may have gone.
            let _ = durable.send(outcome);
        }
    }

    /// The lanes of a shard take turns, so that any number of shards can share the reading later.
    fn lane(&self, shard: usize) -> usize {
        let (lanes, shards) = (self.journal.lanes(), self.shards.count());
        let of_shard = (lanes - shard).div_ceil(shards);
        shard + (self.round / shards % of_shard) * shards
    }

    fn failed(&self, reason: &str) {
        self.telemetry.journal.failures.inc();
        tracing::error!(reason, "the journal cannot be written");
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
    }
}
