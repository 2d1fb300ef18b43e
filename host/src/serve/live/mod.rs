//! The live protocol: topics that equal subscriptions share, refreshed from what changed, told to every client as fast as it
//! reads. Does not know what made the numbers change.

mod frame;
mod history;
mod model;
mod request;
mod session;
pub mod socket;
mod stream;
pub mod threads;
mod topic;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Semaphore, watch};

use super::query::Evaluator;
use crate::catalog::definitions::Active;
use crate::telemetry::Telemetry;
use crate::time::{MINUTE_MS, Millis};
use crate::web::ApiError;
use frame::Frame;
use request::TopicKey;
use topic::Topic;

const TOPICS_MAX: usize = 5_000;
const REFRESH_THREADS_MAX: usize = 4;
/// A topic that nobody listens to is kept for so long, for those who lost their connection and come back.
const ALONE_MAX_MS: Millis = 2 * MINUTE_MS;

pub struct Live {
    evaluator: Arc<Evaluator>,
    active: Arc<ArcSwap<Active>>,
    pub telemetry: Arc<Telemetry>,
    topics: Mutex<HashMap<TopicKey, Arc<Topic>>>,
    /// Grows whenever there is something new to tell every client, whatever it listens to.
    changed: watch::Sender<u64>,
    /// What was last told about definitions, and how many times something was.
    definitions: ArcSwapOption<(u64, Frame)>,
    /// Whether the numbers may be old, what was last told about it, and how many times something was.
    stale: ArcSwapOption<(bool, u64, Frame)>,
    closing: watch::Sender<bool>,
    /// Topics are computed and encoded for those who have just asked by so many at a time.
    turns: Semaphore,
    /// Other hosts give change numbers of the same store.
    shared_seq: bool,
    /// When the last refresh of all began, and the store's change number then.
    refreshed: Mutex<(Millis, u64)>,
    /// Change numbers from here on were told by no topic that is gone, nor by this host before it was started again.
    untold: AtomicU64,
}

impl Live {
    pub fn new(
        evaluator: Arc<Evaluator>,
        active: Arc<ArcSwap<Active>>,
        telemetry: Arc<Telemetry>,
        shared_seq: bool,
    ) -> Arc<Self> {
        let untold = evaluator.reader.seq().into();
        Arc::new(Self {
            evaluator,
            active,
            telemetry,
            topics: Mutex::default(),
            changed: watch::Sender::new(0),
            definitions: ArcSwapOption::empty(),
            stale: ArcSwapOption::empty(),
            closing: watch::Sender::new(false),
            turns: Semaphore::new(threads()),
            shared_seq,
            refreshed: Mutex::default(),
            untold,
        })
    }

    /// Brings every topic up to date, and lets go of those nobody listens to. Blocking: call it from a blocking thread.
    pub fn refresh(&self, now: Millis) {
        let started = std::time::Instant::now();
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = (now, self.evaluator.reader.seq());
        let topics: Vec<Arc<Topic>> = {
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            let before = topics.len();
            topics.retain(|_, topic| Arc::strong_count(topic) > 1 || topic.rest(now) < ALONE_MAX_MS);
            if topics.len() < before {
                self.note_told();
            }
            topics.values().filter(|topic| Arc::strong_count(topic) > 1).cloned().collect()
        };
        // Who listens to a topic is woken as soon as it is computed: what is written spreads over the time of computing, in the
        // same order each time.
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(topic) = topics.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.refresh_topic(topic, now);
            }
        };
        let threads = threads().min(topics.len());
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        self.telemetry.serve.live_topics.set(topics.len() as i64);
        self.telemetry.serve.refresh_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Definitions were applied or rejected: tells every client, and asks every topic anew. Blocking.
    pub fn definitions_changed(&self, now: Millis) {
        let told = frame::definitions(&self.active.load());
        let number = self.definitions_number() + 1;
        self.definitions.store(Some(Arc::new((number, told))));
        self.wake();
        self.refresh(now);
    }

    /// Why the numbers may be old; `None`: they are not. Clients are told when that changes. One caller at a time.
    pub fn set_stale(&self, why: Option<String>, now: Millis) {
        let (was, number) = self.stale.load().as_ref().map_or((false, 0), |told| (told.0, told.1));
        if was != why.is_some() {
            let told = frame::stale(why.as_deref().map(|reason| (now, reason)));
            self.stale.store(Some(Arc::new((why.is_some(), number + 1, told))));
            self.wake();
        }
    }

    /// When the last refresh of all began (0: none yet), and the store's change number then.
    pub fn refreshed(&self) -> (Millis, u64) {
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every connection says good-bye.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn wake(&self) {
        self.changed.send_modify(|times| *times += 1);
    }

    fn refresh_topic(&self, topic: &Topic, now: Millis) {
        let untold = (!self.shared_seq).then(|| self.untold.load(Ordering::Relaxed));
        let refresh = || topic.refresh(&self.evaluator, &self.active.load_full(), untold, now);
        // A broken invariant costs those who listen to this topic, who are told, and no other topic its refresh.
        if catch_unwind(AssertUnwindSafe(refresh)).is_err() {
            tracing::error!(metric = topic.key.subject.metric, "a subscription cannot be computed");
            topic.fail(ApiError::internal("this subscription cannot be computed"));
        }
    }

    /// A topic goes: what it has told is no more than the store has.
    fn note_told(&self) {
        self.untold.fetch_max(self.evaluator.reader.seq() + 1, Ordering::Relaxed);
    }

    /// The topic of this key, and whether it has to be brought up to date first.
    fn topic(&self, key: TopicKey) -> Result<(Arc<Topic>, bool), ApiError> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(&key) {
            if !topic.has_failed() {
                return Ok((topic.clone(), topic.awake()));
            }
            self.note_told();
        }
        if topics.len() >= TOPICS_MAX {
            topics.retain(|_, topic| Arc::strong_count(topic) > 1);
            self.note_told();
        }
        if topics.len() >= TOPICS_MAX {
            let message = format!("there are {TOPICS_MAX} different subscriptions already");
            return Err(ApiError::unavailable(message, 30));
        }
        let topic = Arc::new(Topic::new(key.clone()));
        topics.insert(key, topic.clone());
        Ok((topic, true))
    }

    /// What is to be told to a client that knows of `number`. One that knows of nothing takes the numbers for fresh.
    fn stale_after(&self, number: u64) -> Option<(u64, Frame)> {
        let told = self.stale.load();
        let told = told.as_ref().filter(|told| told.1 > number && (told.0 || number > 0))?;
        Some((told.1, told.2.clone()))
    }

    fn definitions_number(&self) -> u64 {
        self.definitions.load().as_ref().map_or(0, |told| told.0)
    }

    /// What is to be told to a client that knows of `number`.
    fn definitions_after(&self, number: u64) -> Option<(u64, Frame)> {
        let told = self.definitions.load();
        told.as_ref().filter(|told| told.0 > number).map(|told| (told.0, told.1.clone()))
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(REFRESH_THREADS_MAX)
}
