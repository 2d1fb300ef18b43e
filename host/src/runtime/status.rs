//! What the host tells about itself to those who serve it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::examples;
use super::log::Log;
use super::shards::Totals;
use super::tick::Ticker;
use crate::alert::Alerts;
use crate::catalog;
use crate::catalog::definitions::{Active, Definitions};
use crate::catalog::diagnostic::Diagnostic;
use crate::engine::plan::{Fingerprint, Plan};
use crate::plugin::{Registry, State};
use crate::serve::explain::{Example, Wanted};
use crate::serve::{Host, HostStatus, PluginStatus};
use crate::telemetry::Telemetry;
use crate::time::{Clock, Millis, Minute, SECOND_MS};

/// Events per second are the mean of the last so many seconds.
const RATE_OVER_MS: Millis = 10_000;
/// A tick that has not ended for so long, and three times its interval, stands still.
const TICK_WITHIN_MS: Millis = 10_000;

pub struct Status {
    pub started_at: Millis,
    pub tick_ms: Millis,
    pub clock: Clock,
    pub registry: Arc<Registry>,
    pub active: Arc<ArcSwap<Active>>,
    pub log: Arc<Log>,
    pub telemetry: Arc<Telemetry>,
    pub ticker: Arc<Ticker>,
    pub totals: Arc<Totals>,
    pub alerts: Arc<Alerts>,
    /// Set when all that was acknowledged before the start is visible.
    pub recovered: AtomicBool,
    /// Why the last tick, the last checkpoint failed.
    pub failures: Mutex<Failures>,
    /// Events counted, by time.
    pub history: Mutex<VecDeque<(Millis, u64)>>,
}

#[derive(Default)]
pub struct Failures {
    tick: Option<String>,
    checkpoint: Option<String>,
}

impl Status {
    /// After each checkpoint.
    pub fn note_checkpoint(&self, failure: Option<String>) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).checkpoint = failure;
    }

    /// After each tick.
    pub fn note(&self, now: Millis, failure: Option<String>) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).tick = failure;
        self.telemetry.ingest.queue_bytes.set(self.log.waiting_bytes() as i64);
        for (shard, (events, waiting)) in self.ticker.shards.each().enumerate() {
            self.telemetry.shards.set(shard, events, waiting);
        }
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push_back((now, self.totals.counted.load(Relaxed)));
        while history.len() > 2 && history.front().is_some_and(|(at, _)| now - at > RATE_OVER_MS) {
            history.pop_front();
        }
    }

    fn rate(&self) -> f64 {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        match (history.front(), history.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (after - before) as f64 * 1e3 / (to - from) as f64
            }
            _ => 0.0,
        }
    }
}

impl Status {
    /// How long ago the last tick ended, where that is too long.
    fn still_ms(&self) -> Option<Millis> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = self.clock.now() - history.back()?.0;
        (ago > TICK_WITHIN_MS + 3 * self.tick_ms).then_some(ago)
    }

    /// Hosts that measure by other definitions.
    fn differing(&self) -> Vec<String> {
        let short = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
        let here = short(&self.active.load().definitions.digest);
        let differs = |(host, digest): (&String, &String)| {
            format!(
                "host {host} measures by other definitions (digest {}, here {here}): until they agree, what differs counts only a part of the events",
                short(digest)
            )
        };
        self.ticker.differing.lock().unwrap_or_else(PoisonError::into_inner).iter().map(differs).collect()
    }
}

impl Host for Status {
    fn plugins(&self) -> Vec<PluginStatus> {
        let active = self.active.load();
        let used_by = |digest: &str| {
            let uses = active.definitions.plugin_uses.iter().filter(|used| used.digest == digest);
            uses.map(|used| used.table.clone()).collect()
        };
        let status = |it: crate::plugin::PluginStatus| PluginStatus {
            used_by: used_by(&it.digest),
            name: it.name,
            file: it.file,
            digest: it.digest,
            kind: it.kind.name().to_owned(),
            version: it.version,
            description: it.description,
            state: if it.state == State::Live { "live" } else { "quarantined" }.into(),
            calls: it.calls,
            rows: it.rows,
            memo_hits: it.memo_hits,
            memo_misses: it.memo_misses,
            ns_per_row: it.ns_per_row as f64,
            traps: it.traps,
            last_error: it.last_error,
        };
        self.registry.status().into_iter().map(status).collect()
    }

    fn status(&self) -> HostStatus {
        let now = self.clock.now();
        HostStatus {
            started_at: self.started_at,
            events_total: self.totals.counted.load(Relaxed),
            events_per_s: self.rate(),
            rejected_total: self.totals.rejected.load(Relaxed),
            late_total: self.totals.late.load(Relaxed),
            duplicates_total: self.totals.duplicates.load(Relaxed),
            lag_ms: (now - self.ticker.visible.load(Relaxed)).max(0),
        }
    }

    fn alerts(&self) -> serde_json::Value {
        self.alerts.status()
    }

    fn impaired(&self) -> Vec<String> {
        let behind = self.ticker.behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let history = behind.map(|reason| format!("history is not written: {reason}"));
        let raw = self.ticker.raw.as_ref().map(|raw| raw.problems()).unwrap_or_default();
        history.into_iter().chain(raw).chain(self.differing()).collect()
    }

    fn look(&self, definitions: &Definitions, condition: Option<&str>) -> Result<Plan, Vec<Diagnostic>> {
        // Who only serves or takes in sees no events.
        if !self.ticker.works {
            return Err(Vec::new());
        }
        catalog::look(&definitions.text, condition, &*self.registry)
    }

    fn corrections(&self, metrics: &[Fingerprint], minutes: Range<Minute>) -> u64 {
        self.ticker.corrections.count(metrics, minutes)
    }

    fn examples(&self, wanted: &Wanted<'_>) -> Vec<Example> {
        match &*self.log {
            Log::Journal { journal, .. } => examples::find(journal, wanted),
            Log::Kafka { .. } => Vec::new(),
        }
    }

    fn ready(&self) -> Result<(), String> {
        if !self.recovered.load(Relaxed) {
            return Err("recovering: what was acknowledged before the start is not all visible yet".into());
        }
        if let Some(problem) = self.log.problem() {
            return Err(format!("events cannot be made durable: {problem}"));
        }
        if let Some(reason) = self.ticker.history_waiting.problem() {
            return Err(format!("no more events are counted: {reason}"));
        }
        if let Some(still_ms) = self.still_ms() {
            return Err(format!("counting stands still: the last tick ended {} s ago", still_ms / SECOND_MS));
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.tick.as_ref().or(failures.checkpoint.as_ref()) {
            Some(failure) => Err(format!("state cannot be kept: {failure}")),
            None => Ok(()),
        }
    }
}
