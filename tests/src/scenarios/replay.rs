//! Scenarios through `tidemark replay`, with several numbers of shards and cuts between batches: the same points each time.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::file::Scenario;
use super::points;
use crate::binary;

pub struct Variant {
    pub name: &'static str,
    shards: &'static str,
    /// So small that events of one scenario spread over many batches.
    batch_bytes: &'static str,
}

pub const VARIANTS: [Variant; 4] = [
    Variant { name: "1_shard", shards: "1", batch_bytes: "1048576" },
    Variant { name: "2_shards", shards: "2", batch_bytes: "300" },
    Variant { name: "5_shards", shards: "5", batch_bytes: "120" },
    Variant { name: "an_event_a_batch", shards: "2", batch_bytes: "1" },
];

pub fn check(scenario: &Scenario, variant: &Variant) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let definitions = folder.path().join("metrics.toml");
    let events = folder.path().join("events.ndjson");
    std::fs::write(&definitions, &scenario.definitions)?;
    std::fs::write(&events, &scenario.events)?;
    let plugins = binary::root().join("plugins");
    let text = |path: &std::path::Path| path.display().to_string();
    let output = binary::run(&[
        "replay",
        "--metrics",
        &text(&definitions),
        "--plugins",
        &text(&plugins),
        "--shards",
        if scenario.one_shard { "1" } else { variant.shards },
        "--batch-bytes",
        variant.batch_bytes,
        "--summary",
        "json",
        &text(&events),
    ])?;
    ensure!(output.status == Some(0), "exit {:?}: {}", output.status, output.stderr);
    if let Some(expected) = &scenario.summary {
        let last = output.stderr.lines().last().context("no summary")?;
        let summary: Value = serde_json::from_str(last).with_context(|| last.to_owned())?;
        for (member, value) in expected.as_object().context("the summary is an object")? {
            ensure!(summary[member] == *value, "summary: {member} is {} and not {value}: {last}", summary[member]);
        }
    }
    if scenario.points.is_empty() && scenario.points_of.is_empty() {
        return Ok(());
    }
    let mut actual = Vec::new();
    for line in output.stdout.lines() {
        let point: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let wanted = scenario.points_of.is_empty() || scenario.points_of.iter().any(|name| point["metric"] == **name);
        if wanted {
            actual.push(point);
        }
    }
    points::compare(&scenario.points, &actual).with_context(|| format!("all that came:\n{}", output.stdout))
}
