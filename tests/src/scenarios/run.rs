//! Scenarios through a whole host whose clock stands where it is put: sent over HTTP in small bodies, half of it, then the host
//! is gone without a word and another one goes on from what is on disk. Its queries must give the points of the file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use tidemark::ingest::http;
use tidemark::ingest::journal::JournalSettings;
use tidemark::plugin::Limits;
use tidemark::runtime::host::{Host, HostSettings, StartError};
use tidemark::runtime::roles::Roles;
use tidemark::serve;
use tidemark::time::{Clock, MINUTE_MS};
use tidemark::web::Keys;
use tower::ServiceExt;

use super::file::{DAY, Scenario};
use super::points::values_equal;
use crate::binary;

/// Lines a body; the last of a scenario may have fewer.
const LINES_A_BODY: usize = 2;
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Later than all events of all scenarios, and not a day later than any.
const ARRIVAL: i64 = DAY + 25 * 3_600_000;

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
    let plugins = if scenario.plugins.is_empty() { folder.path().into() } else { binary::root().join("plugins") };
    let shards = if scenario.one_shard { 1 } else { 3 };
    let home = Home { folder, plugins, shards, clock: Clock::manual(ARRIVAL) };
    runtime.block_on(run(scenario, &home))
}

impl Home {
    fn start(&self) -> Result<Host> {
        let settings = settings(self.folder.path(), self.clock.clone());
        match Host::start(HostSettings { plugins: self.plugins.clone(), shards: self.shards, ..settings }) {
            Ok(host) => host.recover().map(|()| host),
            Err(StartError::Definitions(diagnostics)) => bail!("{diagnostics:?}"),
            Err(StartError::Other(error)) => Err(error),
        }
    }
}

/// Of a host with everything in this folder.
pub fn settings(folder: &Path, clock: Clock) -> HostSettings {
    let bytes_max = 16 << 20;
    HostSettings {
        metrics: folder.join("metrics.toml"),
        plugins: folder.to_owned(),
        data: folder.join("data"),
        shards: 1,
        tick_ms: 1_000,
        grace_ms: 10_000,
        checkpoint_ms: 10_000,
        event_bytes_max: 64 << 10,
        queue_bytes_max: bytes_max,
        data_bytes_max: 1 << 30,
        history_waiting_bytes_max: 1 << 30,
        journal: JournalSettings::default(),
        kafka: None,
        clickhouse: None,
        redis: None,
        roles: Roles::ALL,
        limits: Limits::default(),
        http: http::Settings {
            keys: Keys::default(),
            trusted_proxies: vec![],
            body_bytes_max: bytes_max,
            inflight_bytes_max: bytes_max,
        },
        serve: serve::Settings::default(),
        demo: None,
        clock,
    }
}

async fn run(scenario: &Scenario, home: &Home) -> Result<()> {
    let lines: Vec<&[u8]> = scenario.events.split_inclusive(|byte| *byte == b'\n').collect();
    let bodies: Vec<Vec<u8>> = lines.chunks(LINES_A_BODY).map(<[_]>::concat).collect();
    let (before, after) = bodies.split_at(bodies.len() / 2);
    let host = home.start()?;
    let mut rejected = send(&host, before).await?;
    host.tick()?;
    // Gone in the midst: what was counted is in the journal alone.
    drop(host);
    let host = home.start()?;
    rejected += send(&host, after).await?;
    // All minutes are over.
    home.clock.set(ARRIVAL + 10 * MINUTE_MS);
    host.tick()?;
    if let Some(expected) = scenario.summary.as_ref().and_then(|summary| summary["rejected"].as_u64()) {
        ensure!(rejected == expected, "{rejected} rejected, expected {expected}");
    }
    compare(scenario, &host).await
}

/// Gives the number of rejected events.
async fn send(host: &Host, bodies: &[Vec<u8>]) -> Result<u64> {
    let mut rejected = 0;
    for body in bodies {
        let request = Request::post("/v1/events").header("content-type", "application/x-ndjson");
        let (status, answer) = ask(host, request.body(Body::from(body.clone()))?).await?;
        ensure!(matches!(status, 202 | 400), "{status} {answer}");
        // A body of blank lines holds nothing to reject.
        if answer["error"]["code"] != "empty_body" {
            rejected += answer["rejected"].as_u64().with_context(|| answer.to_string())?;
        }
        // Each body a little later, as they come: recovery reads them in that order.
        host.clock.set(host.clock.now() + 1);
    }
    Ok(rejected)
}

pub async fn ask(host: &Host, request: Request<Body>) -> Result<(u16, Value)> {
    let response = host.router.clone().oneshot(request).await?;
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await?;
    let text = String::from_utf8_lossy(&bytes);
    Ok((status, serde_json::from_str(&text).with_context(|| format!("{status} {text}"))?))
}

async fn get(host: &Host, path: &str) -> Result<Value> {
    let (status, answer) = ask(host, Request::get(path).body(Body::empty())?).await?;
    ensure!(status == 200, "GET {path}: {status} {answer}");
    Ok(answer)
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
async fn compare(scenario: &Scenario, host: &Host) -> Result<()> {
    let mut expected: HashMap<Key, &Value> = HashMap::new();
    for point in &scenario.points {
        let metric = point["metric"].as_str().context("a metric")?;
        expected.insert(key(metric, &point["time"], &point["labels"])?, &point["value"]);
    }
    let mut seen: HashSet<Key> = HashSet::new();
    let metrics = get(host, "/v1/metrics").await?;
    for metric in metrics["metrics"].as_array().context("metrics")? {
        let name = metric["name"].as_str().context("a name")?;
        if !scenario.points_of.is_empty() && !scenario.points_of.iter().any(|wanted| wanted == name) {
            continue;
        }
        let by: Vec<&str> =
            metric["dimensions"].as_array().context("dimensions")?.iter().filter_map(Value::as_str).collect();
        let (from, to) = (DAY, DAY + 25 * 3_600_000);
        let answer = get(host, &format!("/v1/query?metric={name}&by={}&from={from}&to={to}", by.join(","))).await?;
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
