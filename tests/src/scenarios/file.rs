//! A scenario's file: a comment that says why, then sections. See `tests/scenarios/README.md` for the form.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// 2026-03-02T00:00:00Z, a Monday: what `@` counts from.
pub const DAY: i64 = 1_772_409_600_000;

#[derive(Default)]
pub struct Scenario {
    pub definitions: String,
    pub events: Vec<u8>,
    /// What must come out, in order.
    pub points: Vec<Value>,
    /// Metrics whose points are listed; empty: all.
    pub points_of: Vec<String>,
    /// Members that the summary must have.
    pub summary: Option<Value>,
    /// Plugins that the definitions name.
    pub plugins: Vec<String>,
    /// What is judged by arrival comes out otherwise when the events arrive all at once.
    pub replay_only: bool,
    /// What comes first decides, and shards run side by side.
    pub one_shard: bool,
    /// What decides is not of one key, which is all that Kafka keeps in order.
    pub one_partition: bool,
}

impl Scenario {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        ensure!(text.starts_with("# "), "begins with a comment that says why it exists");
        let mut scenario = Self::default();
        let mut section = "";
        for (index, line) in text.lines().enumerate() {
            let at = || format!("line {}", index + 1);
            if let Some(head) = line.strip_prefix("=== ") {
                let (name, rest) = head.split_once(' ').unwrap_or((head, ""));
                section = name;
                scenario.open(section, rest).with_context(at)?;
            } else {
                scenario.add(section, line).with_context(at)?;
            }
        }
        ensure!(!scenario.definitions.is_empty(), "no definitions");
        ensure!(scenario.summary.is_some() || !scenario.points.is_empty(), "nothing is expected");
        scenario.plugins = ["user_agent", "geo_ip"]
            .iter()
            .filter(|plugin| scenario.definitions.contains(&format!("plugin = \"{plugin}\"")))
            .map(ToString::to_string)
            .collect();
        Ok(scenario)
    }

    fn open(&mut self, section: &str, rest: &str) -> Result<()> {
        match section {
            "points" => {
                self.points_of = rest.split_whitespace().map(|name| name.trim_end_matches(',').into()).collect()
            }
            "replay-only" => self.replay_only = true,
            "one-shard" => (self.one_shard, self.one_partition) = (true, true),
            "one-partition" => self.one_partition = true,
            "definitions" | "events" | "summary" => ensure!(rest.is_empty(), "{section} takes nothing"),
            other => bail!("no section is called {other}"),
        }
        Ok(())
    }

    fn add(&mut self, section: &str, line: &str) -> Result<()> {
        match section {
            "definitions" => {
                self.definitions.push_str(line);
                self.definitions.push('\n');
            }
            "events" => {
                self.events.extend(expand(&times(line)?)?);
                self.events.push(b'\n');
            }
            "points" if !line.trim().is_empty() => self.points.push(serde_json::from_str(&times(line)?)?),
            "summary" if !line.trim().is_empty() => self.summary = Some(serde_json::from_str(line)?),
            _ => {}
        }
        Ok(())
    }
}

/// `"@10:00"`, `"@10:00:05"`, `"@10:00:05.250"` become Unix milliseconds; `"@10:00:05/s"` seconds, `/us` and `/ns` the finer ones.
fn times(line: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\"@") {
        let (time, behind) = after.split_once('"').context("an open time")?;
        out.push_str(before);
        let (clock, unit) = time.split_once('/').unwrap_or((time, "ms"));
        let ms = DAY + clock_ms(clock).with_context(|| format!("the time {time:?}"))?;
        match unit {
            "s" => out.push_str(&(ms / 1_000).to_string()),
            "ms" => out.push_str(&ms.to_string()),
            "us" => out.push_str(&format!("{ms}000")),
            "ns" => out.push_str(&format!("{ms}000000")),
            _ => bail!("the unit {unit}"),
        }
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

fn clock_ms(clock: &str) -> Result<i64> {
    let mut parts = clock.split(':');
    let hours: i64 = parts.next().context("no hours")?.parse()?;
    let minutes: i64 = parts.next().context("no minutes")?.parse()?;
    let seconds: f64 = parts.next().unwrap_or("0").parse()?;
    Ok((hours * 60 + minutes) * 60_000 + (seconds * 1_000.0).round() as i64)
}

/// `<xFF>` is the byte 0xFF, `<40*[>` is `[` forty times: what a text file cannot hold or nobody wants to read.
fn expand(line: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('<') {
        out.extend(before.as_bytes());
        let (token, behind) = after.split_once('>').unwrap_or((after, ""));
        if let Some(byte) = token.strip_prefix('x').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
        } else if let Some((times, text)) = token.split_once('*').and_then(|(n, text)| Some((n.parse().ok()?, text))) {
            out.extend(text.as_bytes().repeat(times));
        } else {
            out.extend(b"<");
            rest = after;
            continue;
        }
        rest = behind;
    }
    out.extend(rest.as_bytes());
    Ok(out)
}
