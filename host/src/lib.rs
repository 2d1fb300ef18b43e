//! Tidemark, a plugin host for real-time analytics. Modules stand in the order data flows; see ARCHITECTURE.md.

pub mod time;

pub mod engine;
pub mod telemetry;
pub mod web;

pub mod alert;
pub mod anomaly;
pub mod catalog;
pub mod ingest;
pub mod plugin;
pub mod store;

pub mod serve;

pub mod runtime;

pub mod cli;
