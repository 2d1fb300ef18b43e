//! The synchronous heart: bytes in, partial aggregates out.
//!
//! Knows nothing of async, HTTP, files, JSON libraries, wasmtime, locks or the clock: time and plugins are arguments.

pub mod arith;
mod atomics;
pub mod extension;
pub mod memo;
pub mod plan;

pub mod decode;
pub mod timestamp;

pub mod dedupe;
pub mod judge;
pub mod messages;
pub mod report;
pub mod screen;

pub mod column;
pub mod dictionary;
pub mod enrich;

pub mod filter;

pub mod accumulator;
pub mod group;
pub mod sketch;
pub mod summary;

pub mod delta;
pub mod merge;
pub mod shard;
pub mod slide;
