//! An enricher that misbehaves as `config = { do = "…" }` says: what the host must survive. Written on the bare
//! interface, since the SDK would not let it.
//!
//! `do` absent or `good`: each output echoes the first input. With `on = "text"` it misbehaves only in a batch where
//! some first input is that text, and is good otherwise.
#![allow(unsafe_code)] // in the generated bindings

wit_bindgen::generate!({ path: "../../../plugin-sdk/wit/v0_1", world: "enricher-plugin" });

use std::cell::RefCell;
use std::hint::black_box;

use exports::tidemark::plugin::enricher::{Column, Guest, Metadata, Settings, TextColumn};
use tidemark::plugin::host;

#[derive(Default)]
struct Orders {
    act: String,
    on: Option<String>,
    outputs: usize,
}

thread_local! {
    static ORDERS: RefCell<Orders> = RefCell::default();
}

struct Hostile;

impl Guest for Hostile {
    fn describe() -> Metadata {
        Metadata {
            name: "hostile_enricher".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            stateful: false,
        }
    }

    fn configure(settings: Settings) -> Result<(), String> {
        let config: serde_json::Value = serde_json::from_str(&settings.config).map_err(|error| error.to_string())?;
        let text = |key: &str| config.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let act = text("do").unwrap_or_default();
        match act.strip_prefix("configure_") {
            Some("error") => return Err("configured to refuse".to_owned()),
            Some("giant_error") => return Err("x".repeat(16 << 20)),
            Some(act) => misbehave(act),
            None => {}
        }
        ORDERS.replace(Orders { act, on: text("on"), outputs: settings.output.len() });
        Ok(())
    }

    fn enrich(rows: u32, input: Vec<TextColumn>) -> Vec<Column> {
        ORDERS.with_borrow(|orders| {
            let good = || vec![input[0].clone(); orders.outputs].into_iter().map(Column::Text).collect();
            match &orders.on {
                Some(on) if !has_row(&input[0], on) => good(),
                _ => answer(&orders.act, rows, good()),
            }
        })
    }
}

export!(Hostile);

fn has_row(column: &TextColumn, wanted: &str) -> bool {
    let starts = std::iter::once(0).chain(column.ends.iter().copied());
    starts.zip(&column.ends).any(|(start, end)| &column.bytes[start as usize..*end as usize] == wanted.as_bytes())
}

fn answer(act: &str, rows: u32, mut good: Vec<Column>) -> Vec<Column> {
    let column = |bytes: Vec<u8>, ends: Vec<u32>, nulls: Vec<u32>| Column::Text(TextColumn { bytes, ends, nulls });
    let bytes = vec![b'x'; rows as usize];
    let one_each: Vec<u32> = (1..=rows).collect();
    let first = match act {
        "columns_none" => return Vec::new(),
        "columns_few" => return good.split_off(1),
        "columns_many" => {
            good.push(column(bytes, one_each, Vec::new()));
            return good;
        }
        "rows_few" => column(bytes, (1..rows).collect(), Vec::new()),
        "rows_many" => column(vec![b'x'; rows as usize + 1], (1..=rows + 1).collect(), Vec::new()),
        "number_rows_few" => Column::Number(vec![1.0; rows as usize - 1]),
        "numbers" => Column::Number((0..rows).map(f64::from).collect()),
        "infinite" => Column::Number(vec![f64::INFINITY; rows as usize]),
        "giant" => column(vec![b'x'; 64 << 20], vec![64 << 20; rows as usize], Vec::new()),
        "giant_value" => column(vec![b'x'; 1 << 20], vec![1 << 20; rows as usize], Vec::new()),
        "invalid_utf8" => column(vec![0xff; rows as usize], one_each, Vec::new()),
        // Valid as a whole, cut inside a character.
        "split_utf8" => column("é".repeat(rows as usize).into_bytes(), odd_ends(rows), Vec::new()),
        "ends_descending" => column(bytes, one_each.into_iter().rev().collect(), Vec::new()),
        "ends_past" => column(bytes, (0..rows).map(|row| row + 1000).collect(), Vec::new()),
        "ends_short" => column(bytes, vec![0; rows as usize], Vec::new()),
        "nulls_past" => column(bytes, one_each, vec![rows]),
        "nulls_descending" => column(bytes, one_each, (0..rows).rev().collect()),
        "nulls_many" => column(bytes, one_each, vec![0; 1 << 20]),
        "null_with_text" => column(bytes, one_each, vec![0]),
        "log_flood" => {
            (0..100_000).for_each(|line| host::log(host::Level::Info, &format!("line {line}")));
            return good;
        }
        "log_giant" => {
            host::log(host::Level::Info, &"y".repeat(16 << 20));
            return good;
        }
        "log_control" => {
            host::log(host::Level::Info, "one\nERROR forged line\r\u{1b}[31m");
            return good;
        }
        "read_other_file" => {
            let names = ["../metrics.toml", "/etc/passwd", "", "\0", "country.mmdb"];
            let said: Vec<String> =
                names.iter().map(|name| format!("{:?}", host::read_file(name).map(|b| b.len()))).collect();
            let said = said.join(" ");
            let ends = (1..=rows).map(|row| row * said.len() as u32).collect();
            column(said.repeat(rows as usize).into_bytes(), ends, Vec::new())
        }
        act => {
            misbehave(act);
            return good;
        }
    };
    good[0] = first;
    good
}

fn odd_ends(rows: u32) -> Vec<u32> {
    (0..rows).map(|row| if row + 1 == rows { 2 * rows } else { 2 * row + 1 }).collect()
}

/// What never comes back.
fn misbehave(act: &str) {
    match act {
        "" | "good" => {}
        "loop" => loop {
            black_box(());
        },
        "memory" => {
            let mut kept = Vec::new();
            loop {
                kept.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        "panic" => panic!("configured to panic"),
        "trap" => trap(),
        "recursion" => {
            black_box(recurse(black_box(0)));
        }
        other => panic!("hostile_enricher does not know how to {other}"),
    }
}

#[cfg(target_arch = "wasm32")]
fn trap() {
    core::arch::wasm32::unreachable();
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() {
    std::process::abort();
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    black_box(recurse(depth + 1)) + frame[(depth % 64) as usize]
}
