//! ClickHouse is down for hours, by a clock that stands where it is put: what waits for it is bounded, and when it is back all of it
//! is there.

use anyhow::{Result, ensure};
use axum::body::Body;
use axum::http::Request;
use libtest_mimic::Trial;
use serde_json::Value;
use tidemark::runtime::host::{Host, HostSettings};
use tidemark::store::clickhouse::Address;
use tidemark::time::{Clock, HOUR_MS, MINUTE_MS};
use tidemark_services::{Kind, Service};

use crate::host::now_ms;
use crate::inside;
use crate::services::with;

const DEFINITIONS: &str = r#"
[event]
time = "ts"
lateness = "1m"

[dimensions]
shop = {}

[metrics]
events = "count()"
"#;
/// Some hours of 200 shops, of which one event each.
const WAITING_BYTES_MAX: usize = 20_000;
const SHOPS: usize = 200;

pub fn trials() -> Vec<Trial> {
    vec![with(Kind::ClickHouse, "outage: what waits for ClickHouse is bounded, and nothing is lost", bounded)]
}

struct Outage {
    runtime: tokio::runtime::Runtime,
    host: Host,
    accepted: usize,
}

impl Outage {
    fn ask(&self, request: Request<Body>) -> Result<(u16, Value)> {
        self.runtime.block_on(inside::ask(&self.host.router, request))
    }

    /// An event for each shop. False: they were not taken.
    fn send(&mut self) -> Result<bool> {
        let ts = self.host.clock.now();
        let body: String = (0..SHOPS).map(|shop| format!("{{\"ts\":{ts},\"shop\":\"s{shop}\"}}\n")).collect();
        let request = Request::post("/v1/events").header("content-type", "application/x-ndjson");
        let (status, answer) = self.ask(request.body(Body::from(body))?)?;
        ensure!(matches!(status, 202 | 503), "{status} {answer}");
        if status == 202 {
            self.accepted += SHOPS;
        } else {
            ensure!(answer.to_string().contains("wait for ClickHouse"), "{answer}");
        }
        Ok(status == 202)
    }

    /// An hour later.
    fn pass(&self) -> Result<()> {
        self.host.tick()?;
        self.host.clock.set(self.host.clock.now() + HOUR_MS);
        self.host.tick()?;
        Ok(self.host.ticker.checkpoint(self.host.clock.now())?)
    }

    fn ready(&self) -> Result<(u16, Value)> {
        self.ask(Request::get("/health/ready").body(Body::empty())?)
    }

    fn waiting_bytes(&self) -> i64 {
        self.host.services.telemetry.clickhouse.history_waiting_bytes.get()
    }
}

fn bounded() -> Result<()> {
    let mut service = Service::start(Kind::ClickHouse)?;
    service.stop()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("metrics.toml"), DEFINITIONS)?;
    let clock = Clock::manual(now_ms() / HOUR_MS * HOUR_MS - 24 * HOUR_MS + MINUTE_MS);
    let address = Address::parse(&format!("http://{}/shop", service.address())).map_err(anyhow::Error::msg)?;
    let host = Host::start(HostSettings {
        clickhouse: Some(address),
        history_waiting_bytes_max: WAITING_BYTES_MAX,
        ..inside::settings(folder.path(), clock)
    })?;
    host.recover()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut outage = Outage { runtime, host, accepted: 0 };
    let mut hours = 0;
    while outage.send()? {
        outage.pass()?;
        hours += 1;
        ensure!(hours < 20, "it is never full: {} bytes wait", outage.waiting_bytes());
        let (status, answer) = outage.ready()?;
        let full = outage.waiting_bytes() > WAITING_BYTES_MAX as i64;
        ensure!(
            (status == 503) == full && answer.to_string().contains("no more events are counted") == full,
            "{answer}"
        );
    }
    ensure!(
        hours > 3 && outage.waiting_bytes() < 2 * WAITING_BYTES_MAX as i64,
        "{hours} hours, {} bytes",
        outage.waiting_bytes()
    );
    service.start_again()?;
    outage.pass()?;
    ensure!(outage.waiting_bytes() == 0 && outage.ready()?.0 == 200, "{:?}", outage.ready()?);
    ensure!(outage.send()?, "taken again");
    outage.pass()?;
    for table in ["minutes", "hours"] {
        let counted = crate::clickhouse::ask(&service, &format!("SELECT sum(count) FROM shop.{table} FINAL"))?;
        ensure!(counted == outage.accepted.to_string(), "{table}: {counted} of {}", outage.accepted);
    }
    Ok(())
}
