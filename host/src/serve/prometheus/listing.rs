//! What there is: series, labels, their values, and what is known about metrics. Looks at the data only as far as matchers on
//! labels ask for it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Call;
use super::Evaluation;
use super::failure::Failure;
use super::language::{Labels, NAME, Selector, parse_selector};
use super::params::Times;
use super::select::metrics_of;
use super::write::{object, success};
use crate::serve::query::answer::{comma, json};
use crate::serve::query::leaf::HOURS_KEPT_MS;
use crate::time::{DAY_MS, HOUR_MS, Millis};

/// What one answer lists at most, whatever `limit` says.
const LISTED_MAX: usize = 50_000;
/// Without `start`: so much before `end`.
const RANGE_MS: Millis = DAY_MS;
/// Older than this, a day is looked at in one piece, before that an hour.
const DAYS_FROM_MS: Millis = 3 * DAY_MS;

/// Grafana asks for this to know what it may ask for.
const SPEAKS_LIKE: &str = "2.55.0";

struct Listing<'c> {
    evaluation: Evaluation<'c>,
    selectors: Vec<Selector>,
    from: Millis,
    to: Millis,
    limit: usize,
}

impl<'c> Listing<'c> {
    fn of(call: &'c Call) -> Result<Self, Failure> {
        let selectors = call
            .params
            .all("match[]")
            .map(|text| parse_selector(text).map_err(|error| Failure::parameter("match[]", error)));
        let to = call.params.time("end", call.now)?;
        let from = call.params.time("start", to - RANGE_MS)?;
        if to < from {
            return Err(Failure::parameter("end", "end timestamp must not be before start time"));
        }
        let times = Times { start: to, step_ms: 1, count: 1 };
        Ok(Self {
            selectors: selectors.collect::<Result<_, _>>()?,
            evaluation: call.evaluation(times),
            from: from.max(call.now - HOURS_KEPT_MS),
            to: to.min(call.now + DAY_MS),
            limit: call.params.limit()?.min(LISTED_MAX),
        })
    }

    /// The range in pieces, newest first: a piece is one step, so that its series are known without all their points.
    fn pieces(&self) -> impl Iterator<Item = (Millis, Millis, Millis)> {
        let days_until = self.evaluation.now - DAYS_FROM_MS;
        let from = self.from;
        let mut end = self.to - self.to.rem_euclid(HOUR_MS) + HOUR_MS;
        std::iter::from_fn(move || {
            let step_ms = if end <= days_until && end.rem_euclid(DAY_MS) == 0 { DAY_MS } else { HOUR_MS };
            let piece = (end - step_ms, end, step_ms);
            end -= step_ms;
            (piece.1 > from && piece.0 >= 0).then_some(piece)
        })
    }

    /// Label sets of a selector's series, merged by what `by` says for a metric's dimensions, until `take` has enough.
    fn visit(
        &self,
        selector: &Selector,
        by: &dyn Fn(&[String]) -> Option<Vec<String>>,
        take: &mut dyn FnMut(Labels) -> bool,
    ) -> Result<(), Failure> {
        for metric in metrics_of(self.evaluation.active, selector)? {
            let Some(by) = by(&metric.dimensions) else { continue };
            for piece in self.pieces() {
                self.evaluation.in_time()?;
                for labels in self.evaluation.label_sets(metric, selector, by.clone(), piece)? {
                    if !take(labels) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn names(&self, names: BTreeSet<String>) -> Vec<u8> {
        let mut out = b"[".to_vec();
        for (at, name) in names.iter().take(self.limit).enumerate() {
            comma(&mut out, at);
            json(&mut out, name);
        }
        out.push(b']');
        success(&out, names.len() > self.limit)
    }
}

pub fn series(call: &Call) -> Result<Vec<u8>, Failure> {
    let listing = Listing::of(call)?;
    if listing.selectors.is_empty() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let mut sets: BTreeSet<Labels> = BTreeSet::new();
    for selector in &listing.selectors {
        let by = |dimensions: &[String]| Some(selector.by.clone().unwrap_or_else(|| dimensions.to_vec()));
        listing.visit(selector, &by, &mut |labels| {
            sets.insert(labels);
            sets.len() <= listing.limit
        })?;
    }
    let mut out = b"[".to_vec();
    for (at, labels) in sets.iter().take(listing.limit).enumerate() {
        comma(&mut out, at);
        object(&mut out, labels);
    }
    out.push(b']');
    Ok(success(&out, sets.len() > listing.limit))
}

pub fn labels(call: &Call) -> Result<Vec<u8>, Failure> {
    let listing = Listing::of(call)?;
    let mut names = BTreeSet::new();
    if listing.selectors.is_empty() {
        names.insert(NAME.to_owned());
        names.extend(call.active.definitions.dimensions.iter().map(|dimension| dimension.name.clone()));
    }
    for selector in &listing.selectors {
        if selector.labels.is_empty() {
            for metric in metrics_of(&call.active, selector)? {
                names.insert(NAME.to_owned());
                names.extend(metric.dimensions.iter().cloned());
            }
            continue;
        }
        listing.visit(selector, &|dimensions| Some(dimensions.to_vec()), &mut |labels| {
            names.extend(labels.iter().map(|(name, _)| name.to_string()));
            true
        })?;
    }
    Ok(listing.names(names))
}

pub fn label_values(call: &Call) -> Result<Vec<u8>, Failure> {
    let listing = Listing::of(call)?;
    let label = call.label.as_deref().unwrap_or_default();
    let mut values = BTreeSet::new();
    let definitions = &call.active.definitions;
    if listing.selectors.is_empty() {
        if label == NAME {
            let numbers = definitions.metrics.iter().filter(|metric| !metric.shape.is_list());
            values.extend(numbers.map(|metric| metric.name.clone()));
        } else if definitions.dimensions.iter().any(|dimension| dimension.name == label) {
            let seen = listing.evaluation.dimension_values(label, LISTED_MAX)?;
            values.extend(seen.iter().filter(|value| !value.is_empty()).map(ToString::to_string));
        }
    }
    for selector in &listing.selectors {
        if label == NAME && selector.labels.is_empty() {
            values.extend(metrics_of(&call.active, selector)?.iter().map(|metric| metric.name.clone()));
            continue;
        }
        let by = |dimensions: &[String]| match label {
            NAME => Some(Vec::new()),
            label => dimensions.iter().any(|name| name == label).then(|| vec![label.to_owned()]),
        };
        listing.visit(selector, &by, &mut |labels| {
            values.extend(labels.iter().filter(|(name, _)| **name == *label).map(|(_, value)| value.to_string()));
            values.len() <= listing.limit
        })?;
    }
    Ok(listing.names(values))
}

pub fn metadata(call: &Call) -> Result<Vec<u8>, Failure> {
    let limit = call.params.limit()?;
    let asked = call.params.get("metric");
    let metrics = call.active.definitions.metrics.iter().filter(|metric| !metric.shape.is_list());
    let metrics = metrics.filter(|metric| asked.is_none_or(|name| metric.name == name)).take(limit);
    let about: Map<String, Value> = metrics
        .map(|metric| {
            let unit = metric.unit.as_deref().unwrap_or_default();
            (metric.name.clone(), json!([{"type": "gauge", "help": metric.title, "unit": unit}]))
        })
        .collect();
    Ok(success(Value::Object(about).to_string().as_bytes(), false))
}

pub fn build_info(_: &Call) -> Result<Vec<u8>, Failure> {
    let about = json!({
        "version": SPEAKS_LIKE,
        "revision": concat!("tidemark-", env!("CARGO_PKG_VERSION")),
        "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    });
    Ok(success(about.to_string().as_bytes(), false))
}
