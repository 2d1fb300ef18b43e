//! The hot store of many hosts: Redis holds the state with the positions, every host mirrors in memory what it serves.
//!
//! Written by `apply` in numbers that Redis decides (`place`), read through `mirror`. All keys share one hash tag. What others
//! can read is in docs/redis.md. Knows cells, positions and time; not what a metric means.
//!
//! Every command has a deadline. A Redis that does not answer, is full or takes no writes is `StoreError::Unavailable`: the
//! delta waits here and the next call tries again; queries are answered from the mirror meanwhile.

mod apply;
mod forget;
mod hll;
mod hosts;
mod lease;
mod link;
mod mirror;
mod pack;
mod parts;
mod place;
mod raw;
mod read;
mod readable;
#[cfg(test)]
mod real_redis;
mod shape;
mod subscribe;
mod told;
mod translate;
mod value;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apply::{Touched, WAITING_DELTAS_MAX, Waiting, Writer, positions};
use link::{Function, Link};
use mirror::Mirror;
use pack::Pack;
use place::Places;
use readable::Readable;

pub use hosts::Others;
pub use lease::Lease;
pub use raw::{RawPlace, RawPlaces};
pub use readable::KEPT_S as READABLE_KEPT_S;
pub use subscribe::Subscription;

use super::memory::MemoryStore;
use super::{HotStore, Position, ReadAnswer, ReadRequest, Seq, StateReader, StoreError};
use crate::engine::delta::{Delta, SourceId, Uncounted};
use crate::engine::plan::Fingerprint;
use crate::time::{Clock, Millis, Minute};

/// Where hosts tell each other that something changed.
const CHANNEL: &str = "changes";

#[derive(Clone, Debug)]
pub struct Settings {
    /// As in `redis://host:6379/0` or `unix:///run/redis.sock`.
    pub url: String,
    /// Before every key, in braces: the hash tag.
    pub prefix: String,
    /// A command that takes longer has failed.
    pub deadline_ms: u64,
    pub clock: Clock,
}

impl Settings {
    pub fn new(url: impl Into<String>, clock: Clock) -> Self {
        Self { url: url.into(), prefix: "tidemark".into(), deadline_ms: 2_000, clock }
    }

    /// The name of a key; of the prefix alone without parts.
    fn key(&self, parts: &[&str]) -> String {
        let mut key = format!("{{{}}}", self.prefix);
        for part in parts {
            key.push(':');
            key.push_str(part);
        }
        key
    }
}

pub struct RedisStore {
    writer: Mutex<Writer>,
    mirror: Mutex<Mirror>,
    /// The mirror's, for reading without waiting for a sync.
    memory: Arc<MemoryStore>,
    problem: Mutex<Option<String>>,
    /// The mirror was begun anew.
    restarted: AtomicBool,
    readable: Mutex<Readable>,
    /// Its own connection: nobody waits for raw events.
    raw: Mutex<Link>,
    /// This host needs no minute before it.
    need_from: AtomicU32,
    /// No other host that is here does, as of when they last met.
    others_need_from: AtomicU32,
    settings: Settings,
}

impl RedisStore {
    /// Connects, refuses a Redis that cannot keep the promises, and reads what is there.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        let link = Link::open(settings.clone())?;
        let mirror = Mirror::new(Link::open(settings.clone())?);
        let raw = Mutex::new(Link::open(settings.clone())?);
        let writer = Writer {
            link,
            places: Places::default(),
            epochs: Default::default(),
            waiting: VecDeque::new(),
            dropped_cells: 0,
            over: 0,
        };
        let memory = mirror.store.clone();
        let store = Self {
            writer: Mutex::new(writer),
            mirror: Mutex::new(mirror),
            memory,
            problem: Mutex::default(),
            restarted: AtomicBool::new(false),
            readable: Mutex::default(),
            raw,
            need_from: AtomicU32::new(0),
            others_need_from: AtomicU32::new(0),
            settings,
        };
        store.sync()?;
        store.restarted.store(false, Relaxed);
        Ok(store)
    }

    /// The copy that answers queries.
    pub fn mirror(&self) -> Arc<MemoryStore> {
        self.memory.clone()
    }

    /// Brings the mirror up to what Redis has. What it had answers on if Redis does not.
    pub fn sync(&self) -> Result<Seq, StoreError> {
        let outcome = self.lock_mirror().sync();
        match &outcome {
            Ok(true) => self.restarted.store(true, Relaxed),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the mirror is not up to date"),
        }
        self.note(outcome.as_ref().err());
        outcome.map(|_| HotStore::seq(&*self.memory))
    }

    fn note(&self, error: Option<&StoreError>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = error.map(ToString::to_string);
    }

    /// Why the mirror is not up to date; `None`: it is.
    pub fn stale(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This host alone applies deltas of these sources from now on. Its epoch for them.
    pub fn take_over(&self, sources: &[SourceId]) -> Result<u64, StoreError> {
        let mut writer = self.lock_writer();
        let mut packed = Pack::default();
        packed.array(sources.len());
        for source in sources.iter() {
            packed.bytes(source.to_string());
        }
        let epoch = value::number(&writer.link.call(Function::Own, &[&packed.0])?)?;
        writer.epochs.extend(sources.iter().map(|&source| (source, epoch)));
        Ok(epoch)
    }

    /// Deltas that Redis has not answered to yet. While there are any, the next one is better not cut.
    pub fn waiting(&self) -> usize {
        self.lock_writer().waiting.len()
    }

    /// Brings in what waits.
    pub fn settle(&self) -> Result<(), StoreError> {
        let delivered = self.lock_writer().deliver();
        self.note_delivery(delivered).map(drop)
    }

    /// No event of these sources, where they are this host's, will come for minutes before the given one. The first minute that
    /// is not closed: all sources of all hosts are past those before it. `of`: `None` are all that were taken over.
    pub fn close_up_to(&self, minute: Minute, of: Option<&[SourceId]>) -> Result<Minute, StoreError> {
        let mut writer = self.lock_writer();
        let mut packed = Pack::default();
        let named = |source: &SourceId| of.is_none_or(|of| of.contains(source));
        let epochs: Vec<_> = writer.epochs.iter().filter(|(source, _)| named(source)).collect();
        packed.array(epochs.len());
        for (source, epoch) in epochs {
            packed.array(3).bytes(source.to_string()).bytes(epoch.to_string()).number(u64::from(minute.0));
        }
        let closed = Minute(value::number(&writer.link.call(Function::Close, &[&packed.0])?)?);
        drop(writer);
        if closed > StateReader::provisional_from(&*self.memory) {
            // With what was counted of those minutes: nobody is shown a closed one that still lacks what another host has brought.
            self.sync()?;
        }
        Ok(closed)
    }

    /// Where sources go on that were never seen before, if not at 0: at what the log has first.
    pub fn begin(&self, sources: &[Position]) -> Result<(), StoreError> {
        let mut packed = Pack::default();
        packed.array(sources.len());
        for at in sources {
            packed.array(4).bytes(at.group.to_string()).bytes(at.source.to_string());
            packed.bytes(at.next.to_string()).bytes(at.arrival.to_string());
        }
        self.lock_writer().link.call(Function::Begin, &[&packed.0]).map(drop)
    }

    /// The log that the positions speak of. Another one's positions would mean something else: refused.
    pub fn bind(&self, log: &str) -> Result<(), StoreError> {
        let bound = self.lock_writer().link.call(Function::Bind, &[log.as_bytes()])?;
        let bound = value::text(&bound)?;
        if bound != log {
            return Err(StoreError::Engine(format!(
                "the counts in this Redis under `{}` are of another log ({bound}, this is {log})",
                self.settings.prefix
            )));
        }
        Ok(())
    }

    /// Drops minutes that no host needs. No event can come for those before `before`, as far as this host knows, nor does it
    /// read them. `writes`: it is this host that writes history, and it needs what is not written. Others are told with the
    /// next `meet`; what they need is as of the last.
    pub fn forget_unneeded(&self, before: Minute, writes: bool) -> Result<(), StoreError> {
        let needed = if writes { self.memory.written_before(before) } else { before };
        self.need_from.store(needed.0, Relaxed);
        if writes {
            let floor = self.memory.evict(needed.min(Minute(self.others_need_from.load(Relaxed))));
            if floor > self.complete_from() {
                self.forget_before(floor)?;
            }
        }
        Ok(())
    }

    /// Where the state in Redis is whole, as of the last sync.
    fn complete_from(&self) -> Minute {
        self.lock_mirror().complete_from
    }

    /// Drops minutes before `before`, which history has and no host needs. Where the state is whole from then on.
    pub fn forget_before(&self, before: Minute) -> Result<Minute, StoreError> {
        self.sync()?;
        let floor = forget::forget_before(&mut self.lock_writer().link, before)?;
        let Some(floor) = floor else { return Ok(self.complete_from()) };
        self.lock_writer().places.forget_before(floor.day());
        self.sync()?;
        Ok(floor)
    }

    /// Writes what others read of what changed since the last call. How many panes that were.
    pub fn write_readable(&self) -> Result<usize, StoreError> {
        let shapes = self.lock_mirror().shapes.clone();
        let mut readable = self.readable.lock().unwrap_or_else(PoisonError::into_inner);
        readable.write(&mut self.lock_writer().link, &self.memory, &shapes)
    }

    /// Says that this host is here, measures by the definitions with this digest, needs what it needs, and whether it has as
    /// much history waiting as it may (`full`). What the others say.
    pub fn meet(&self, host: &str, digest: &str, full: bool, now: Millis) -> Result<Others, StoreError> {
        let said = hosts::Said { digest, need_from: Minute(self.need_from.load(Relaxed)), full };
        let others = hosts::meet(&mut self.lock_writer().link, host, &said, now)?;
        self.others_need_from.store(others.need_from.0, Relaxed);
        Ok(others)
    }

    /// This host ends: others do not wait for it.
    pub fn leave(&self, host: &str) -> Result<(), StoreError> {
        hosts::leave(&mut self.lock_writer().link, host)
    }

    /// `None`: another host does this job.
    pub fn take(&self, lease: &Lease) -> Result<Option<u64>, StoreError> {
        lease.take(&mut self.lock_writer().link)
    }

    pub fn give_back(&self, lease: &Lease) -> Result<(), StoreError> {
        lease.give_back(&mut self.lock_writer().link)
    }

    /// Reads what other hosts change as soon as it hears of it, as long as what this gives is kept.
    pub fn listen(self: &Arc<Self>) -> Result<Subscription, StoreError> {
        let store = self.clone();
        self.subscribe(move |seq| {
            if store.is_news(seq) {
                let _ = store.sync();
            }
        })
    }

    /// Its own changes are there already. While Redis does not answer only the tick asks: what was heard before would wait for
    /// as many deadlines, and the tick behind each for the mirror.
    fn is_news(&self, seq: Seq) -> bool {
        self.stale().is_none() && (seq == 0 || seq > HotStore::seq(self))
    }

    /// Calls `heard` when another host, or this one, has changed something, and when that may have been missed.
    fn subscribe(&self, heard: impl Fn(Seq) + Send + 'static) -> Result<Subscription, StoreError> {
        subscribe::subscribe(self.settings.clone(), self.settings.key(&[CHANNEL]), heard)
    }

    /// Cells that came for minutes that were dropped already.
    pub fn dropped_cells(&self) -> u64 {
        self.lock_writer().dropped_cells
    }

    /// Combinations of this host's events that a metric's limit did not keep, counted once a delta.
    pub fn over(&self) -> u64 {
        self.lock_writer().over
    }

    /// Whether Redis was emptied, restarted or replaced since this was last asked: positions may have gone back, and nobody may
    /// own the sources any more.
    pub fn began_again(&self) -> bool {
        self.restarted.swap(false, Relaxed)
    }

    /// Applies a delta, and keeps with it which of its lines were not counted, for those who send raw events; `None`: nobody
    /// does.
    ///
    /// `Unavailable`: the delta waits here for the next call; the caller goes on behind it. All other errors: it is dropped, and
    /// with it what waited; the sources are to be read again from the stored positions.
    pub fn apply_with(&self, delta: Delta, uncounted: Option<Vec<Uncounted>>) -> Result<Seq, StoreError> {
        let mut writer = self.lock_writer();
        if writer.waiting.len() >= WAITING_DELTAS_MAX {
            return Err(StoreError::Unavailable(format!(
                "{WAITING_DELTAS_MAX} deltas wait already: this one is dropped"
            )));
        }
        writer.waiting.push_back(Waiting::new(delta, uncounted));
        let delivered = writer.deliver();
        drop(writer);
        Ok(self.note_delivery(delivered)?.unwrap_or_else(|| HotStore::seq(&*self.memory)))
    }

    fn note_delivery(&self, delivered: Result<Option<(Seq, Touched)>, StoreError>) -> Result<Option<Seq>, StoreError> {
        let delivered = delivered.inspect_err(|error| self.note(Some(error)))?;
        let Some((seq, touched)) = delivered else { return Ok(None) };
        // It is in: what fails from here on is only seen later.
        if self.sync().is_ok() && !touched.is_empty() {
            self.publish(seq, &touched);
        }
        Ok(Some(seq))
    }

    /// A hint for others to look.
    fn publish(&self, seq: Seq, touched: &Touched) {
        let message = serde_json::json!({ "seq": seq, "metrics": touched }).to_string();
        let mut writer = self.lock_writer();
        if let Err(error) = writer.link.query(redis::cmd("PUBLISH").arg(self.settings.key(&[CHANNEL])).arg(message)) {
            tracing::debug!(%error, "others are not told of a change");
        }
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HotStore for RedisStore {
    fn positions(&self) -> Result<Vec<Position>, StoreError> {
        positions(&mut self.lock_writer().link)
    }

    fn apply(&self, delta: Delta) -> Result<Seq, StoreError> {
        self.apply_with(delta, None)
    }

    fn seq(&self) -> Seq {
        HotStore::seq(&*self.memory)
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        HotStore::changed_since(&*self.memory, fingerprints, since)
    }
}

impl StateReader for RedisStore {
    fn read(&self, request: &ReadRequest) -> Result<ReadAnswer, StoreError> {
        self.memory.read(request)
    }

    fn seq(&self) -> Seq {
        HotStore::seq(&*self.memory)
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        HotStore::changed_since(&*self.memory, fingerprints, since)
    }

    fn dimension_values(&self, dimension: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.memory.dimension_values(dimension, limit)
    }

    fn provisional_from(&self) -> Minute {
        self.memory.provisional_from()
    }
}
