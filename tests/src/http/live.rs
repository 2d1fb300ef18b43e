//! The live protocol as a browser speaks it.

use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use super::{Check, DEFINITIONS, counted, start};
use crate::host::{DEADLINE, Home, Host, now_ms, until};

pub const CHECKS: &[Check] = &[
    ("live_snapshot_then_changes", changes),
    ("live_corrects_a_funnel_backwards", funnels),
    ("live_tells_what_it_does_not_know", errors),
    ("live_tells_of_reloads", reloads),
    ("live_from_elsewhere_is_refused", origins),
];

pub type Socket = WebSocket<TcpStream>;

pub fn connect(host: &Host, origin: Option<&str>) -> Result<Socket> {
    let address = host.url.trim_start_matches("http://");
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut request = format!("ws://{address}/v1/live").into_client_request()?;
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse()?);
    }
    Ok(tungstenite::client(request, stream).map_err(|error| anyhow::anyhow!("{error}"))?.0)
}

pub fn say(socket: &mut Socket, message: &Value) -> Result<()> {
    Ok(socket.send(Message::text(message.to_string()))?)
}

/// The next frame with one of these `op`s; others are passed over.
pub fn hear_any(socket: &mut Socket, ops: &[&str]) -> Result<Value> {
    until(&format!("a frame of {ops:?}"), || match socket.read()? {
        Message::Text(text) => {
            let frame: Value = serde_json::from_str(&text)?;
            let op = frame["op"].as_str().unwrap_or_default();
            ensure!(op != "error" || ops.contains(&op), "{frame}");
            Ok(ops.contains(&op).then_some(frame))
        }
        Message::Close(reason) => bail!("closed: {reason:?}"),
        // Pings come as long as the host lives.
        _ => Ok(None),
    })
}

pub fn hear(socket: &mut Socket, op: &str) -> Result<Value> {
    hear_any(socket, &[op])
}

pub fn lively() -> Result<(Home, Host)> {
    let home = Home::new(DEFINITIONS)?.with_flags(&["--refresh", "100ms"]);
    let host = home.start_ready()?;
    Ok((home, host))
}

pub fn event(country: &str) -> String {
    format!("{{\"ts\":{},\"country\":\"{country}\",\"x\":1}}\n", now_ms())
}

/// The value of a series in a snapshot with the deltas after it, summed over its points.
fn changes() -> Result<()> {
    let (_home, host) = lively()?;
    host.send(&event("DE"))?;
    counted(&host, 1.0)?;
    let mut socket = connect(&host, None)?;
    say(&mut socket, &json!({"op": "subscribe", "id": "a", "metric": "events", "range": "1h", "by": ["country"]}))?;
    let snapshot = hear(&mut socket, "snapshot")?;
    ensure!(snapshot["id"] == "a" && snapshot["step_ms"] == 60_000 && snapshot["revision"].is_u64(), "{snapshot}");
    let mut points = std::collections::HashMap::new();
    let mut names = Vec::new();
    for (index, series) in snapshot["series"].as_array().context("series")?.iter().enumerate() {
        names.push(series["labels"]["country"].as_str().unwrap_or_default().to_owned());
        for point in series["points"].as_array().context("points")? {
            points.insert((index as u64, point[0].as_i64()), point[1].as_f64());
        }
    }
    ensure!(names == ["DE"], "{snapshot}");
    host.send(&format!("{}{}{}", event("DE"), event("FR"), event("FR")))?;
    let mut seq = snapshot["seq"].as_u64().context("seq")?;
    let sum = |points: &std::collections::HashMap<_, Option<f64>>| points.values().flatten().sum::<f64>();
    while sum(&points) < 4.0 {
        let delta = hear(&mut socket, "delta")?;
        ensure!(delta["id"] == "a" && delta["prev"] == seq, "after {seq}: {delta}");
        let next = delta["seq"].as_u64().context("seq")?;
        ensure!(next > seq, "{delta}");
        seq = next;
        for series in delta["new_series"].as_array().into_iter().flatten() {
            names.push(series["labels"]["country"].as_str().unwrap_or_default().to_owned());
        }
        for point in delta["points"].as_array().context("points")? {
            points.insert((point[0].as_u64().context("an index")?, point[1].as_i64()), point[2].as_f64());
        }
    }
    ensure!(sum(&points) == 4.0 && names == ["DE", "FR"], "{points:?} {names:?}");
    say(&mut socket, &json!({"op": "unsubscribe", "id": "a"}))
}

/// A later step changes the point of its first one, minutes before it.
fn funnels() -> Result<()> {
    let definitions = DEFINITIONS.replace("id = \"id\"\n", "id = \"id\"\nkey = \"user\"\n");
    let funnel = "path = \"funnel('30m', type = 'view', type = 'buy')\"\npages = \"top(2, type)\"\n";
    let home = Home::new(&format!("{definitions}{funnel}"))?.with_flags(&["--refresh", "100ms"]);
    let host = home.start_ready()?;
    let first = now_ms() / 60_000 * 60_000 - 50 * 60_000;
    let event = |minute: i64, kind: &str, user: &str| {
        format!("{{\"ts\":{},\"type\":\"{kind}\",\"user\":\"{user}\"}}\n", first + minute * 60_000)
    };
    host.send(&format!("{}{}{}", event(0, "view", "a"), event(0, "view", "b"), event(40, "view", "c")))?;
    counted(&host, 3.0)?;
    let mut socket = connect(&host, None)?;
    say(&mut socket, &json!({"op": "subscribe", "id": "a", "metric": "path", "range": "1h"}))?;
    let snapshot = hear(&mut socket, "snapshot")?;
    let at = |minute: i64| first + minute * 60_000;
    ensure!(snapshot["series"][0]["points"] == json!([[at(0), [2, 0]], [at(40), [1, 0]]]), "{snapshot}");
    // The span has to be over.
    let provisional = snapshot["provisional_from"].as_i64().context("provisional_from")?;
    ensure!((at(0)..at(40)).contains(&provisional), "{snapshot}");
    let asked = format!("/v1/query?metric=path&from={}&to={}", at(-1), at(49));
    ensure!(host.get_json(&asked)?["series"][0]["points"][0] == json!([at(0), [2, 0]]));
    host.send(&format!("{}{}", event(30, "buy", "a"), event(31, "buy", "b")))?;
    let delta = hear(&mut socket, "delta")?;
    ensure!(delta["points"] == json!([[0, at(0), [2, 1]]]), "{delta}");
    ensure!(host.get_json(&asked)?["series"][0]["points"][0] == json!([at(0), [2, 1]]), "a query sees it too");
    let top = host.get_json(&format!("/v1/query?metric=pages&from={}&to={}&step=1h", at(-60), at(130)))?;
    let points = top["series"][0]["points"].as_array().context("points")?;
    let counted: i64 =
        points.iter().flat_map(|point| point[1].as_array()).flatten().filter_map(|it| it[1].as_i64()).sum();
    ensure!(counted == 5, "{top}");
    let metrics = host.get_json("/v1/metrics")?;
    let path = metrics["metrics"].as_array().and_then(|list| list.iter().find(|metric| metric["name"] == "path"));
    let path = path.context("the metric")?;
    ensure!(path["value"] == "funnel" && path["steps"] == json!(["type = 'view'", "type = 'buy'"]), "{path}");
    Ok(())
}

fn errors() -> Result<()> {
    let (_home, host) = start()?;
    let mut socket = connect(&host, None)?;
    for (question, code) in [
        (json!({"op": "subscribe", "id": "a", "metric": "event"}), "unknown_metric"),
        (json!({"op": "subscribe", "id": "b", "metric": "events", "by": ["contry"]}), "unknown_dimension"),
    ] {
        say(&mut socket, &question)?;
        let error = hear(&mut socket, "error")?;
        ensure!(error["id"] == question["id"] && error["code"] == code && error["message"].is_string(), "{error}");
    }
    for odd in ["", "no json", "{}", "[]", "{\"op\":\"dance\",\"id\":\"c\"}", "{\"op\":\"subscribe\"}"] {
        socket.send(Message::text(odd))?;
        hear(&mut socket, "error").with_context(|| format!("after {odd:?}"))?;
    }
    // It still answers.
    say(&mut socket, &json!({"op": "subscribe", "id": "d", "metric": "events"}))?;
    hear(&mut socket, "snapshot").map(drop)
}

fn reloads() -> Result<()> {
    let (home, host) = lively()?;
    let mut socket = connect(&host, None)?;
    say(&mut socket, &json!({"op": "subscribe", "id": "a", "metric": "mean"}))?;
    hear(&mut socket, "snapshot")?;
    std::fs::write(home.metrics(), format!("{DEFINITIONS}orders = \"count()\"\n"))?;
    let told = hear(&mut socket, "definitions")?;
    ensure!(told["added"] == json!(["orders"]) && told["removed"] == json!([]), "{told}");
    std::fs::write(home.metrics(), format!("{DEFINITIONS}orders = \"cuont()\"\n"))?;
    let told = hear(&mut socket, "definitions")?;
    ensure!(told["rejected"].as_array().is_some_and(|diagnostics| diagnostics.len() == 1), "{told}");
    std::fs::write(home.metrics(), DEFINITIONS.replace("mean = \"avg(x)\"\n", ""))?;
    let removed = hear(&mut socket, "error")?;
    ensure!(removed["id"] == "a" && removed["code"] == "metric_removed", "{removed}");
    Ok(())
}

fn origins() -> Result<()> {
    let (_home, host) = start()?;
    ensure!(connect(&host, Some("https://elsewhere.example")).is_err(), "another origin was let in");
    ensure!(connect(&host, Some(&host.url)).is_ok(), "its own page was not let in");
    Ok(())
}
