//! In this process, by a clock that is put forward: what has to last, what a host that is behind says, restarts.

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::http::Request;
use tidemark::runtime::host::{Host, HostSettings};
use tidemark::time::{Clock, MINUTE_MS};

use crate::inside::{self, ask, get};

const DEFINITIONS: &str = r#"
[event]
time = "ts"

[dimensions]
country = {}

[metrics]
events = "count()"

[anomalies]
many = { metric = "events", rule = "threshold", above = 2, by = ["country"] }

[notify.oncall]
webhook = "http://127.0.0.1:9/hook"
for = "3m"
"#;

/// Half a minute past the hour.
const BEGIN: i64 = 1_704_110_430_000;

struct Story {
    folder: tempfile::TempDir,
    clock: Clock,
    host: Option<Host>,
}

impl Story {
    fn start(&mut self) -> Result<()> {
        self.host = None;
        let settings = inside::settings(self.folder.path(), self.clock.clone());
        let host = inside::start(HostSettings { shards: 2, ..settings })?;
        host.recover()?;
        self.host = Some(host);
        Ok(())
    }

    fn host(&self) -> Result<&Host> {
        self.host.as_ref().context("started")
    }

    /// So many events of a country, now.
    async fn send(&self, country: &str, events: usize) -> Result<()> {
        let line = format!("{{\"ts\":{},\"country\":\"{country}\"}}\n", self.clock.now());
        let request = Request::post("/v1/events").header("content-type", "application/x-ndjson");
        let (status, answer) = ask(&self.host()?.router, request.body(Body::from(line.repeat(events)))?).await?;
        ensure!(status == 202, "{status} {answer}");
        Ok(())
    }

    fn forward(&self, minutes: i64) {
        self.clock.set(self.clock.now() + minutes * MINUTE_MS);
    }

    /// `silent`, or `DE firing 0`: each alert with the minute since which, from the beginning.
    async fn seen(&self) -> Result<String> {
        self.host()?.look();
        let status = get(&self.host()?.router, "/v1/alerts").await?;
        if let Some(why) = status["silent"].as_str() {
            return Ok(format!("silent: {why}"));
        }
        let alert = |alert: &serde_json::Value| {
            let since = alert["since"].as_i64().unwrap_or_default() - (BEGIN - BEGIN % MINUTE_MS);
            format!("{} {} {}", alert["labels"]["country"], alert["phase"], since / MINUTE_MS).replace('"', "")
        };
        Ok(status["alerts"].as_array().context("alerts")?.iter().map(alert).collect::<Vec<_>>().join(", "))
    }

    async fn sees(&self, expected: &str) -> Result<()> {
        let seen = self.seen().await?;
        ensure!(seen == expected, "`{seen}` instead of `{expected}`");
        Ok(())
    }
}

pub fn by_the_clock() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("metrics.toml"), DEFINITIONS)?;
    runtime.block_on(lasting(Story { folder, clock: Clock::manual(BEGIN), host: None }))
}

const SILENT: &str = r#"
[event]
time = "ts"

[dimensions]
country = {}

[metrics]
events = "count()"

[anomalies]
events = { rule = "absent", for = "3m", baseline = "1h", by = ["country"] }
all = { metric = "events", rule = "absent", for = "3m", baseline = "1h" }

[notify.oncall]
webhook = "http://127.0.0.1:9/hook"
"#;

pub fn silence() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("metrics.toml"), SILENT)?;
    runtime.block_on(silent(Story { folder, clock: Clock::manual(BEGIN), host: None }))
}

async fn silent(mut story: Story) -> Result<()> {
    story.start()?;
    // Nobody misses what was never there.
    story.host()?.tick()?;
    story.sees("").await?;
    story.send("DE", 1).await?;
    story.send("US", 1).await?;
    for _ in 0..3 {
        story.forward(1);
        story.send("US", 1).await?;
        story.host()?.tick()?;
        story.sees("").await?;
    }
    // The third minute without an event is closed.
    story.forward(1);
    story.host()?.tick()?;
    story.sees("DE firing 3").await?;
    let answer = get(&story.host()?.router, "/v1/query?metric=events&by=country&from=-1h").await?;
    let anomalies = &answer["series"][0]["anomalies"];
    let t = BEGIN - BEGIN % MINUTE_MS + 3 * MINUTE_MS;
    ensure!(anomalies[0]["t"] == t && anomalies[0]["value"] == 0 && anomalies[0]["score"] == 3, "{answer}");
    ensure!(answer["series"][0]["band"] == serde_json::json!([]), "{answer}");
    // Seen from a range without any event, too.
    let answer = get(&story.host()?.router, "/v1/query?metric=events&by=country&from=-1m").await?;
    ensure!(
        answer["series"][0]["labels"]["country"] == "DE" && answer["series"][0]["points"] == serde_json::json!([]),
        "{answer}"
    );
    // One event is enough, and the rest falls silent.
    story.send("DE", 1).await?;
    story.host()?.tick()?;
    story.sees("DE ended 3").await?;
    story.forward(4);
    story.host()?.tick()?;
    story.sees("null firing 7, DE firing 3, US firing 6").await
}

async fn lasting(mut story: Story) -> Result<()> {
    story.start()?;
    story.send("DE", 3).await?;
    story.send("US", 2).await?;
    story.host()?.tick()?;
    story.sees("DE pending 0").await?;
    // A minute later the other one, too.
    story.forward(1);
    story.send("DE", 3).await?;
    story.send("US", 3).await?;
    story.host()?.tick()?;
    story.sees("DE pending 0, US pending 1").await?;
    // It is normal again before it has lasted: nobody hears of it.
    story.forward(1);
    story.send("DE", 5).await?;
    story.send("US", 1).await?;
    story.host()?.tick()?;
    story.sees("DE pending 0, US pending 1").await?;
    story.forward(1);
    story.send("DE", 3).await?;
    story.host()?.tick()?;
    story.sees("DE firing 0").await?;
    // Another host goes on where this one stood.
    story.start()?;
    story.host()?.tick()?;
    story.sees("DE firing 0").await?;
    // It stands still: what is missing is no news.
    story.forward(10);
    story.sees("silent: catching up: 620 s behind").await?;
    story.host()?.tick()?;
    story.sees("DE ended 0").await?;
    story.start()?;
    story.sees("DE ended 0").await
}
