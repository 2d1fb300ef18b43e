//! Scenarios through a whole host whose clock stands where it is put: sent over HTTP in small bodies, half of it, then the host
//! is gone without a word and another one goes on from what is on disk. Its queries must give the points of the file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use tidemark::runtime::host::{Host, HostSettings};
use tidemark::time::{Clock, MINUTE_MS};

use super::file::{DAY, Scenario};
use super::points::values_equal;
use crate::binary;
use crate::inside::{self, ask, get};

/// Lines a body; the last of a scenario may have fewer.
const LINES_A_BODY: usize = 2;
/// Later than all events of all scenarios, and not a day later than any.
pub const ARRIVAL: i64 = DAY + 25 * 3_600_000;

struct Home {
    folder: tempfile::TempDir,
    plugins: PathBuf,
    shards: usize,
    clock: Clock,
}

pub fn check(scenario: &Scenario) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("metrics.toml"), &scenario.definitions)?;
    let plugins = plugins(scenario, folder.path());
    let home = Home { folder, plugins, shards: shards(scenario), clock: Clock::manual(ARRIVAL) };
    runtime.block_on(run(scenario, &home))
}

/// Those that were built, where some are needed; else what is in the folder: none.
pub fn plugins(scenario: &Scenario, folder: &Path) -> PathBuf {
    if scenario.plugins.is_empty() { folder.into() } else { binary::root().join("plugins") }
}

pub fn shards(scenario: &Scenario) -> usize {
    if scenario.one_shard { 1 } else { 3 }
}

impl Home {
    fn start(&self) -> Result<Host> {
        let settings = inside::settings(self.folder.path(), self.clock.clone());
        let host = inside::start(HostSettings { plugins: self.plugins.clone(), shards: self.shards, ..settings })?;
        host.recover().map(|()| host)
    }
}

/// The events of a scenario as they are sent.
pub fn bodies(scenario: &Scenario) -> Vec<Vec<u8>> {
    let lines: Vec<&[u8]> = scenario.events.split_inclusive(|byte| *byte == b'\n').collect();
    lines.chunks(LINES_A_BODY).map(<[_]>::concat).collect()
}

async fn run(scenario: &Scenario, home: &Home) -> Result<()> {
    let bodies = bodies(scenario);
    let (before, after) = bodies.split_at(bodies.len() / 2);
    let host = home.start()?;
    let mut rejected = 0;
    for body in before {
        rejected += send(&host.router, body, &home.clock).await?;
    }
    host.tick()?;
    // Gone in the midst: what was counted is in the journal alone.
    drop(host);
    let host = home.start()?;
    for body in after {
        rejected += send(&host.router, body, &home.clock).await?;
    }
    // All minutes are over.
    home.clock.set(ARRIVAL + 10 * MINUTE_MS);
    host.tick()?;
    check_rejected(scenario, rejected)?;
    compare(scenario, &host.router).await
}

pub fn check_rejected(scenario: &Scenario, rejected: u64) -> Result<()> {
    let expected = scenario.summary.as_ref().and_then(|summary| summary["rejected"].as_u64());
    ensure!(expected.is_none_or(|expected| expected == rejected), "{rejected} rejected, expected {expected:?}");
    Ok(())
}

/// Gives the number of rejected events.
pub async fn send(router: &Router, body: &[u8], clock: &Clock) -> Result<u64> {
    let request = Request::post("/v1/events").header("content-type", "application/x-ndjson");
    let (status, answer) = ask(router, request.body(Body::from(body.to_vec()))?).await?;
    ensure!(matches!(status, 202 | 400), "{status} {answer}");
    // Each body a little later, as they come: recovery reads them in that order.
    clock.set(clock.now() + 1);
    // A body of blank lines holds nothing to reject.
    if answer["error"]["code"] == "empty_body" {
        return Ok(0);
    }
    answer["rejected"].as_u64().with_context(|| answer.to_string())
}

type Key = (String, i64, String);

fn key(metric: &str, time: &Value, labels: &Value) -> Result<Key> {
    let mut labels: Vec<(String, Value)> =
        labels.as_object().context("labels")?.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((metric.to_owned(), time.as_i64().context("a time")?, format!("{labels:?}")))
}

/// Every point of the file is in the answers. What the answers have besides is a step without events: nothing, or 0 where that
/// is what no event means.
pub async fn compare(scenario: &Scenario, router: &Router) -> Result<()> {
    let mut expected: HashMap<Key, &Value> = HashMap::new();
    for point in &scenario.points {
        let metric = point["metric"].as_str().context("a metric")?;
        expected.insert(key(metric, &point["time"], &point["labels"])?, &point["value"]);
    }
    let mut seen: HashSet<Key> = HashSet::new();
    let metrics = get(router, "/v1/metrics").await?;
    for metric in metrics["metrics"].as_array().context("metrics")? {
        let name = metric["name"].as_str().context("a name")?;
        if !scenario.points_of.is_empty() && !scenario.points_of.iter().any(|wanted| wanted == name) {
            continue;
        }
        let by: Vec<&str> =
            metric["dimensions"].as_array().context("dimensions")?.iter().filter_map(Value::as_str).collect();
        let (from, to) = (DAY, DAY + 25 * 3_600_000);
        let answer = get(router, &format!("/v1/query?metric={name}&by={}&from={from}&to={to}", by.join(","))).await?;
        for series in answer["series"].as_array().context("series")? {
            for point in series["points"].as_array().context("points")? {
                let key = key(name, &point[0], &series["labels"])?;
                match expected.get(&key) {
                    Some(value) if values_equal(value, &point[1]) => _ = seen.insert(key),
                    Some(value) => bail!("{key:?} is {} and not {value}", point[1]),
                    // A window still holds events, or arithmetic makes something of nothing.
                    None if metric["kind"] == "composite" || after_the_last(scenario, point) => {}
                    None => ensure!(point[1] == 0, "{key:?} is {}, where there is no event", point[1]),
                }
            }
        }
    }
    let missing = expected.iter().find(|(key, value)| !seen.contains(*key) && !value.is_null());
    ensure!(missing.is_none(), "not answered: {missing:?}");
    Ok(())
}

/// `replay` ends with the last event; a query goes on as long as windows hold some.
fn after_the_last(scenario: &Scenario, point: &Value) -> bool {
    scenario.points.iter().all(|expected| expected["time"].as_i64() < point[0].as_i64())
}
