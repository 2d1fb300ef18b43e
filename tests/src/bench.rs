//! `tidemark bench` against a running host: what it reports is whole, and what it cannot do it says.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::binary;
use crate::host::{Home, until};
use crate::trial::trial;

/// One that takes longer hangs.
const SECONDS_MAX: &str = "120";

const DEFINITIONS: &str = r#"
[event]
time = "ts"
id = "id"

[dimensions]
category = { field = "props.category" }
type = {}

[metrics]
events = "count()"
revenue = "sum(props.amount) where type = 'purchase'"
users = "uniq(user_id)"
"#;

pub fn trials() -> Vec<Trial> {
    vec![trial("bench::loads_a_host_and_says_how_it_bore_it", loads), trial("bench::says_what_it_cannot_do", cannot)]
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", SECONDS_MAX]).arg(binary::tidemark());
    command.arg("bench").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn result(output: std::process::Output) -> Result<Value> {
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {complained}{said}", output.status);
    serde_json::from_str(&said).with_context(|| said.into_owned())
}

fn loads() -> Result<()> {
    let host = Home::new(DEFINITIONS)?.with_flags(&["--refresh", "200ms"]);
    let host = host.start_ready()?;
    let flags = ["--url", &host.url, "--format", "json"];
    let ingest = [&["ingest", "--rate", "400", "--for", "15s", "--batch", "20", "--connections", "2"], &flags[..]];
    let sending = bench(&ingest.concat()).spawn()?;
    until("events", || Ok((host.sums("metric=events")?.values().sum::<f64>() > 200.0).then_some(())))?;
    let dashboards = ["dashboards", "--connections", "30", "--subscriptions", "12", "--for", "2s", "--storm"];
    let report = result(bench(&[&dashboards[..], &flags].concat()).output()?)?;
    let number = |report: &Value, name: &str| report[name].as_f64().with_context(|| format!("{name}: {report}"));
    ensure!(report["connections"] == 30 && report["subscriptions"] == 12, "{report}");
    ensure!(report["missed"] == 0 && number(&report, "frames")? >= 30.0, "{report}");
    ensure!(number(&report["delivered_ms"], "p99")? < 2_000.0, "{report}");
    ensure!(number(&report, "memory_bytes_per_connection")?.is_finite(), "{report}");
    let storm = &report["storm"];
    ensure!(number(storm, "by_delta")? == 30.0 && storm["by_snapshot"] == 0, "{report}");
    let sent = result(sending.wait_with_output()?)?;
    ensure!(sent["events"] == 6_000 && sent["failed"] == 0 && sent["refused"] == 0, "{sent}");
    ensure!(number(&sent["acknowledged_ms"], "p50")? > 0.0 && number(&sent, "events_per_s")? > 200.0, "{sent}");
    until("all events", || Ok((host.sums("metric=events")?.values().sum::<f64>() == 6_000.0).then_some(())))
}

fn cannot() -> Result<()> {
    // A port that was free a moment ago, and has nobody behind it.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let nobody = format!("http://{nobody}");
    for arguments in [
        &["ingest", "--url", &nobody][..],
        &["dashboards", "--url", &nobody],
        &["ingest", "--url", "127.0.0.1"],
        &["ingest", "--rate", "0"],
        &["dashboards", "--connections", "0"],
        &["dashboards", "--connections", "100000000"],
        &["dashboards", "--for", "soon"],
    ] {
        let output = bench(arguments).output()?;
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{arguments:?}: {}", output.status);
        ensure!(complained.lines().count() == 1 && output.stdout.is_empty(), "{arguments:?}: {complained}");
    }
    Ok(())
}
