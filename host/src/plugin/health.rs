//! What a plugin cost and how often it failed; when it is not called any more.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use super::component::plugin_error;
use super::limits::FAILURES_IN_A_ROW_MAX;
use crate::engine::extension::PluginError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    Trap,
    Deadline,
    Memory,
    Output,
    Shape,
    Start,
}

/// A call that gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    pub fn shape(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Shape, message: message.into() }
    }

    /// As the reason not to take up the plugin.
    pub fn of(self, plugin: &str) -> PluginError {
        plugin_error(format!("{plugin} {}", self.message), None)
    }
}

#[derive(Default)]
pub struct Health {
    calls: AtomicU64,
    rows: AtomicU64,
    ns: AtomicU64,
    failures_in_a_row: AtomicU32,
    quarantined: AtomicBool,
    failures: Mutex<Failures>,
}

#[derive(Clone, Default)]
pub struct Failures {
    pub by_kind: BTreeMap<FailureKind, u64>,
    pub last: Option<String>,
}

impl Failures {
    pub fn total(&self) -> u64 {
        self.by_kind.values().sum()
    }
}

impl Health {
    pub fn is_quarantined(&self) -> bool {
        self.quarantined.load(Relaxed)
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    pub fn ns_per_row(&self) -> u64 {
        self.ns.load(Relaxed) / self.rows().max(1)
    }

    pub fn failures(&self) -> Failures {
        lock(&self.failures).clone()
    }

    /// Books a call and unwraps its answer.
    pub fn book<R>(&self, name: &str, rows: u64, took: Duration, outcome: Result<R, Failure>) -> Option<R> {
        self.calls.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows, Relaxed);
        self.ns.fetch_add(took.as_nanos() as u64, Relaxed);
        match outcome {
            Ok(answer) => {
                // Looked at before it is written: shards would pass the line between them at every call.
                if self.failures_in_a_row.load(Relaxed) != 0 {
                    self.failures_in_a_row.store(0, Relaxed);
                }
                Some(answer)
            }
            Err(failure) => {
                self.failed(name, failure);
                None
            }
        }
    }

    fn failed(&self, plugin: &str, failure: Failure) {
        let in_a_row = self.failures_in_a_row.fetch_add(1, Relaxed) + 1;
        let mut failures = lock(&self.failures);
        *failures.by_kind.entry(failure.kind).or_default() += 1;
        let total = failures.total();
        // 1, 2, 4, 8, …: enough to see, never a flood.
        if total.is_power_of_two() {
            tracing::warn!(plugin, failures = total, "plugin failed, its output is null: {}", failure.message);
        }
        if in_a_row >= FAILURES_IN_A_ROW_MAX && !self.quarantined.swap(true, Relaxed) {
            tracing::error!(plugin, "plugin failed {in_a_row} times in a row: not called again until its file changes");
        }
        failures.last = Some(failure.message);
    }
}

/// A thread that panicked while it held the lock left nothing half done here.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
