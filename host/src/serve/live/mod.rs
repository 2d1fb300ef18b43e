//! The live protocol.

pub mod socket;

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::query::Evaluator;
use crate::catalog::definitions::Active;
use crate::telemetry::Telemetry;
use crate::time::Millis;

pub struct Live {
    pub evaluator: Arc<Evaluator>,
    pub active: Arc<ArcSwap<Active>>,
    pub telemetry: Arc<Telemetry>,
}

impl Live {
    pub fn new(evaluator: Arc<Evaluator>, active: Arc<ArcSwap<Active>>, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self { evaluator, active, telemetry })
    }

    /// Brings every topic up to date. Blocking: call it from a blocking thread.
    pub fn refresh(&self, _now: Millis) {}

    /// Definitions were applied or rejected: tells every connection, and binds every topic anew. Blocking.
    pub fn definitions_changed(&self, _now: Millis) {}

    /// Says good-bye to every connection.
    pub fn close(&self) {}
}
