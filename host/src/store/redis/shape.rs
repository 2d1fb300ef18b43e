//! What is kept beside a metric's state, so that a host that never saw its definition can read it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::translate::MetricPanes;
use crate::engine::plan::StateKind;
use crate::store::StoreError;
use crate::store::memory::MetricShape;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub name: String,
    pub dimensions: Vec<Arc<str>>,
    pub kinds: Vec<StateKind>,
    pub margins: bool,
    pub limit: u32,
}

impl Shape {
    pub fn new(metric: &MetricPanes) -> Self {
        let MetricShape { dimensions, kinds, margins, limit, .. } = metric.shape.clone();
        Self { name: metric.name.clone(), dimensions, kinds, margins, limit }
    }

    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes)
            .map_err(|error| StoreError::Corrupt(format!("a metric's shape in Redis is damaged: {error}")))
    }

    pub fn of_memory(&self) -> MetricShape {
        let Self { name, dimensions, kinds, margins, limit } = self.clone();
        MetricShape { name: name.into(), dimensions, kinds, margins, limit }
    }
}
