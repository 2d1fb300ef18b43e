//! A component that is no plugin: it exports something else and asks for what no plugin gets.
#![allow(unsafe_code)] // in the generated bindings

wit_bindgen::generate!({
    inline: "
        package stranger:stranger@1.0.0;
        interface network { fetch: func(url: string) -> string; }
        world stranger { import network; export run: func() -> string; }
    ",
});

struct Stranger;

impl Guest for Stranger {
    fn run() -> String {
        stranger::stranger::network::fetch("nowhere")
    }
}

export!(Stranger);
