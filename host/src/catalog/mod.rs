//! `metrics.toml` to `Definitions`: as typed, valid, compiled. Knows no HTTP and no stores.

pub mod definitions;
pub mod diagnostic;
