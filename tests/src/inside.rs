//! A host in this process, without tasks of its own: it ticks and looks when it is told to, and its clock stands where it is put.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use tidemark::ingest::http;
use tidemark::ingest::journal::JournalSettings;
use tidemark::plugin::Limits;
use tidemark::runtime::host::{Host, HostSettings, StartError};
use tidemark::runtime::roles::Roles;
use tidemark::serve;
use tidemark::time::Clock;
use tidemark::web::Keys;
use tower::ServiceExt;

const ANSWER_BYTES_MAX: usize = 64 << 20;

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
        backfill_percent_max: 100,
        journal: JournalSettings::default(),
        kafka: None,
        clickhouse: None,
        redis: None,
        roles: Roles::ALL,
        limits: Limits::default(),
        http: http::Settings {
            keys: Keys::default(),
            allow_origin: Vec::new(),
            trusted_proxies: vec![],
            body_bytes_max: bytes_max,
            inflight_bytes_max: bytes_max,
        },
        serve: serve::Settings::default(),
        demo: None,
        clock,
    }
}

/// Not recovered yet.
pub fn start(settings: HostSettings) -> Result<Host> {
    match Host::start(settings) {
        Ok(host) => Ok(host),
        Err(StartError::Definitions(diagnostics)) => bail!("{diagnostics:?}"),
        Err(StartError::Other(error)) => Err(error),
    }
}

pub async fn ask(router: &Router, request: Request<Body>) -> Result<(u16, Value)> {
    let response = router.clone().oneshot(request).await?;
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await?;
    let text = String::from_utf8_lossy(&bytes);
    Ok((status, serde_json::from_str(&text).with_context(|| format!("{status} {text}"))?))
}

pub async fn get(router: &Router, path: &str) -> Result<Value> {
    let (status, answer) = ask(router, Request::get(path).body(Body::empty())?).await?;
    ensure!(status == 200, "GET {path}: {status} {answer}");
    Ok(answer)
}

pub async fn is_ready(router: &Router) -> Result<bool> {
    Ok(ask(router, Request::get("/health/ready").body(Body::empty())?).await?.0 == 200)
}
