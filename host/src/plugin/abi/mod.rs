//! The plugin interface, one module a version. Knows what the bindings generate and nothing of limits or files.

pub mod v0_1;
