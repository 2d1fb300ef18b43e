//! The code generated from `wit/v0_1`: one module a world. Nothing outside this crate names it but the export macros.
#![allow(missing_docs, unsafe_code, clippy::all)]

pub mod enricher {
    wit_bindgen::generate!({
        path: "wit/v0_1",
        world: "enricher-plugin",
        pub_export_macro: true,
        default_bindings_module: "tidemark_plugin::__private::enricher_world",
        runtime_path: "::tidemark_plugin::__private::wit_bindgen::rt",
    });
}

pub mod detector {
    wit_bindgen::generate!({
        path: "wit/v0_1",
        world: "detector-plugin",
        pub_export_macro: true,
        default_bindings_module: "tidemark_plugin::__private::detector_world",
        runtime_path: "::tidemark_plugin::__private::wit_bindgen::rt",
    });
}
