//! What is kept beside a metric's state, so that a host that never saw its definition can read it: JSON.

use crate::store::StoreError;
use crate::store::memory::MetricShape;

pub fn encode(shape: &MetricShape) -> Result<String, StoreError> {
    serde_json::to_string(shape).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub fn decode(bytes: &[u8]) -> Result<MetricShape, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("a metric's shape in Redis is damaged: {error}")))
}
