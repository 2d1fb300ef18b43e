//! The bodies of frames. A frame is a short head of one subscription's own (`{"op":…,"id":…`) and a body that equal
//! subscriptions share.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use serde_json::{Value, json};

use super::topic::Model;
use crate::anomaly::Judged;
use crate::catalog::definitions::{Active, Outcome};
use crate::serve::query::answer::{
    comma, json as write_json, key, write_anomaly, write_band, write_complete_from, write_labels, write_series,
    write_value,
};
use crate::serve::query::combine::Series;
use crate::serve::query::leaf::Grid;
use crate::time::Millis;
use crate::web::ApiError;

/// A body, and which `op` it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    pub op: &'static str,
    pub bytes: Bytes,
}

/// Head and body in one piece, to be sent.
pub fn frame(id: &str, body: &Body) -> Utf8Bytes {
    let mut out = Vec::with_capacity(body.bytes.len() + id.len() + 40);
    out.extend_from_slice(b"{\"op\":\"");
    out.extend_from_slice(body.op.as_bytes());
    out.extend_from_slice(b"\",\"id\":");
    write_json(&mut out, id);
    out.extend_from_slice(&body.bytes);
    // Everything in it was text; were it not, an empty frame is the lesser evil.
    Utf8Bytes::try_from(Bytes::from(out)).unwrap_or_default()
}

pub fn error(id: Option<&str>, error: &ApiError) -> Utf8Bytes {
    json!({"op": "error", "id": id, "code": error.code, "message": error.message, "help": error.help})
        .to_string()
        .into()
}

pub fn definitions(active: &Active) -> Utf8Bytes {
    let mut told = json!({"op": "definitions", "revision": active.revision, "added": [], "changed": [], "removed": []});
    match &*active.last {
        Outcome::Applied { difference, .. } => {
            told["added"] = json!(difference.added);
            told["changed"] = json!(difference.changed);
            told["removed"] = json!(difference.removed);
        }
        Outcome::Rejected { diagnostics, .. } => {
            told["rejected"] = serde_json::to_value(diagnostics).unwrap_or(Value::Null);
        }
    }
    told.to_string().into()
}

/// What is shown may be old since then; or is no longer.
pub fn stale(why: Option<(Millis, &str)>) -> Utf8Bytes {
    let told = match why {
        Some((since, reason)) => json!({"op": "stale", "since": since, "reason": reason}),
        None => json!({"op": "stale", "since": null}),
    };
    told.to_string().into()
}

pub fn snapshot(model: &Model) -> Body {
    let mut out = Vec::new();
    for (name, value) in [("seq", model.view.seq), ("revision", model.revision), ("step_ms", model.step_ms() as u64)] {
        key(&mut out, name);
        write_json(&mut out, &value);
    }
    key(&mut out, "series");
    write_series(&mut out, &model.view);
    key(&mut out, "provisional_from");
    write_json(&mut out, &model.view.provisional_from());
    write_complete_from(&mut out, model.view.complete_from);
    out.push(b'}');
    Body { op: "snapshot", bytes: out.into() }
}

/// What a refresh changed, as it is found.
#[derive(Default)]
pub struct DeltaWriter {
    points: Vec<u8>,
    new_series: Vec<u8>,
    band: Vec<u8>,
    anomalies: Vec<Body>,
    complete_from: Option<Millis>,
}

impl DeltaWriter {
    pub fn point(&mut self, index: usize, t: Millis, value: f64, list: Option<&Arc<str>>) {
        begin(&mut self.points, index, t);
        self.points.push(b',');
        write_value(&mut self.points, value, list);
        self.points.push(b']');
    }

    pub fn band(&mut self, index: usize, t: Millis, judged: &Judged) {
        begin(&mut self.band, index, t);
        write_band(&mut self.band, judged);
        self.band.push(b']');
    }

    pub fn new_series(&mut self, by: &[String], series: &Series) {
        let before = usize::from(!self.new_series.is_empty());
        comma(&mut self.new_series, before);
        self.new_series.extend_from_slice(b"{\"labels\":");
        write_labels(&mut self.new_series, by, series);
        self.new_series.push(b'}');
    }

    pub fn anomaly(&mut self, by: &[String], series: &Series, grid: Grid, judged: &Judged, rule: &str, cleared: bool) {
        let mut out = Vec::new();
        key(&mut out, "labels");
        write_labels(&mut out, by, series);
        out.push(b',');
        write_anomaly(&mut out, grid, judged, rule);
        out.extend_from_slice(if cleared { b",\"cleared\":true}".as_slice() } else { b"}" });
        self.anomalies.push(Body { op: "anomaly", bytes: out.into() });
    }

    /// What was filled backwards reaches to another point now.
    pub fn complete_from(&mut self, complete_from: Option<Millis>) {
        self.complete_from = complete_from;
    }

    /// The bodies to send, the delta first; none where nothing changed. `closed`: a point that was shown has become final.
    pub fn finish(self, prev: u64, seq: u64, provisional_from: Option<Millis>, closed: bool) -> Vec<Body> {
        let mut bodies = Vec::new();
        let told = closed || self.complete_from.is_some();
        if told || [&self.points, &self.new_series, &self.band].iter().any(|items| !items.is_empty()) {
            let mut out = Vec::with_capacity(self.points.len() + self.band.len() + self.new_series.len() + 128);
            key(&mut out, "prev");
            write_json(&mut out, &prev);
            key(&mut out, "seq");
            write_json(&mut out, &seq);
            for (name, items) in [("points", &self.points), ("new_series", &self.new_series)] {
                list(&mut out, name, items);
            }
            if !self.band.is_empty() {
                list(&mut out, "band", &self.band);
            }
            key(&mut out, "provisional_from");
            write_json(&mut out, &provisional_from);
            write_complete_from(&mut out, self.complete_from);
            out.push(b'}');
            bodies.push(Body { op: "delta", bytes: out.into() });
        }
        bodies.extend(self.anomalies);
        bodies
    }
}

/// `[index,t`, behind a comma where something stands before it.
fn begin(out: &mut Vec<u8>, index: usize, t: Millis) {
    let before = usize::from(!out.is_empty());
    comma(out, before);
    out.push(b'[');
    write_json(out, &index);
    out.push(b',');
    write_json(out, &t);
}

fn list(out: &mut Vec<u8>, name: &str, items: &[u8]) {
    key(out, name);
    out.push(b'[');
    out.extend_from_slice(items);
    out.push(b']');
}
