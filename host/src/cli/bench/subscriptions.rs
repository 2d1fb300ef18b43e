//! Different subscriptions of 1 to 5 series each, made from what a host measures. Does not know who asks for them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::target::Http;

const SERIES_MAX: usize = 5;
const RANGES: &[&str] = &["24h", "6h", "1h", "12h", "3h"];
/// Of each dimension, the most frequent ones.
const VALUES: usize = 100;

#[derive(Deserialize)]
struct Metrics {
    metrics: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    name: String,
    dimensions: Vec<String>,
}

#[derive(Deserialize)]
struct Dimension {
    values: Vec<Counted>,
}

#[derive(Deserialize)]
struct Counted {
    value: String,
}

/// At most `wanted`; fewer where the host does not measure so much.
pub async fn subscriptions(http: &mut Http, wanted: usize) -> Result<Vec<Value>> {
    let Metrics { metrics } = http.get_json("/v1/metrics").await?;
    ensure!(!metrics.is_empty(), "the host measures nothing");
    let names: BTreeSet<&String> = metrics.iter().flat_map(|metric| &metric.dimensions).collect();
    let mut values = BTreeMap::new();
    for name in names {
        let Dimension { values: found } = http.get_json(&format!("/v1/dimensions/{name}?limit={VALUES}")).await?;
        let found = found.into_iter().map(|counted| counted.value).filter(|value| !value.is_empty());
        values.insert(name.clone(), found.collect::<Vec<_>>());
    }
    Ok(choose(&metrics, &values, wanted))
}

/// Totals first, then one to five values of a dimension, from the most frequent on.
fn choose(metrics: &[Metric], values: &BTreeMap<String, Vec<String>>, wanted: usize) -> Vec<Value> {
    let totals = metrics.iter().map(|metric| subscription(&metric.name, RANGES[0], None));
    let mut chosen: Vec<Value> = totals.take(wanted).collect();
    for first in 0..VALUES {
        for range in RANGES {
            for (number, metric) in metrics.iter().enumerate() {
                for dimension in &metric.dimensions {
                    if chosen.len() >= wanted {
                        return chosen;
                    }
                    let count = 1 + (first + number) % SERIES_MAX;
                    let of = values.get(dimension).and_then(|values| values.get(first..first + count));
                    chosen.extend(of.map(|values| subscription(&metric.name, range, Some((dimension, values)))));
                }
            }
        }
    }
    chosen
}

fn subscription(metric: &str, range: &str, part: Option<(&String, &[String])>) -> Value {
    let by: Vec<&String> = part.iter().map(|(dimension, _)| *dimension).collect();
    let filters: BTreeMap<&String, &[String]> = part.into_iter().collect();
    json!({"metric": metric, "range": range, "by": by, "where": filters})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_differ_and_are_of_few_series() {
        let metric = |name: &str, dimensions: &[&str]| Metric {
            name: name.into(),
            dimensions: dimensions.iter().map(ToString::to_string).collect(),
        };
        let metrics = [metric("events", &["country", "device"]), metric("users", &["country"]), metric("all", &[])];
        let named = |count: usize| (0..count).map(|number| format!("v{number}")).collect();
        let values = BTreeMap::from([("country".to_owned(), named(50)), ("device".to_owned(), named(3))]);
        let chosen = choose(&metrics, &values, 200);
        let different: BTreeSet<String> = chosen.iter().map(Value::to_string).collect();
        assert_eq!((chosen.len(), different.len()), (200, 200));
        let series =
            |one: &Value| one["where"].as_object().unwrap().values().next().map_or(1, |v| v.as_array().unwrap().len());
        let counts: BTreeSet<usize> = chosen.iter().map(series).collect();
        assert_eq!(counts, (1..=5).collect());
        assert!(choose(&metrics, &BTreeMap::new(), 200).len() == 3, "what there is");
        assert_eq!(choose(&metrics, &values, 2).len(), 2);
    }
}
