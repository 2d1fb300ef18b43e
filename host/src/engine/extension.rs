//! What plugins are to the rest of the host: traits. Knows nothing of WebAssembly; `plugin/` implements them, the
//! catalog asks for them, shards and judges call them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::memo::Memo;
use crate::time::Millis;

/// Text of many rows end to end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextColumn {
    pub bytes: Vec<u8>,
    /// For each row, where it ends.
    pub ends: Vec<u32>,
    /// Rows without a value, ascending.
    pub nulls: Vec<u32>,
}

/// One output of an enrichment.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputColumn {
    Text(TextColumn),
    /// NaN where a row has no value.
    Number(Vec<f64>),
}

/// Turns fields into fields. Failures are the enricher's own to count and show.
pub trait Enricher: Send + Sync {
    /// `None`: no answer (a trap, a deadline, quarantined): every output of these rows is null, and is not remembered.
    /// Some: one column an output, each of `rows` rows, already checked for shape and UTF-8.
    fn enrich(&self, shard: usize, rows: u32, input: &[TextColumn]) -> Option<Vec<OutputColumn>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub expected: f64,
    pub lower: f64,
    pub upper: f64,
    pub score: f64,
    pub anomalous: bool,
}

/// Judges the last of the points it is given.
pub trait Detector: Send + Sync {
    /// How far back it wants to see, in milliseconds before the judged point.
    fn lookback_ms(&self) -> Millis;

    /// Points oldest first, the last to be judged. `None`: no verdict (too few points, or a failure, counted by the detector).
    fn judge(&self, step_ms: Millis, points: &[(Millis, f64)]) -> Option<Verdict>;
}

/// What an `[enrich.*]` table asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnricherRequest {
    pub plugin: String,
    pub input: Vec<String>,
    pub output: Vec<String>,
    /// File names below the plugin folder.
    pub files: Vec<String>,
    /// A JSON object.
    pub config: String,
}

pub struct LoadedEnricher {
    pub enricher: Arc<dyn Enricher>,
    /// Of everything its answers depend on: the component, the granted files, its settings. Hexadecimal.
    pub digest: String,
    /// `None` for a stateful plugin. The same memo as before when the digest is the same as before.
    pub memo: Option<Arc<Memo>>,
}

pub struct LoadedDetector {
    pub detector: Arc<dyn Detector>,
    pub digest: String,
}

/// Which part of the request is at fault, so that the caret can stand under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Plugin,
    Input,
    Output,
    Files,
    Config,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginError {
    pub fault: Fault,
    pub message: String,
    pub help: Option<String>,
}

/// Where the catalog gets plugins from. Equal requests over unchanged files give the same instance.
pub trait Plugins: Send + Sync {
    fn enricher(&self, request: &EnricherRequest) -> Result<LoadedEnricher, PluginError>;
    fn detector(&self, plugin: &str, config: &str) -> Result<LoadedDetector, PluginError>;
}
