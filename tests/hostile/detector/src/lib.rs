//! A detector that misbehaves as `config = { do = "…" }` says. `do` absent or `good`: expects 0, band -1 to 1.
//! With `above = number` it misbehaves only on a judged point above it.
#![allow(unsafe_code)] // in the generated bindings

wit_bindgen::generate!({ path: "../../../plugin-sdk/wit/v0_1", world: "detector-plugin" });

use std::cell::RefCell;
use std::hint::black_box;

use exports::tidemark::plugin::detector::{Guest, Metadata, Verdict, Window};

thread_local! {
    static ORDERS: RefCell<(String, f64)> = RefCell::default();
}

struct Hostile;

impl Guest for Hostile {
    fn describe() -> Metadata {
        Metadata {
            name: "hostile_detector".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            stateful: false,
        }
    }

    fn configure(config: String) -> Result<u64, String> {
        let config: serde_json::Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        let act = config.get("do").and_then(|act| act.as_str()).unwrap_or_default().to_owned();
        let above = config.get("above").and_then(|above| above.as_f64()).unwrap_or(f64::NEG_INFINITY);
        match act.as_str() {
            "configure_error" => return Err("configured to refuse".to_owned()),
            "configure_panic" => panic!("configured to panic"),
            "history_forever" => return Ok(u64::MAX),
            _ => {}
        }
        ORDERS.replace((act, above));
        Ok(3_600_000)
    }

    fn judge(window: Window) -> Option<Verdict> {
        let last = *window.values.last()?;
        let (act, above) = ORDERS.with_borrow(Clone::clone);
        let verdict = Verdict { expected: 0.0, lower: -1.0, upper: 1.0, score: last, anomalous: last.abs() > 1.0 };
        if last <= above {
            return Some(verdict);
        }
        match act.as_str() {
            "" | "good" => Some(verdict),
            "none" => None,
            "loop" => loop {
                black_box(());
            },
            "memory" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            "nan" => Some(Verdict { expected: f64::NAN, lower: f64::NAN, upper: f64::NAN, score: f64::NAN, ..verdict }),
            "infinite" => Some(Verdict { lower: f64::NEG_INFINITY, upper: f64::INFINITY, ..verdict }),
            "band_reversed" => Some(Verdict { lower: 1.0, upper: -1.0, ..verdict }),
            other => panic!("told to {other}"),
        }
    }
}

export!(Hostile);
