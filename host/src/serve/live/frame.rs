//! The bodies of frames. A frame is a short head of one subscription's own (`{"op":…,"id":…`) and a body that equal
//! subscriptions share.

use std::sync::Arc;

use axum::body::Bytes;
use serde_json::{Value, json};

use super::model::Model;
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

/// What is sent: one text frame in two pieces, of which many share the second.
#[derive(Clone, Debug)]
pub struct Frame {
    pub head: Bytes,
    pub body: Bytes,
}

impl Frame {
    pub fn new(id: &str, body: &Body) -> Self {
        let mut head = Vec::with_capacity(id.len() + 40);
        head.extend_from_slice(b"{\"op\":\"");
        head.extend_from_slice(body.op.as_bytes());
        head.extend_from_slice(b"\",\"id\":");
        write_json(&mut head, id);
        Self { head: head.into(), body: body.bytes.clone() }
    }

    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self { head: text.into(), body: Bytes::new() }
    }
}

pub fn error(id: Option<&str>, error: &ApiError) -> Frame {
    json!({"op": "error", "id": id, "code": error.code, "message": error.message, "help": error.help})
        .to_string()
        .into()
}

pub fn definitions(active: &Active) -> Frame {
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
pub fn stale(why: Option<(Millis, &str)>) -> Frame {
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
    key(&mut out, "epoch");
    write_json(&mut out, &format!("{:x}", model.history.epoch));
    key(&mut out, "series");
    write_series(&mut out, &model.view);
    key(&mut out, "provisional_from");
    write_json(&mut out, &model.view.provisional_from());
    write_complete_from(&mut out, model.view.complete_from);
    out.push(b'}');
    Body { op: "snapshot", bytes: out.into() }
}

/// What changed between two versions, as it is found.
#[derive(Default)]
pub struct DeltaWriter {
    points: Vec<u8>,
    new_series: Vec<u8>,
    band: Vec<u8>,
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

    pub fn finish(self, prev: u64, seq: u64, provisional_from: Option<Millis>, complete_from: Option<Millis>) -> Body {
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
        write_complete_from(&mut out, complete_from);
        out.push(b'}');
        Body { op: "delta", bytes: out.into() }
    }
}

/// A point that has become an anomaly, or is none any more.
pub fn anomaly(by: &[String], series: &Series, grid: Grid, judged: &Judged, rule: &str, cleared: bool) -> Body {
    let mut out = Vec::new();
    key(&mut out, "labels");
    write_labels(&mut out, by, series);
    out.push(b',');
    write_anomaly(&mut out, grid, judged, rule);
    out.extend_from_slice(if cleared { b",\"cleared\":true}".as_slice() } else { b"}" });
    Body { op: "anomaly", bytes: out.into() }
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
