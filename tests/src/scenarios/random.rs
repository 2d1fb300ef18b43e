//! Random events against an oracle that is slow and obvious: for every point it looks at every event again.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::file::{DAY, Scenario};
use super::replay::{self, VARIANTS};
use crate::trial::trial;

const SEEDS: u64 = 12;
const EVENTS: usize = 400;
const MINUTES: i64 = 12;
const START: i64 = DAY + 10 * 3_600_000;

const DEFINITIONS: &str = r#"
[event]
time = "ts"

[dimensions]
country = {}
device = { field = "context.device" }

[metrics]
count_all    = "count()"
count_some   = { value = "count() where type in ('a', 'b') and x is not null", window = "3m", by = ["device"] }
sum_wide     = { value = "sum(x) where not type = 'a'", window = "5m", by = ["country"] }
mean_or      = { value = "avg(x) where x > 50 or type = 'c'", by = [] }
least        = { value = "min(x * 2 - 1)", window = "2m", by = ["country", "device"] }
most         = { value = "max(x) where country like 'D%' or context.device is null", by = ["country"] }
people       = { value = "uniq(user)", window = "4m", by = ["device"] }
"#;

#[derive(Clone)]
struct Event {
    ts: i64,
    kind: Option<&'static str>,
    /// A number, or text that looks like one.
    x: Option<Result<i64, i64>>,
    country: Option<&'static str>,
    device: Option<&'static str>,
    user: Option<u32>,
}

impl Event {
    fn number(&self) -> Option<f64> {
        self.x.and_then(Result::ok).map(|x| x as f64)
    }
}

struct Metric {
    name: &'static str,
    window: i64,
    by: &'static [&'static str],
    /// Is the event the metric's, and with which number; a user counts by itself.
    value: fn(&Event) -> Option<f64>,
    finish: fn(&[f64]) -> f64,
}

fn sum(values: &[f64]) -> f64 {
    values.iter().sum()
}

/// The definitions above, said once more in Rust.
const METRICS: &[Metric] = &[
    Metric { name: "count_all", window: 1, by: &["country", "device"], value: |_| Some(1.0), finish: sum },
    Metric {
        name: "count_some",
        window: 3,
        by: &["device"],
        value: |e| (matches!(e.kind, Some("a" | "b")) && e.x.is_some()).then_some(1.0),
        finish: sum,
    },
    Metric {
        name: "least",
        window: 2,
        by: &["country", "device"],
        value: |e| e.number().map(|x| x * 2.0 - 1.0),
        finish: |values| values.iter().copied().fold(f64::INFINITY, f64::min),
    },
    Metric {
        name: "mean_or",
        window: 1,
        by: &[],
        value: |e| e.number().filter(|x| *x > 50.0 || e.kind == Some("c")),
        finish: |values| sum(values) / values.len() as f64,
    },
    Metric {
        name: "most",
        window: 1,
        by: &["country"],
        value: |e| e.number().filter(|_| e.country.is_some_and(|c| c.starts_with('D')) || e.device.is_none()),
        finish: |values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    },
    Metric {
        name: "people",
        window: 4,
        by: &["device"],
        value: |e| e.user.map(f64::from),
        finish: |values| values.iter().map(|user| *user as u64).collect::<BTreeSet<_>>().len() as f64,
    },
    Metric {
        name: "sum_wide",
        window: 5,
        by: &["country"],
        value: |e| e.number().filter(|_| e.kind.is_some_and(|kind| kind != "a")),
        finish: sum,
    },
];

pub fn trials() -> Vec<Trial> {
    (0..SEEDS).map(|seed| trial(format!("scenarios::random::seed_{seed}"), move || check(seed))).collect()
}

fn check(seed: u64) -> Result<()> {
    let rng = &mut SmallRng::seed_from_u64(seed);
    let events: Vec<Event> = (0..EVENTS).map(|_| event(rng)).collect();
    let mut text = String::new();
    events.iter().for_each(|event| write(event, rng, &mut text));
    let scenario = Scenario {
        definitions: DEFINITIONS.into(),
        events: text.into_bytes(),
        points: METRICS.iter().flat_map(|metric| points(metric, &events)).collect(),
        summary: Some(json!({"events": EVENTS, "rejected": 0})),
        ..Scenario::default()
    };
    replay::check(&scenario, &VARIANTS[seed as usize % VARIANTS.len()])
}

fn event(rng: &mut SmallRng) -> Event {
    let mut maybe = |texts: &[&'static str]| texts.get(rng.random_range(0..=texts.len())).copied();
    let (kind, country, device) =
        (maybe(&["a", "b", "c"]), maybe(&["DE", "DK", "FR", "été"]), maybe(&["phone", "desk"]));
    let x = rng.random_range(-20..120);
    Event {
        ts: START + rng.random_range(0..MINUTES * 60_000),
        kind,
        country,
        device,
        x: match rng.random_range(0..10) {
            0 => None,
            1 => Some(Err(x)),
            _ => Some(Ok(x)),
        },
        user: rng.random_bool(0.9).then(|| rng.random_range(0..60)),
    }
}

/// Members in any order, missing ones now and then as null, text now and then with needless escapes.
fn write(event: &Event, rng: &mut SmallRng, out: &mut String) {
    let mut members = vec![format!("\"ts\":{}", event.ts)];
    let mut member = |name: &str, value: Option<String>| match value {
        Some(value) => members.push(format!("\"{name}\":{value}")),
        None if rng.random_bool(0.3) => members.push(format!("\"{name}\" : null")),
        None => {}
    };
    let text = |text: &str| format!("\"{text}\"");
    member("type", event.kind.map(text));
    member("country", event.country.map(|country| text(country).replace('é', "\\u00e9").replace("FR", "\\u0046R")));
    member("context", event.device.map(|device| format!("{{\"a\":[1,{{\"device\":2}}],\"device\":\"{device}\"}}")));
    member("user", event.user.map(|user| format!("\"u{user}\"")));
    member("x", event.x.map(|x| x.map_or_else(|x| format!("\"{x}\""), |x| x.to_string())));
    members.push("\"unread\":{\"x\":999,\"country\":\"XX\"}".into());
    members.shuffle(rng);
    let _ = writeln!(out, "{{{}}}", members.join(", "));
}

fn points(metric: &Metric, events: &[Event]) -> Vec<Value> {
    let minute = |ts: i64| ts.div_euclid(60_000);
    let first = events.iter().map(|event| minute(event.ts)).min().unwrap_or(0);
    let last = events.iter().map(|event| minute(event.ts)).max().unwrap_or(-1);
    let labels = |event: &Event| -> Vec<&str> {
        let label = |name: &&str| if *name == "country" { event.country } else { event.device };
        metric.by.iter().map(|name| label(name).unwrap_or_default()).collect()
    };
    let combinations: BTreeSet<Vec<&str>> = events.iter().map(labels).collect();
    let mut points = Vec::new();
    for time in first..=last {
        for combination in &combinations {
            let inside = |event: &&Event| {
                (time - metric.window + 1..=time).contains(&minute(event.ts)) && labels(event) == *combination
            };
            let values: Vec<f64> = events.iter().filter(inside).filter_map(metric.value).collect();
            if !values.is_empty() {
                let named = metric.by.iter().zip(combination).map(|(name, value)| ((*name).to_owned(), json!(value)));
                let labels: Map<String, Value> = named.collect();
                let value = (metric.finish)(&values);
                points.push(json!({"metric": metric.name, "time": time * 60_000, "labels": labels, "value": value}));
            }
        }
    }
    points
}
