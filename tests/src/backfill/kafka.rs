//! The same with a topic as the log: read again from its partitions, as far back as they reach. Against a real broker.

use std::fs;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tidemark_services::{Kind, missing};

use super::{as_if_it_had_been_there, killed, metric, undo};
use crate::host::{self, Home, Host, until};
use crate::kafka::broker;
use crate::kafka::topic::{self, Put, Writer, put};
use crate::reload::applied;
use crate::trial::trial;

pub fn trials(plugin: bool) -> Vec<Trial> {
    let reason = missing(Kind::Kafka);
    if let Some(reason) = &reason {
        eprintln!("NOT RUN backfill::kafka: {reason}");
    }
    let there = reason.is_none();
    let test = |name: &str, can: bool, run: fn() -> Result<()>| {
        trial(format!("backfill::kafka_{name}"), run).with_ignored_flag(!can)
    };
    vec![
        test("a_new_metric_is_as_if_it_had_been_there", there && plugin, || in_topic("fill", as_if_it_had_been_there)),
        test("kill_9_while_filling", there && plugin, || in_topic("fill-kill", killed)),
        test("removed_it_stops_and_goes_on_when_it_is_back", there && plugin, || in_topic("fill-undo", undo)),
        test("each_message_is_judged_by_its_arrival", there, judged_alike),
        test("what_retention_took_moves_the_mark", there, retention),
        test("of_a_topic_that_has_nothing_left_nothing_is_filled", there, nothing_left),
    ]
}

fn in_topic(name: &str, run: fn(&[&str]) -> Result<()>) -> Result<()> {
    run(&["--kafka", &broker()?, "--topic", name, "--group", name])
}

const OLD: &str = r#"
[event]
time = "ts"
key = "user"
id = "id"
require = ["type"]
[dimensions]
type = {}
client = { field = "ip" }
[metrics]
old = "sum(x)"
"#;

fn with_new() -> String {
    format!("{OLD}new = {{ value = \"sum(x)\", backfill = true }}\n")
}

fn home(name: &str) -> Result<Home> {
    let flags = ["--kafka", &broker()?, "--topic", name, "--group", name, "--checkpoint", "150ms"];
    Ok(Home::new(OLD)?.with_flags(&flags))
}

const HOUR_MS: i64 = 3_600_000;

fn points(host: &Host, metric: &str, by: &str, from: i64) -> Result<Value> {
    let to = host::now_ms() + 600_000;
    host.get_json(&format!("/v1/query?metric={metric}&by={by}&from={from}&to={to}"))
}

/// The sum of all values in the last two days.
fn total(host: &Host, metric: &str) -> Result<f64> {
    let from = host::now_ms() - 48 * HOUR_MS;
    Ok(host.sums(&format!("metric={metric}&from={from}&to={}&step=1h", host::now_ms() + HOUR_MS))?.values().sum())
}

fn shows(host: &Host, metric: &str, wanted: f64) -> Result<()> {
    let mut last = 0.0;
    let reached = until("the events", || {
        last = total(host, metric)?;
        Ok((last == wanted).then_some(()))
    });
    reached.with_context(|| format!("{metric} is {last}, not {wanted}\n{}", host.log()))
}

/// Adds the metric, and waits until nothing more is filled.
fn fill(home: &Home, host: &Host) -> Result<()> {
    applied(host, || Ok(fs::write(home.metrics(), with_new())?))?;
    filled(host)
}

fn filled(host: &Host) -> Result<()> {
    until("the metric to be filled", || Ok((metric(host, "new")?["state"] == "live").then_some(())))
        .with_context(|| host.log())
}

fn equal(host: &Host, from: i64) -> Result<()> {
    for by in ["", "type", "client", "type,client"] {
        let (old, new) = (points(host, "old", by, from)?, points(host, "new", by, from)?);
        ensure!(old["series"][0]["points"].as_array().is_some_and(|points| !points.is_empty()), "{old}");
        ensure!(old["series"] == new["series"], "by {by:?}\nold {old}\nnew {new}\n{}", host.log());
    }
    Ok(())
}

/// Late, ahead, seen before, no event at all: the second reading says of each message what the first one said.
fn judged_alike() -> Result<()> {
    let name = "fill-alike";
    let home = home(name)?;
    let host = home.start_ready()?;
    let writer = Writer::in_transactions(&broker()?, name)?;
    let now = host::now_ms();
    let at = |hours: i64, minutes: i64| now - hours * HOUR_MS + minutes * 60_000;
    let event = |ts: i64, id: &str, kind: &str, x: u32| {
        format!(r#"{{"ts":{ts},"id":"{id}","user":"u","type":"{kind}","x":{x}}}"#)
    };
    // Event time, arrival, id, x. Counted are 1, 8, 16 and 32: the others are late, ahead, or seen within ten minutes.
    let cases = [
        (at(26, 0), at(3, 0), "a", 1),
        (at(29, 0), at(3, 0), "b", 2),
        (at(2, 0), at(3, 0), "c", 4),
        (at(3, 0), at(3, 0), "d", 8),
        (at(3, 0), at(3, 9), "d", 64),
        (at(3, 0), at(3, 11), "d", 16),
        (at(1, 0), at(1, 0), "e", 32),
    ];
    let events: Vec<_> = cases.iter().map(|(ts, arrival, id, x)| (event(*ts, id, id, *x), *arrival)).collect();
    let headers = [("ip", "10.0.0.9")];
    let message = |(event, arrival): &'_ (String, i64)| (event.clone(), *arrival);
    let mut all: Vec<(String, i64)> = events.iter().map(message).collect();
    // No event, several in one, one over several lines, of another partition.
    all.push(("no event".into(), at(1, 1)));
    all.push((format!("{}\n{{\"no\":\"type\"}}\n{}", event(now, "f", "f", 128), event(now, "g", "g", 256)), at(0, 0)));
    let messages: Vec<Put<'_>> = all
        .iter()
        .map(|(text, arrival)| Put { key: Some("u"), timestamp: Some(*arrival), headers: &headers, ..put(text) })
        .collect();
    writer.transaction(&messages, true)?;
    let aborted = event(now, "h", "h", 1_024);
    writer.transaction(&[Put { key: Some("u"), ..put(&aborted) }], false)?;
    let spread = "{\n \"id\": \"i\",\n \"type\": \"i\",\n \"x\": 512,\n \"ip\": \"10.9.9.9\"\n}\n";
    writer.transaction(&[Put { partition: Some(11), ..put(spread) }], true)?;
    let wanted = f64::from(1 + 8 + 16 + 32 + 128 + 256 + 512);
    shows(&host, "old", wanted)?;
    fill(&home, &host)?;
    shows(&host, "new", wanted)?;
    equal(&host, now - 48 * HOUR_MS)?;
    ensure!(metric(&host, "new")?["complete_from"] == 0, "{}", metric(&host, "new")?);
    let told = host.get("/metrics")?.text;
    ensure!(told.contains("\ntidemark_backfill_events_total 7\n"), "{told}");
    host.stop()
}

/// The topic no longer has its beginning: what is there is filled, and the metric is complete behind what is not.
fn retention() -> Result<()> {
    let name = "fill-lost";
    let (home, brokers) = (home(name)?, broker()?);
    let host = home.start_ready()?;
    let writer = Writer::new(&brokers, name)?;
    let now = host::now_ms();
    let write = |first: u32, count: u32, arrival: i64| -> Result<()> {
        for number in first..first + count {
            let event = format!(r#"{{"ts":{arrival},"id":"{number}","user":"u{number}","type":"a","x":1}}"#);
            let key = format!("u{number}");
            writer.put(Put { key: Some(&key), timestamp: Some(arrival), ..put(&event) })?;
        }
        writer.flush()
    };
    write(0, 100, now - 5 * HOUR_MS)?;
    shows(&host, "old", 100.0)?;
    topic::delete_records(&brokers, name)?;
    write(100, 200, now - 2 * HOUR_MS)?;
    write(300, 10, now - HOUR_MS)?;
    shows(&host, "old", 310.0)?;
    fill(&home, &host)?;
    shows(&host, "new", 210.0)?;
    // The minute behind the first arrival that is still there, `dedupe` and `ahead` added to it.
    let complete = ((now - 2 * HOUR_MS + 15 * 60_000) / 60_000 + 1) * 60_000;
    let told = metric(&host, "new")?;
    ensure!(told["complete_from"] == complete, "{told}, not {complete}");
    host.kill()?;
    // What was not on disk yet is filled again.
    let host = home.start_ready()?;
    filled(&host)?;
    ensure!(metric(&host, "new")?["complete_from"] == complete, "{}", metric(&host, "new")?);
    equal(&host, now - 3 * HOUR_MS)?;
    shows(&host, "new", 210.0)?;
    host.stop()
}

/// Nothing of what was counted is left: the metric is complete from where it came.
fn nothing_left() -> Result<()> {
    let name = "fill-nothing";
    let (home, brokers) = (home(name)?, broker()?);
    let host = home.start_ready()?;
    let event = |number: u32| format!(r#"{{"id":"{number}","user":"u{number}","type":"a","x":1}}"#) + "\n";
    host.send(&(0..50).map(event).collect::<String>())?;
    shows(&host, "old", 50.0)?;
    topic::delete_records(&brokers, name)?;
    let before = host::now_ms();
    fill(&home, &host)?;
    host.send(&(50..60).map(event).collect::<String>())?;
    shows(&host, "old", 60.0)?;
    shows(&host, "new", 10.0)?;
    let told = metric(&host, "new")?;
    let complete = told["complete_from"].as_i64().with_context(|| told.to_string())?;
    ensure!((before..before + 10 * 60_000).contains(&complete), "{told}");
    host.stop()
}
