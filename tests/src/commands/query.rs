//! `tidemark query` against a real host.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Check, exits};
use crate::binary;
use crate::host::{Home, now_ms};

pub const CHECKS: &[Check] =
    &[("query_prints_a_table_csv_and_json", formats), ("query_tells_what_the_host_says", refusals)];

const DEFINITIONS: &str = r#"
[event]
time = "ts"

[dimensions]
country = {}

[metrics]
events = "count()"
"#;

const MINUTE: i64 = 60_000;

fn formats() -> Result<()> {
    let home = Home::new(DEFINITIONS)?;
    let host = home.start_ready()?;
    let first = now_ms() / MINUTE * MINUTE - 30 * MINUTE;
    let event =
        |minute: i64, country: &str| format!("{{\"ts\":{},\"country\":\"{country}\"}}\n", first + minute * MINUTE);
    host.send(&[event(0, "DE"), event(0, "FR"), event(1, "FR"), event(1, "FR")].concat())?;
    crate::http::counted(&host, 4.0)?;
    let to = (first + 2 * MINUTE).to_string();
    let from = first.to_string();
    let ask = |more: &[&str]| -> Result<String> {
        let always = ["query", "events", "--url", &host.url, "--by", "country"];
        let output = binary::run(&[&always, more].concat())?;
        exits(&output, 0, "")?;
        Ok(output.stdout)
    };
    let table = ask(&["--from", &from, "--to", &to])?;
    let lines: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    ensure!(lines.len() == 3 && lines[0] == ["time", "(UTC)", "FR", "DE"], "{table}");
    ensure!(lines[1][2..] == ["1", "1"] && lines[2][2..] == ["2", "0"], "{table}");
    let csv = ask(&["--last", "1h", "--where", "country=FR", "--format", "csv"])?;
    ensure!(csv.starts_with("time,country,value\n"), "{csv}");
    ensure!(csv.contains(":00Z,FR,1\n") && csv.contains(":00Z,FR,2\n") && !csv.contains("DE"), "{csv}");
    let json: Value = serde_json::from_str(&ask(&["--from", &from, "--to", &to, "--format", "json"])?)?;
    let same = host.get_json(&format!("/v1/query?metric=events&by=country&from={from}&to={to}"))?;
    ensure!(json == same, "{json} {same}");
    host.stop()
}

/// 1 where the host says no, 2 where it cannot be asked.
fn refusals() -> Result<()> {
    let home = Home::new(DEFINITIONS)?.with_flags(&["--read-key", "r"]);
    let host = home.start_ready()?;
    let ask = |arguments: &[&str]| binary::run(&[&["query", "--url", &host.url], arguments].concat());
    exits(&ask(&["events"])?, 1, "a read key is needed\nSend it as `Authorization: Bearer KEY`.")?;
    exits(&ask(&["evnts", "--read-key", "r"])?, 1, "Did you mean `events`?")?;
    exits(&ask(&["events", "--read-key", "r", "--by", "cuontry"])?, 1, "country")?;
    exits(&ask(&["events", "--read-key", "r", "--step", "90s"])?, 1, "A step is a whole number of minutes")?;
    exits(&ask(&["events", "--read-key", "r", "--last", "long"])?, 2, "no duration")?;
    exits(&ask(&["events", "--read-key", "r"])?, 0, "")?;
    exits(&binary::run(&["query", "events", "--url", "http://127.0.0.1:1"])?, 2, "cannot ask http://127.0.0.1:1")
}
