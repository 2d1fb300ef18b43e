//! Wires it all: shard threads, the journal's writer, the tick, checkpoints, reload.

mod border;
pub mod demo;
mod demo_feed;
pub mod host;
mod recover;
mod reload;
pub mod replay;
mod shards;
mod status;
mod tick;
mod watch;
