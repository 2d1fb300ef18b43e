//! The only user of wasmtime: loads components, runs them under limits, counts what they cost. Does not know what the
//! definitions are for, nor what an event is: rows of text in, columns out; points in, a verdict out.

mod abi;
mod component;
mod detector;
mod enricher;
mod files;
mod guest;
mod health;
mod limits;
mod registry;
mod sandbox;
mod shape;

pub use health::FailureKind;
pub use limits::Limits;
pub use registry::{PluginStatus, Registry, State};
pub use sandbox::StartError;
