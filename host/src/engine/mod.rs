//! The synchronous heart: bytes in, partial aggregates out.
//!
//! Knows nothing of async, HTTP, files, JSON libraries, wasmtime, locks or the clock: time and plugins are arguments.

pub mod arith;
pub mod decode;
pub mod delta;
pub mod extension;
pub mod memo;
pub mod plan;
pub mod sketch;
