//! The live protocol: topics that equal subscriptions share, refreshed from what changed, told to every client as fast as it
//! reads. Does not know what made the numbers change.

mod frame;
mod request;
mod session;
pub mod socket;
mod topic;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::extract::ws::Utf8Bytes;
use tokio::sync::watch;

use super::query::Evaluator;
use crate::catalog::definitions::Active;
use crate::telemetry::Telemetry;
use crate::time::Millis;
use crate::web::ApiError;
use request::TopicKey;
use topic::{Published, Topic};

const TOPICS_MAX: usize = 5_000;
const REFRESH_THREADS_MAX: usize = 4;

pub struct Live {
    evaluator: Arc<Evaluator>,
    active: Arc<ArcSwap<Active>>,
    pub telemetry: Arc<Telemetry>,
    topics: Mutex<HashMap<TopicKey, Arc<Topic>>>,
    /// Grows whenever sessions may have something new to send.
    changed: watch::Sender<u64>,
    /// What was last told about definitions, and how many times something was.
    definitions: ArcSwapOption<(u64, Utf8Bytes)>,
    /// Whether the numbers may be old, what was last told about it, and how many times something was.
    stale: ArcSwapOption<(bool, u64, Utf8Bytes)>,
    closing: watch::Sender<bool>,
}

impl Live {
    pub fn new(evaluator: Arc<Evaluator>, active: Arc<ArcSwap<Active>>, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self {
            evaluator,
            active,
            telemetry,
            topics: Mutex::default(),
            changed: watch::Sender::new(0),
            definitions: ArcSwapOption::empty(),
            stale: ArcSwapOption::empty(),
            closing: watch::Sender::new(false),
        })
    }

    /// Brings every topic up to date, and lets go of those nobody listens to. Blocking: call it from a blocking thread.
    pub fn refresh(&self, now: Millis) {
        let started = std::time::Instant::now();
        let topics: Vec<Arc<Topic>> = {
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.retain(|_, topic| Arc::strong_count(topic) > 1);
            topics.values().cloned().collect()
        };
        let (next, changed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            while let Some(topic) = topics.get(next.fetch_add(1, Ordering::Relaxed)) {
                changed.fetch_or(self.refresh_topic(topic, now), Ordering::Relaxed);
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(REFRESH_THREADS_MAX).min(topics.len());
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        self.telemetry.serve.live_topics.set(topics.len() as i64);
        self.telemetry.serve.refresh_seconds.observe(started.elapsed().as_secs_f64());
        if changed.into_inner() {
            self.wake();
        }
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

    /// Every connection says good-bye.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn wake(&self) {
        self.changed.send_modify(|times| *times += 1);
    }

    fn refresh_topic(&self, topic: &Topic, now: Millis) -> bool {
        topic.refresh(&self.evaluator, &self.active.load_full(), now)
    }

    /// The topic of this key, and whether it is new.
    fn topic(&self, key: TopicKey) -> Result<(Arc<Topic>, bool), ApiError> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(&key)
            && topic.published().is_none_or(|published| matches!(*published, Published::Version(_)))
        {
            return Ok((topic.clone(), false));
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
    fn stale_after(&self, number: u64) -> Option<(u64, Utf8Bytes)> {
        let told = self.stale.load();
        let told = told.as_ref().filter(|told| told.1 > number && (told.0 || number > 0))?;
        Some((told.1, told.2.clone()))
    }

    fn definitions_number(&self) -> u64 {
        self.definitions.load().as_ref().map_or(0, |told| told.0)
    }

    /// What is to be told to a client that knows of `number`.
    fn definitions_after(&self, number: u64) -> Option<(u64, Utf8Bytes)> {
        let told = self.definitions.load();
        told.as_ref().filter(|told| told.0 > number).map(|told| (told.0, told.1.clone()))
    }
}
