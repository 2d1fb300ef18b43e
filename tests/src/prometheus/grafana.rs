//! What Grafana's Prometheus data source asks (tests/grafana/requests.json, after its source of version 11), and what the
//! dashboard in deploy/grafana asks of the example's definitions.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Check, FORM, MINUTE, encode, filled, start};
use crate::binary;
use crate::host::{Answer, Home, Host, now_ms, until};

pub const CHECKS: &[Check] = &[("grafanas_requests_are_answered", requests), ("the_dashboard_has_its_data", dashboard)];

fn requests() -> Result<()> {
    let (_home, host) = start(&[])?;
    let first = filled(&host)?;
    let text = std::fs::read_to_string(binary::root().join("tests/grafana/requests.json"))?;
    let seconds = |ms: i64| (ms / 1_000).to_string();
    let end = first + 19 * MINUTE;
    // Whole hours before the end, so that the last instant asked for is the end.
    let places = [("$start", seconds(first)), ("$end", seconds(end)), ("$month", seconds(end - 20 * 24 * 60 * MINUTE))];
    let text = places.iter().fold(text, |text, (name, value)| text.replace(name, value));
    let requests: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(requests.len() > 30, "{} requests", requests.len());
    for request in &requests {
        let what = request["what"].as_str().context("what")?;
        let answer = ask(&host, request).with_context(|| what.to_owned())?;
        compare(request, &answer).with_context(|| format!("{what}: {} {}", answer.status, answer.text))?;
    }
    Ok(())
}

fn ask(host: &Host, request: &Value) -> Result<Answer> {
    let path = request["path"].as_str().context("path")?;
    let parameters = request["parameters"].as_object().context("parameters")?;
    let parameters: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value.as_str().unwrap_or_default())))
        .collect();
    let parameters = parameters.join("&");
    match request["method"].as_str() {
        Some("POST") => host.post_to(path, parameters.as_bytes(), &[FORM]),
        _ => host.get(&format!("{path}?{parameters}")),
    }
}

/// The status, the type of the result, and how many or which there are.
fn compare(request: &Value, answer: &Answer) -> Result<()> {
    ensure!(answer.status as u64 == request["status"].as_u64().context("status")?, "another status");
    let answer = answer.json()?;
    let kind = request["type"].as_str().context("type")?;
    let data = &answer["data"];
    let list = match kind {
        "scalar" | "vector" | "matrix" => {
            ensure!(data["resultType"] == kind, "another type");
            &data["result"]
        }
        "strings" | "objects" => data,
        "info" => {
            ensure!(
                answer["status"] == "success" && data.as_object().is_some_and(|data| !data.is_empty()),
                "no object"
            );
            return Ok(());
        }
        error => {
            ensure!(answer["status"] == "error" && answer["errorType"] == error, "another error");
            ensure!(answer["error"].as_str().is_some_and(|text| !text.is_empty()), "no reason");
            return Ok(());
        }
    };
    ensure!(answer["status"] == "success");
    match &request["expected"] {
        Value::Null => {}
        Value::Number(count) => ensure!(list.as_array().map(|list| list.len() as u64) == count.as_u64(), "not {count}"),
        exactly => ensure!(list == exactly, "not {exactly}"),
    }
    Ok(())
}

/// The example's definitions, with the enrichments' outputs as fields of the event.
fn example() -> Result<String> {
    let text = std::fs::read_to_string(binary::root().join("metrics.toml"))?;
    let tables = text.split("\n[").filter(|table| !table.starts_with("enrich."));
    let tables: Vec<String> = tables
        .map(|table| {
            table.lines().filter(|line| !line.contains("plugin =")).fold(String::new(), |all, line| all + line + "\n")
        })
        .collect();
    Ok(tables.join("\n["))
}

fn dashboard() -> Result<()> {
    let home = Home::new(&example()?)?;
    let host = home.start_ready()?;
    let first = now_ms() / MINUTE * MINUTE - 30 * MINUTE;
    let mut lines = String::new();
    for minute in 0..20 {
        for (kind, ms) in [("page_view", 5), ("purchase", 20), ("error", 70)] {
            let ts = first + minute * MINUTE + ms;
            lines += &format!(
                "{{\"ts\":{ts},\"type\":\"{kind}\",\"user_id\":\"u{minute}\",\"country\":\"DE\",\"device\":\"desktop\",\
                 \"props\":{{\"amount\":2,\"ms\":{ms},\"category\":\"toys\"}}}}\n"
            );
        }
    }
    host.send(&lines)?;
    until("60 events", || {
        let sums = host.sums(&format!("metric=events&from={first}"))?;
        Ok((sums.values().sum::<f64>() == 60.0).then_some(()))
    })?;
    let text = std::fs::read_to_string(binary::root().join("deploy/grafana/dashboards/shop.json"))?;
    let board: Value = serde_json::from_str(&text)?;
    let (start, end) = (first / 1_000, (first + 19 * MINUTE) / 1_000);
    let mut asked = 0;
    for panel in board["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().context("targets")? {
            let expression = target["expr"].as_str().context("expr")?;
            // The hour before holds nothing.
            let expression =
                expression.replace("$country", ".*").replace("$__interval", "15s").replace(" offset 1h", " offset 1m");
            let path = match target["instant"].as_bool() {
                Some(true) => format!("/api/v1/query?query={}&time={end}", encode(&expression)),
                _ => format!("/api/v1/query_range?query={}&start={start}&end={end}&step=15", encode(&expression)),
            };
            let answer = host.get_json(&path)?;
            let result = answer["data"]["result"].as_array().context("result")?;
            ensure!(!result.is_empty(), "{}: {expression}: {answer}", panel["title"]);
            asked += 1;
        }
    }
    ensure!(asked >= 10, "{asked} panels were asked for");
    let values = host.get_json(&format!("/api/v1/label/country/values?match[]=events&start={start}&end={end}"))?;
    ensure!(values["data"] == serde_json::json!(["DE"]), "{values}");
    Ok(())
}
