//! Random events for `quantile`, `top` and `funnel`, against an oracle that is slow and obvious: for every point it looks at every
//! event again, and tries every way through a key's steps.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::file::{DAY, Scenario};
use super::replay::{self, VARIANTS};
use crate::trial::trial;

const SEEDS: u64 = 10;
const EVENTS: usize = 500;
const MINUTES: i64 = 15;
const MINUTE_MS: i64 = 60_000;
const START: i64 = DAY + 10 * 60 * MINUTE_MS;
const SPAN_MS: i64 = 3 * MINUTE_MS;
const STEPS: usize = 3;
const TOP: usize = 3;
const Q: f64 = 0.9;

const DEFINITIONS: &str = r#"
[event]
time = "ts"
key = "user"

[dimensions]
country = {}

[metrics]
p90   = { value = "quantile(0.9, x)", window = "4m" }
pages = { value = "top(3, page) where type <> 'c'", window = "2m" }
path  = { value = "funnel('3m', type = 'a', type = 'b', x > 50) where page is not null", window = "2m" }
"#;

struct Event {
    ts: i64,
    kind: &'static str,
    x: i64,
    country: &'static str,
    page: Option<u32>,
    user: Option<u32>,
}

pub fn trials() -> Vec<Trial> {
    (0..SEEDS).map(|seed| trial(format!("scenarios::larger::seed_{seed}"), move || check(seed))).collect()
}

fn check(seed: u64) -> Result<()> {
    let rng = &mut SmallRng::seed_from_u64(seed);
    let events: Vec<Event> = (0..EVENTS).map(|_| event(rng)).collect();
    let line = |e: &Event| {
        let (kind, user) = (e.kind, e.user.map(|user| format!("u{user}")));
        let page = e.page.map(|page| format!("/p/{page}"));
        json!({"ts": e.ts, "type": kind, "x": e.x, "country": e.country, "page": page, "user": user}).to_string()
    };
    let mut points = points("p90", 4, &events, quantile);
    points.extend(self::points("pages", 2, &events, top));
    let paths = self::points("path", 2, &events, |inside| funnel(inside, &events));
    ensure!(paths.iter().any(|point| point["value"][2] != 0), "nobody comes through");
    points.extend(paths);
    let scenario = Scenario {
        definitions: DEFINITIONS.into(),
        events: events.iter().map(line).collect::<Vec<_>>().join("\n").into_bytes(),
        points,
        summary: Some(json!({"events": EVENTS, "rejected": 0})),
        ..Scenario::default()
    };
    replay::check(&scenario, &VARIANTS[seed as usize % VARIANTS.len()])
}

fn event(rng: &mut SmallRng) -> Event {
    let mut one_of = |texts: [&'static str; 3]| texts[rng.random_range(0..3)];
    let (kind, country) = (one_of(["a", "b", "c"]), one_of(["DE", "FR", ""]));
    Event {
        // Often at the same time.
        ts: START + rng.random_range(0..MINUTES * 12) * 5_000,
        kind,
        x: rng.random_range(-20..120),
        country,
        page: rng.random_bool(0.9).then(|| rng.random_range(0..12)),
        user: rng.random_bool(0.9).then(|| rng.random_range(0..50)),
    }
}

/// A point wherever `value` makes one of a window's events.
fn points(name: &str, window: i64, events: &[Event], value: impl Fn(&[&Event]) -> Option<Value>) -> Vec<Value> {
    let minute = |ts: i64| ts.div_euclid(MINUTE_MS);
    let first = events.iter().map(|event| minute(event.ts)).min().unwrap_or(0);
    let last = events.iter().map(|event| minute(event.ts)).max().unwrap_or(-1);
    let countries: BTreeSet<&str> = events.iter().map(|event| event.country).collect();
    let mut points = Vec::new();
    for time in first..=last {
        for country in &countries {
            let is_inside = |e: &&Event| (time - window + 1..=time).contains(&minute(e.ts)) && e.country == *country;
            let inside: Vec<&Event> = events.iter().filter(is_inside).collect();
            if let Some(value) = value(&inside) {
                let (time, labels) = (time * MINUTE_MS, json!({"country": country}));
                points.push(json!({"metric": name, "time": time, "labels": labels, "value": value}));
            }
        }
    }
    points
}

/// The one number of its bin that is within 1 % of all in it: what bins are is part of what is stored.
fn quantile(inside: &[&Event]) -> Option<Value> {
    let mut sorted: Vec<i64> = inside.iter().map(|event| event.x).collect();
    sorted.sort_unstable();
    let exact = *sorted.get((Q * (sorted.len().checked_sub(1)? as f64)) as usize)? as f64;
    let gamma: f64 = 1.01 / 0.99;
    let bin = (exact.abs().ln() / gamma.ln()).ceil();
    let near = exact.signum() * 2.0 * gamma.powf(bin) / (gamma + 1.0);
    let near = if exact == 0.0 { 0.0 } else { near };
    assert!((near - exact).abs() <= exact.abs() * 0.010_000_1);
    Some(json!(near))
}

fn top(inside: &[&Event]) -> Option<Value> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for page in inside.iter().filter(|event| event.kind != "c").filter_map(|event| event.page) {
        *counts.entry(format!("/p/{page}")).or_default() += 1;
    }
    let mut list: Vec<(String, u64)> = counts.into_iter().collect();
    // Stable: ties stay in the order of values.
    list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    list.truncate(TOP);
    (!list.is_empty()).then(|| json!(list))
}

fn funnel(inside: &[&Event], events: &[Event]) -> Option<Value> {
    let mut deepest: BTreeMap<u32, usize> = BTreeMap::new();
    for event in inside.iter().filter(|event| takes(event, 0)) {
        let Some(user) = event.user else { continue };
        let depth = comes_to(event.ts, event.ts, 1, user, events);
        let known = deepest.entry(user).or_default();
        *known = depth.max(*known);
    }
    let reached = |step: usize| deepest.values().filter(|depth| **depth > step).count();
    (!deepest.is_empty()).then(|| json!((0..STEPS).map(reached).collect::<Vec<_>>()))
}

fn takes(event: &Event, step: usize) -> bool {
    event.page.is_some() && [event.kind == "a", event.kind == "b", event.x > 50][step]
}

/// How many steps a key takes at most that took the first one at `first` and the last one so far at `from`.
fn comes_to(first: i64, from: i64, step: usize, user: u32, events: &[Event]) -> usize {
    if step == STEPS {
        return step;
    }
    let in_time = |e: &&Event| e.user == Some(user) && e.ts >= from && e.ts <= first + SPAN_MS && takes(e, step);
    let next = events.iter().filter(in_time);
    next.map(|event| comes_to(first, event.ts, step + 1, user, events)).max().unwrap_or(step)
}
