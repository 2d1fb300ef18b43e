//! Native tests of a plugin, without a sandbox: `cargo test`. The columns go the same way as in the host, a debugger
//! works, and nothing has to be built for WebAssembly. `tidemark plugin test` runs the same `cases.toml` in the real
//! sandbox.
//!
//! ```no_run
//! # struct MyPlugin;
//! # impl tidemark_plugin::Enricher for MyPlugin {
//! #     fn new(_: &tidemark_plugin::Settings) -> Result<Self, String> { Ok(MyPlugin) }
//! #     fn enrich(&mut self, _: tidemark_plugin::Row<'_>, _: &mut tidemark_plugin::Out<'_>) {}
//! # }
//! #[test]
//! fn cases() {
//!     tidemark_plugin::testing::enricher_cases::<MyPlugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases.toml"));
//! }
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::bindings::enricher::exports::tidemark::plugin::enricher as wit;
use crate::enricher::{Enricher, EnricherSlot};
use crate::settings::{Config, Settings};

mod cases;

pub use cases::{detector_cases, enricher_cases};

thread_local! {
    static GRANTED: RefCell<BTreeMap<String, PathBuf>> = const { RefCell::new(BTreeMap::new()) };
}

/// Grants the file at `path` under `name` to [`crate::host::read_file`] for the rest of this test (of its thread).
pub fn grant_file(name: &str, path: impl Into<PathBuf>) {
    GRANTED.with_borrow_mut(|files| files.insert(name.to_owned(), path.into()));
}

pub(crate) fn read_granted(name: &str) -> Result<Vec<u8>, String> {
    let path = GRANTED.with_borrow(|files| files.get(name).cloned());
    let path = path.ok_or_else(|| format!("\"{name}\" is not among the granted files"))?;
    std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Settings as the host would hand them over; `config` is JSON.
pub fn settings(input: &[&str], output: &[&str], config: &str) -> Settings {
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Settings { input: owned(input), output: owned(output), config: Config::new(config) }
}

/// What an enricher wrote for one output field of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Number(number)
    }
}

/// Sets an enricher up and hands it `rows` as one batch: for each row the value of each output field.
pub fn enrich<T: Enricher>(settings: &Settings, rows: &[Vec<Option<&str>>]) -> Result<Vec<Vec<Value>>, String> {
    let slot = EnricherSlot::<T>::empty();
    slot.configure(wit::Settings {
        input: settings.input.clone(),
        output: settings.output.clone(),
        config: settings.config.json().to_owned(),
    })?;
    let columns = (0..settings.input.len()).map(|i| text_column(rows.iter().map(|row| row[i]))).collect();
    let out = slot.enrich(rows.len() as u32, columns);
    Ok((0..rows.len()).map(|row| out.iter().map(|column| value(column, row)).collect()).collect())
}

/// As [`enrich`], with a single row.
pub fn enrich_one<T: Enricher>(settings: &Settings, row: &[Option<&str>]) -> Result<Vec<Value>, String> {
    enrich::<T>(settings, &[row.to_vec()]).map(|mut rows| rows.remove(0))
}

fn text_column<'a>(rows: impl Iterator<Item = Option<&'a str>>) -> wit::TextColumn {
    let mut column = wit::TextColumn { bytes: Vec::new(), ends: Vec::new(), nulls: Vec::new() };
    for row in rows {
        match row {
            Some(text) => column.bytes.extend_from_slice(text.as_bytes()),
            None => column.nulls.push(column.ends.len() as u32),
        }
        column.ends.push(column.bytes.len() as u32);
    }
    column
}

fn value(column: &wit::Column, row: usize) -> Value {
    match column {
        wit::Column::Number(numbers) if numbers[row].is_nan() => Value::Null,
        wit::Column::Number(numbers) => Value::Number(numbers[row]),
        wit::Column::Text(column) if column.nulls.contains(&(row as u32)) => Value::Null,
        wit::Column::Text(column) => {
            let start = if row == 0 { 0 } else { column.ends[row - 1] as usize };
            let bytes = &column.bytes[start..column.ends[row] as usize];
            Value::Text(String::from_utf8(bytes.to_vec()).expect("written from a str"))
        }
    }
}
