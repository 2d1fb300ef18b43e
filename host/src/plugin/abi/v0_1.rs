//! `tidemark:plugin@0.1.0`: bindings generated from the WIT, and the names it gives its kinds and imports. Frozen.
//! The generated code reads the guest's memory through `unsafe`; nothing else in `plugin/` may.

#![allow(unsafe_code)]

pub const PACKAGE: &str = "tidemark:plugin/";
pub const VERSION: &str = "0.1.0";
pub const ENRICHER: &str = "tidemark:plugin/enricher@0.1.0";
pub const DETECTOR: &str = "tidemark:plugin/detector@0.1.0";
pub const HOST: &str = "tidemark:plugin/host@0.1.0";
pub const TYPES: &str = "tidemark:plugin/types@0.1.0";

pub mod enricher {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit/v0_1",
        world: "enricher-plugin",
        // Columns go in as slices of what the shard holds, without a copy.
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub mod detector {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit/v0_1",
        world: "detector-plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        with: {
            "tidemark:plugin/host": super::enricher::tidemark::plugin::host,
            "tidemark:plugin/types": super::enricher::tidemark::plugin::types,
        },
    });
}
