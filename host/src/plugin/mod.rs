//! The only user of wasmtime: loads components, runs them under limits, counts what they cost. Does not know what the
//! definitions are for, nor what an event is: rows of text in, columns out; points in, a verdict out.

mod abi;
mod batch;
mod component;
mod described;
mod detector;
mod enricher;
mod files;
mod guest;
mod health;
mod limits;
mod registry;
mod sandbox;
mod shape;
mod workbench;

pub use component::Kind;
pub use described::Described;
pub use detector::DetectorPlugin;
pub use enricher::EnricherPlugin;
pub use health::{Failure, FailureKind};
pub use limits::Limits;
pub use registry::{PluginStatus, Registry, State};
pub use sandbox::StartError;
pub use workbench::Workbench;
