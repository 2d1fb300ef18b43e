//! Wires it all: shard threads, the tick, checkpoints, reload.

pub mod demo;
pub mod replay;
