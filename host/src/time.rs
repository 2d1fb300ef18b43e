//! Time: Unix milliseconds, minutes and the clock. The only module that reads the wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

/// Unix milliseconds.
pub type Millis = i64;

pub const SECOND_MS: Millis = 1_000;
pub const MINUTE_MS: Millis = 60_000;
pub const HOUR_MS: Millis = 3_600_000;
pub const DAY_MS: Millis = 86_400_000;

/// A minute of event time, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Minute(pub u32);

impl Minute {
    /// The minute that holds `ms`; times before the epoch fall into the first.
    pub fn of(ms: Millis) -> Self {
        Self((ms.max(0) / MINUTE_MS).min(i64::from(u32::MAX)) as u32)
    }

    pub fn start(self) -> Millis {
        Millis::from(self.0) * MINUTE_MS
    }

    pub fn end(self) -> Millis {
        self.start() + MINUTE_MS
    }

    /// The UTC day it belongs to, counted from the epoch.
    pub fn day(self) -> u32 {
        self.0 / 1440
    }

    /// The first minute of its hour.
    pub fn hour(self) -> Self {
        Self(self.0 - self.0 % 60)
    }
}

/// Where "now" comes from: the system, or a value that tests set.
#[derive(Clone, Debug)]
pub enum Clock {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn manual(at: Millis) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(at)))
    }

    pub fn now(&self) -> Millis {
        match self {
            Self::System => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as Millis),
            Self::Manual(at) => at.load(Ordering::Acquire),
        }
    }

    /// Moves a manual clock; the system's stays.
    pub fn set(&self, at: Millis) {
        if let Self::Manual(now) = self {
            now.store(at, Ordering::Release);
        }
    }
}
