//! The only user of wasmtime: loads components, runs them under limits, counts what they cost.
