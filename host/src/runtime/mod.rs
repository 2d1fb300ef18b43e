//! Wires it all: shard threads, the log, the tick, checkpoints, reload.

mod alerts;
mod backfill;
mod border;
mod corrections;
pub mod demo;
mod demo_feed;
mod examples;
pub mod host;
mod hot;
mod kafka;
mod log;
mod raw;
mod recover;
mod reload;
pub mod replay;
pub mod roles;
mod sample;
mod shards;
mod status;
mod tick;
mod waiting;
mod watch;
