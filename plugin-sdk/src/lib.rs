//! Write Tidemark plugins in Rust: implement [`Enricher`] or [`Detector`], name the type in [`export_enricher!`] or
//! [`export_detector!`], and build for `wasm32-unknown-unknown`. The plugin's name, version and description are those
//! of its Cargo.toml.
//!
//! The crate carries one version of the plugin interface (`wit/v0_1`) and keeps it out of sight: columns, UTF-8,
//! nulls and the sandbox's calling convention are handled here. It does not know the host: everything it says about
//! limits and caching is the interface's word, not its own doing.

extern crate self as tidemark_plugin;

mod bindings;
mod column;
mod detector;
mod enricher;
mod settings;
mod span;
mod suggest;

pub mod host;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use column::{Out, Row, Text};
pub use detector::{Detector, Point, Verdict, Window};
pub use enricher::Enricher;
pub use serde;
pub use serde_json;
pub use settings::{Config, Settings};
pub use span::span;

/// For the export macros only.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::{detector as detector_world, enricher as enricher_world};
    pub use crate::detector::DetectorSlot;
    pub use crate::enricher::EnricherSlot;
    pub use wit_bindgen;

    /// What the plugin's Cargo.toml says about it.
    pub struct About {
        pub name: &'static str,
        pub version: &'static str,
        pub description: &'static str,
    }
}

// The README's Rust code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
