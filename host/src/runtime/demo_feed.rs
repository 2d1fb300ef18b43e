//! Demo traffic through the same log as any other: first what is missing of the last days, then live.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::demo::{Batch, Demo, fill_range};
use super::log::Log;
use crate::engine::decode::PADDING_BYTES;
use crate::ingest::{Client, Intake, RawBatch, Refusal};
use crate::time::{Clock, MINUTE_MS, Millis};

const SEED: u64 = 20_261_124;
/// Events of one batch while filling, about.
const FILL_BATCH_EVENTS: f64 = 4_000.0;
const FILL_BATCHES_AT_ONCE: usize = 8;
const LIVE_EVERY_MS: Millis = 1_000;

/// Runs until `stop` says so. `last`: arrival of the newest event there is.
pub async fn run(
    log: Arc<Log>,
    rate: f64,
    last: Option<Millis>,
    clock: Clock,
    floor: Arc<AtomicI64>,
    mut stop: watch::Receiver<bool>,
) {
    let mut demo = Demo::new(SEED, rate);
    let range = fill_range(last, clock.now());
    let mut at = range.start;
    floor.store(at, Relaxed);
    let step = ((FILL_BATCH_EVENTS / rate * 1e3) as Millis).clamp(LIVE_EVERY_MS, 10 * MINUTE_MS);
    let step = step - step % LIVE_EVERY_MS;
    let mut under_way = JoinSet::new();
    let mut arrivals = std::collections::VecDeque::new();
    while at < range.end && !*stop.borrow() {
        let to = (at + step).min(range.end);
        let batch = demo.batch(at, to);
        if under_way.len() >= FILL_BATCHES_AT_ONCE {
            under_way.join_next().await;
            arrivals.pop_front();
        }
        arrivals.push_back(at);
        // Those under way may be done in any order: the oldest of as many is a safe floor.
        floor.store(arrivals.front().copied().unwrap_or(at), Relaxed);
        under_way.spawn(give(log.clone(), batch));
        at = to;
    }
    while under_way.join_next().await.is_some() {}
    floor.store(Millis::MAX, Relaxed);
    tracing::info!(events_per_s = rate, "demo: the past is filled, live from here on");
    while !*stop.borrow() {
        let to = clock.now() - clock.now() % LIVE_EVERY_MS;
        if to > at {
            give(log.clone(), demo.batch(at, to)).await;
            at = to;
        }
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(Duration::from_millis((at + LIVE_EVERY_MS - clock.now()).clamp(1, LIVE_EVERY_MS) as u64)) => {}
        }
    }
}

/// Asks again while the host is busy: the demo can wait.
async fn give(log: Arc<Log>, batch: Batch) {
    if batch.events == 0 {
        return;
    }
    let mut bytes = batch.lines.into_bytes();
    let len = bytes.len();
    bytes.resize(len + PADDING_BYTES, 0);
    let raw = RawBatch { bytes, len, zstd: None, arrival: batch.arrival, client: Client::default(), messages: None };
    loop {
        match log.submit(raw.clone()).await {
            Ok(_) => return,
            Err(Refusal::Busy { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(Refusal::Unavailable { reason, .. }) => {
                tracing::warn!(reason, "demo: a batch was refused");
                return;
            }
        }
    }
}
