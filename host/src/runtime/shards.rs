//! Shard threads: each owns some sources (lanes of the journal, partitions of a topic), counts their batches, and hands over what it has when the tick asks. Knows nothing of stores or HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded, select_biased, unbounded};
use tokio::sync::oneshot;

use crate::catalog::definitions::Active;
use crate::engine::dedupe::Dedupe;
use crate::engine::delta::{GROUP_ALL, Partial, SourceId, SourceRange, Uncounted};
use crate::engine::judge::Arrival;
use crate::engine::report::Report;
use crate::engine::shard::{Input, Shard};
use crate::ingest::{ERRORS_LISTED_MAX, RawBatch};
use crate::time::Millis;

/// Between two looks at whether shards are done.
const WAIT_STEP: Duration = Duration::from_micros(200);

/// A batch of a source for the shard that owns it.
pub struct Job {
    pub source: SourceId,
    /// Where it begins in its source, and where the next one does.
    pub from: u64,
    pub to: u64,
    pub batch: RawBatch,
    pub reply: Reply,
    /// Older than the shards' own: dropped, since its source is read again.
    pub generation: u64,
}

pub enum Reply {
    /// Somebody waits for what became of it.
    To(oneshot::Sender<Report>, Reserved),
    /// Read again from the journal: counted, nobody waits.
    Nobody,
    /// Read from a log for the first time, as far as is known: counted, and told of.
    Told(Reserved),
    /// Counted before: only its ids are remembered.
    IdsOnly(Option<Reserved>),
}

/// Room in the queue, given back when the batch is done.
pub struct Reserved {
    pub bytes: usize,
    pub total: Arc<AtomicUsize>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Relaxed);
    }
}

/// What became of events since the start.
#[derive(Default)]
pub struct Totals {
    pub counted: AtomicU64,
    pub rejected: AtomicU64,
    pub late: AtomicU64,
    pub duplicates: AtomicU64,
}

/// What all shards had since the last cut, at one instant.
pub struct Cut {
    pub partials: Vec<Partial>,
    pub ranges: Vec<SourceRange>,
    /// The oldest arrival of what still waits. `None`: nothing waits.
    pub behind: Option<Millis>,
    /// Bytes counted since the last cut.
    pub bytes: usize,
    pub uncounted: Vec<Uncounted>,
}

pub struct Shards {
    jobs: Vec<Sender<Job>>,
    control: Vec<Sender<Control>>,
    queues: Vec<Arc<Queue>>,
    threads: Vec<JoinHandle<()>>,
    dedupe: Arc<RwLock<Dedupe>>,
    generation: Arc<AtomicU64>,
    /// Within `at_rest`.
    resting: AtomicBool,
    pub totals: Arc<Totals>,
}

struct Control {
    reply: Sender<Cut>,
    /// Closed when all shards have cut.
    resume: Receiver<()>,
}

#[derive(Default)]
struct Queue {
    sent: AtomicU64,
    done: AtomicU64,
    /// Oldest arrivals of the batches that are not done, in their order.
    arrivals: Mutex<VecDeque<Millis>>,
    /// Events counted since the start.
    events: AtomicU64,
}

impl Queue {
    fn waiting(&self) -> u64 {
        self.sent.load(Acquire) - self.done.load(Acquire)
    }

    fn arrivals(&self) -> MutexGuard<'_, VecDeque<Millis>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Told of every batch that is counted for the first time.
pub type Listener = Arc<dyn Fn(SourceId, &RawBatch, &Report) + Send + Sync>;

/// How much was sent to each shard at some moment.
pub struct Mark(Vec<u64>);

impl Shards {
    pub fn start(count: usize, active: Arc<ArcSwap<Active>>, event_bytes_max: usize, listener: Listener) -> Self {
        let span = active.load().definitions.plan.event.dedupe_ms;
        let dedupe = Arc::new(RwLock::new(Dedupe::new(span)));
        let totals = Arc::new(Totals::default());
        let generation = Arc::new(AtomicU64::new(0));
        let mut shards = Self {
            jobs: vec![],
            control: vec![],
            queues: vec![],
            threads: vec![],
            dedupe: dedupe.clone(),
            generation: generation.clone(),
            resting: AtomicBool::new(false),
            totals: totals.clone(),
        };
        for number in 0..count {
            let ((job_in, job_out), (control_in, control_out)) = (unbounded(), unbounded());
            let queue = Arc::new(Queue::default());
            let plan = active.load().definitions.plan.clone();
            let worker = Worker {
                shard: Shard::new(number, plan, event_bytes_max, ERRORS_LISTED_MAX),
                active: active.clone(),
                dedupe: dedupe.clone(),
                queue: queue.clone(),
                generation: generation.clone(),
                totals: totals.clone(),
                listener: listener.clone(),
                ranges: BTreeMap::new(),
                bytes: 0,
                uncounted: vec![],
                batches: 0,
            };
            let thread = std::thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || worker.run(job_out, control_out));
            shards.threads.push(thread.expect("the system starts threads"));
            shards.jobs.push(job_in);
            shards.control.push(control_in);
            shards.queues.push(queue);
        }
        shards
    }

    pub fn count(&self) -> usize {
        self.jobs.len()
    }

    pub fn owner(&self, source: SourceId) -> usize {
        source as usize % self.jobs.len()
    }

    /// The shard for which the fewest batches wait; of equals another one each turn.
    pub fn idlest(&self, turn: usize) -> usize {
        let count = self.count();
        let shards = (0..count).map(|at| (turn + at) % count);
        shards.min_by_key(|shard| self.queues[*shard].waiting()).unwrap_or(0)
    }

    /// Batches of a source are to come in their order.
    pub fn send(&self, job: Job) {
        let owner = self.owner(job.source);
        let queue = &self.queues[owner];
        queue.arrivals().push_back(job.batch.oldest());
        queue.sent.fetch_add(1, AcqRel);
        // A shard ends only after everything that sends has ended.
        let _ = self.jobs[owner].send(job);
    }

    /// Waits until no shard is at work and takes what they have: one instant for all, so that an id that one dropped as a
    /// duplicate is counted in this cut or an earlier one. `span_ms`: how long ids are remembered from now on.
    pub fn cut(&self, newest_arrival: Millis, span_ms: Millis) -> Cut {
        self.cut_and(newest_arrival, span_ms, |cut| cut)
    }

    /// The same; the shards go on when `act` is done, so that what it changes holds for all that comes after the cut.
    pub fn cut_and<T>(&self, newest_arrival: Millis, span_ms: Millis, act: impl FnOnce(Cut) -> T) -> T {
        self.at_rest(|cut| {
            let arrival = cut.ranges.iter().map(|range| range.arrival).max().unwrap_or(newest_arrival);
            self.dedupe.write().unwrap_or_else(PoisonError::into_inner).maintain(arrival, span_ms);
            act(cut)
        })
    }

    /// Drops all that was not cut yet, and all ids: their sources are read again from what is stored. What is sent after it is
    /// of the generation that it gives. May be called from within `cut_and`, too: what there was is in its cut.
    pub fn forget(&self) -> u64 {
        let forget = || {
            let mut dedupe = self.dedupe.write().unwrap_or_else(PoisonError::into_inner);
            *dedupe = Dedupe::new(dedupe.span_ms());
            self.generation.fetch_add(1, AcqRel);
        };
        // At rest for the caller: cuts are made one at a time.
        match self.resting.load(Acquire) {
            true => forget(),
            false => self.at_rest(|_| forget()),
        }
        self.generation()
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// What the shards have, cut while none of them works; `act` gets it before they go on. One at a time.
    fn at_rest<T>(&self, act: impl FnOnce(Cut) -> T) -> T {
        let (resume, wait) = bounded::<()>(0);
        let (reply, replies) = bounded(self.control.len());
        for control in &self.control {
            let _ = control.send(Control { reply: reply.clone(), resume: wait.clone() });
        }
        drop(reply);
        let mut whole = Cut { partials: vec![], ranges: vec![], behind: None, bytes: 0, uncounted: vec![] };
        for cut in replies {
            whole.partials.extend(cut.partials);
            whole.ranges.extend(cut.ranges);
            whole.bytes += cut.bytes;
            whole.uncounted.extend(cut.uncounted);
            whole.behind = [whole.behind, cut.behind].into_iter().flatten().min();
        }
        self.resting.store(true, Release);
        let done = act(whole);
        self.resting.store(false, Release);
        drop(resume);
        done
    }

    /// Ends the threads when all jobs sent so far are done, and gives what they had last.
    pub fn stop(mut self) -> Cut {
        while self.waiting() > 0 {
            std::thread::yield_now();
        }
        let cut = self.cut(0, self.dedupe.read().unwrap_or_else(PoisonError::into_inner).span_ms());
        self.jobs.clear();
        self.control.clear();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        cut
    }

    /// For each shard the events counted since the start, and the batches that wait for it.
    pub fn each(&self) -> impl Iterator<Item = (u64, u64)> {
        self.queues.iter().map(|queue| (queue.events.load(Relaxed), queue.waiting()))
    }

    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting() as usize).sum()
    }

    /// All that was sent so far.
    pub fn mark(&self) -> Mark {
        Mark(self.queues.iter().map(|queue| queue.sent.load(Acquire)).collect())
    }

    /// Waits until all that was sent before the mark is done.
    pub fn wait_for(&self, mark: &Mark) {
        while self.queues.iter().zip(&mark.0).any(|(queue, sent)| queue.done.load(Acquire) < *sent) {
            std::thread::park_timeout(WAIT_STEP);
        }
    }
}

/// A batch as a shard sees it.
pub fn input<'b>(batch: &'b RawBatch, address: Option<&'b str>, order: u64) -> Input<'b> {
    Input {
        buffer: &batch.bytes,
        len: batch.len,
        arrival: batch.messages.as_ref().map_or(Arrival::At(batch.arrival), Arrival::Each),
        order,
        address,
        user_agent: batch.client.user_agent.as_deref(),
    }
}

/// The line that begins there in a batch, by its place in its source.
pub fn uncounted(source: SourceId, position: u64, batch: &RawBatch, start: u32) -> Uncounted {
    match &batch.messages {
        None => (source, position, start),
        Some(messages) => {
            let message = messages.at(start);
            (source, messages.get(message).position, start - messages.start(message))
        }
    }
}

struct Worker {
    shard: Shard,
    active: Arc<ArcSwap<Active>>,
    dedupe: Arc<RwLock<Dedupe>>,
    generation: Arc<AtomicU64>,
    queue: Arc<Queue>,
    totals: Arc<Totals>,
    listener: Listener,
    ranges: BTreeMap<SourceId, SourceRange>,
    bytes: usize,
    uncounted: Vec<Uncounted>,
    /// Taken so far.
    batches: u64,
}

/// A shard that dies would leave its lanes uncounted: better to end, and to be started again from the journal.
struct Fuse;

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Worker {
    fn run(mut self, jobs: Receiver<Job>, control: Receiver<Control>) {
        let _fuse = Fuse;
        loop {
            select_biased! {
                recv(control) -> control => match control {
                    Ok(control) => {
                        let _ = control.reply.send(self.cut());
                        drop(control.reply);
                        // Ends when the sender is dropped.
                        let _ = control.resume.recv();
                    }
                    Err(_) => return,
                },
                recv(jobs) -> job => match job {
                    Ok(job) => self.process(job),
                    Err(_) => return,
                },
            }
        }
    }

    fn process(&mut self, job: Job) {
        if job.generation == self.generation.load(Acquire) {
            self.count(job);
        }
        self.queue.arrivals().pop_front();
        self.queue.done.fetch_add(1, AcqRel);
    }

    fn count(&mut self, job: Job) {
        let Job { source, from, to, batch, reply, .. } = job;
        self.batches += 1;
        {
            let active = self.active.load();
            if !Arc::ptr_eq(&active.definitions.plan, self.shard.plan()) {
                self.shard.adopt(active.definitions.plan.clone());
            }
        }
        let address = batch.client.address.map(|address| address.to_string());
        let input = input(&batch, address.as_deref(), self.batches << 24);
        let ids = self.dedupe.clone();
        let dedupe = ids.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(reply, Reply::IdsOnly(_)) {
            drop(self.shard.judge(&input, &mut &*dedupe));
        } else {
            let mut report = self.shard.process(&input, &mut &*dedupe);
            let starts = std::mem::take(&mut report.uncounted);
            self.uncounted.extend(starts.iter().map(|start| uncounted(source, from, &batch, *start)));
            self.note(source, from, to, &batch);
            if !matches!(reply, Reply::Nobody) {
                self.totals.counted.fetch_add(report.counted, Relaxed);
                self.queue.events.fetch_add(report.counted, Relaxed);
                self.totals.rejected.fetch_add(report.rejected, Relaxed);
                self.totals.late.fetch_add(report.late, Relaxed);
                self.totals.duplicates.fetch_add(report.duplicates, Relaxed);
                (self.listener)(source, &batch, &report);
            }
            if let Reply::To(sender, reserved) = reply {
                // Whoever waited may have gone.
                let _ = sender.send(report);
                drop(reserved);
            }
        }
        if dedupe.wants_room() {
            drop(dedupe);
            // Waits for the others to end the batch they are at.
            ids.write().unwrap_or_else(PoisonError::into_inner).make_room();
        }
    }

    fn note(&mut self, source: SourceId, from: u64, to: u64, batch: &RawBatch) {
        self.bytes += batch.len;
        let fresh = SourceRange { group: GROUP_ALL, source, from, to, arrival: batch.arrival };
        let range = self.ranges.entry(source).or_insert(fresh);
        range.to = to;
        range.arrival = range.arrival.max(batch.arrival);
    }

    fn cut(&mut self) -> Cut {
        let behind = self.queue.arrivals().iter().min().copied();
        Cut {
            partials: self.shard.cut(),
            ranges: std::mem::take(&mut self.ranges).into_values().collect(),
            behind,
            bytes: std::mem::take(&mut self.bytes),
            uncounted: std::mem::take(&mut self.uncounted),
        }
    }
}
