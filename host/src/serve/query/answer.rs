//! Answers as JSON text, written straight into bytes: an answer may have two million points.

use serde::Serialize;

use super::combine::Series;
use super::leaf::Grid;
use super::view::{JudgedSeries, View};
use crate::anomaly::Judged;
use crate::time::Millis;

/// What stands above the series.
pub struct Head<'a> {
    pub metric: &'a str,
    pub unit: Option<&'a str>,
    pub step_ms: Millis,
    pub from: Millis,
    pub to: Millis,
    pub revision: u64,
}

pub fn write_answer(head: &Head, view: &View) -> Vec<u8> {
    let points: usize = view.series.iter().map(|series| series.points.steps.len()).sum();
    let mut out = Vec::with_capacity(512 + points * 28);
    out.extend_from_slice(b"{\"metric\":");
    json(&mut out, head.metric);
    out.extend_from_slice(b",\"unit\":");
    json(&mut out, &head.unit);
    let numbers =
        [("step_ms", head.step_ms), ("from", head.from), ("to", head.to), ("revision", head.revision as Millis)];
    for (name, value) in numbers {
        key(&mut out, name);
        json(&mut out, &value);
    }
    key(&mut out, "series");
    write_series(&mut out, view);
    key(&mut out, "provisional_from");
    json(&mut out, &view.provisional_from());
    write_complete_from(&mut out, view.complete_from);
    out.push(b'}');
    out
}

/// Only of what was to be filled backwards.
pub fn write_complete_from(out: &mut Vec<u8>, complete_from: Option<Millis>) {
    if let Some(complete_from) = complete_from {
        key(out, "complete_from");
        json(out, &complete_from);
    }
}

/// `[{"labels":{…},"points":[…],"anomalies":[…]},…]`; with `"band"` where a rule judges the series.
pub fn write_series(out: &mut Vec<u8>, view: &View) {
    let times = Times::of(view.span.grid);
    out.push(b'[');
    for (at, series) in view.series.iter().enumerate() {
        comma(out, at);
        out.extend_from_slice(b"{\"labels\":");
        write_labels(out, &view.by, &series.points);
        out.extend_from_slice(b",\"points\":[");
        write_points(out, &times, &series.points);
        out.push(b']');
        write_judgements(out, view.span.grid, series);
        out.push(b'}');
    }
    out.push(b']');
}

pub fn write_labels(out: &mut Vec<u8>, by: &[String], series: &Series) {
    out.push(b'{');
    for (at, (name, label)) in by.iter().zip(&series.labels).enumerate() {
        comma(out, at);
        json(out, name);
        out.push(b':');
        json(out, &**label);
    }
    out.push(b'}');
}

fn write_points(out: &mut Vec<u8>, times: &Times, series: &Series) {
    for (at, (step, value)) in series.points().enumerate() {
        comma(out, at);
        out.push(b'[');
        out.extend_from_slice(times.text(step));
        out.push(b',');
        write_value(out, value, series.list(at));
        out.push(b']');
    }
}

fn write_judgements(out: &mut Vec<u8>, grid: Grid, series: &JudgedSeries) {
    out.extend_from_slice(b",\"anomalies\":[");
    let mut written = 0;
    for rule in &series.rules {
        for judged in rule.judged.iter().filter(|judged| judged.verdict.anomalous) {
            comma(out, written);
            out.push(b'{');
            write_anomaly(out, grid, judged, &rule.label);
            out.push(b'}');
            written += 1;
        }
    }
    out.push(b']');
    if let Some(rule) = series.rules.first() {
        out.extend_from_slice(b",\"band\":[");
        for (at, judged) in rule.judged.iter().filter(|judged| has_band(judged)).enumerate() {
            comma(out, at);
            out.push(b'[');
            json(out, &grid.time(judged.step as usize));
            write_band(out, judged);
            out.push(b']');
        }
        out.push(b']');
    }
}

/// Whether there is anything to draw: silence has no bounds.
pub fn has_band(judged: &Judged) -> bool {
    let verdict = &judged.verdict;
    [verdict.expected, verdict.lower, verdict.upper].iter().any(|value| value.is_finite())
}

/// `,expected,lower,upper`, to seven digits: they are for drawing.
pub fn write_band(out: &mut Vec<u8>, judged: &Judged) {
    for value in [judged.verdict.expected, judged.verdict.lower, judged.verdict.upper] {
        out.push(b',');
        match value as f32 {
            short if short.is_finite() && short.fract() != 0.0 => json(out, &short),
            _ => number(out, value.round()),
        }
    }
}

/// The members of an anomaly, without the braces.
pub fn write_anomaly(out: &mut Vec<u8>, grid: Grid, judged: &Judged, rule: &str) {
    let verdict = &judged.verdict;
    out.extend_from_slice(b"\"t\":");
    json(out, &grid.time(judged.step as usize));
    let numbers = [
        ("value", judged.value),
        ("expected", verdict.expected),
        ("lower", verdict.lower),
        ("upper", verdict.upper),
        ("score", verdict.score),
    ];
    for (name, value) in numbers {
        key(out, name);
        number(out, value);
    }
    key(out, "rule");
    json(out, rule);
}

/// The times of a grid's steps as text, written once for all series.
pub struct Times {
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Times {
    pub fn of(grid: Grid) -> Self {
        let mut times = Self { text: Vec::with_capacity(grid.steps * 13), ends: Vec::with_capacity(grid.steps + 1) };
        times.ends.push(0);
        for step in 0..grid.steps {
            json(&mut times.text, &grid.time(step));
            times.ends.push(times.text.len() as u32);
        }
        times
    }

    #[inline]
    pub fn text(&self, step: usize) -> &[u8] {
        &self.text[self.ends[step] as usize..self.ends[step + 1] as usize]
    }
}

pub fn comma(out: &mut Vec<u8>, at: usize) {
    if at > 0 {
        out.push(b',');
    }
}

/// `,"name":`
pub fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A list, where the value is one.
pub fn write_value(out: &mut Vec<u8>, value: f64, list: Option<&std::sync::Arc<str>>) {
    match list {
        Some(list) => out.extend_from_slice(list.as_bytes()),
        None => number(out, value),
    }
}

/// Whole numbers without a point, what is not finite as null.
#[inline]
pub fn number(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        json(out, &(value as i64));
    } else if value.is_finite() {
        json(out, &value);
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Text, numbers and what is made of them always become JSON.
pub fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok());
}
