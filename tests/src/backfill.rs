//! A new metric that is marked `backfill = true` ends up with exactly the points that it would have had from the start: beside
//! each metric that was there stands one that came later, and their answers are compared. Under load, over kill -9 in the midst
//! of filling, and over an undo. From the journal here, from a topic in `kafka`.

mod kafka;

use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::binary;
use crate::host::{self, Home, Host, NDJSON, until};
use crate::reload::applied;
use crate::trial::trial;

const CLIENTS: usize = 3;
const EVENTS_A_BATCH: usize = 20;
const KILLS: usize = 6;

const HEAD: &str = r#"
[event]
time = "ts"
key = "user"
id = "id"
lateness = "2h"

[enrich.agent]
plugin = "user_agent"
input = ["agent"]
output = ["device", "browser", "os"]

[dimensions]
country = {}
browser = {}
page = { limit = 3 }
place = { field = "props.place" }

[metrics]
"#;

/// `NAME`, the expression and the rest of its table, and what it is asked by.
const METRICS: &[(&str, &str, &[&str])] = &[
    ("events", r#"value = "count()", by = ["country", "browser"]"#, &["", "country", "browser", "country,browser"]),
    ("amount", r#"value = "sum(props.x) / count() where type = 'buy'", window = "5m", by = ["page"]"#, &["", "page"]),
    ("bounds", r#"value = "max(props.x) - min(props.x)", by = ["browser", "page"]"#, &["", "browser", "browser,page"]),
    ("users", r#"value = "uniq(user) where type <> 'view'", window = "1h", by = ["country"]"#, &["", "country"]),
    ("p90", r#"value = "quantile(0.9, props.x)", by = ["country"]"#, &["", "country"]),
    ("pages", r#"value = "top(5, page)", by = ["country"]"#, &["", "country"]),
    (
        "way",
        r#"value = "funnel('30m', type = 'view', type = 'cart', type = 'buy')", by = ["browser"]"#,
        &["", "browser"],
    ),
    // Which combinations are kept depends on what comes first; totals and those by the first dimension do not.
    ("places", r#"value = "count()", by = ["country", "place"], limit = 20"#, &["", "country"]),
];

const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "curl/8.0",
];

pub fn trials() -> Vec<Trial> {
    let plugin = binary::plugins_with("user_agent").is_some();
    let test = |name: &str, run: fn() -> Result<()>| trial(format!("backfill::{name}"), run);
    let with_plugin = |name: &str, run: fn() -> Result<()>| test(name, run).with_ignored_flag(!plugin);
    let mut trials = vec![
        with_plugin("a_new_metric_is_as_if_it_had_been_there", || as_if_it_had_been_there(&[])),
        with_plugin("kill_9_while_filling", || killed(&[])),
        with_plugin("removed_it_stops_and_goes_on_when_it_is_back", || undo(&[])),
        with_plugin("added_while_the_host_was_down", added_while_down),
        test("what_memory_has_forgotten_is_filled_in_history", history),
        test("without_the_mark_nothing_is_filled", without_the_mark),
        test("where_it_cannot_be_done_it_is_refused", refused),
    ];
    trials.extend(kafka::trials(plugin));
    trials
}

fn definitions(new: bool) -> String {
    let mut text = HEAD.to_owned();
    for (name, rest, _) in METRICS {
        let _ = writeln!(text, "old_{name} = {{ {rest} }}");
        if new {
            let _ = writeln!(text, "new_{name} = {{ {rest}, backfill = true }}");
        }
    }
    text
}

/// `log`: which one, if not the journal.
fn home(log: &[&str], flags: &[&str]) -> Result<Home> {
    let home = Home::new(&definitions(false))?.with_flags(&["--checkpoint", "150ms"]).with_flags(log).with_flags(flags);
    let built = binary::plugins_with("user_agent").context("built")?.join("user_agent.wasm");
    fs::copy(&built, home.path().join("plugins/user_agent.wasm"))?;
    Ok(home)
}

/// Batches of events of the last three hours, some too late, some sent twice.
fn traffic(seed: u64, batches: usize) -> Vec<String> {
    let rng = &mut SmallRng::seed_from_u64(seed);
    let now = host::now_ms();
    let mut lines: Vec<String> = Vec::new();
    let batch = |number: usize| {
        let mut body = String::new();
        for _ in 0..EVENTS_A_BATCH {
            if !lines.is_empty() && rng.random_bool(0.1) {
                body += &lines[rng.random_range(0..lines.len())];
                continue;
            }
            let span = if rng.random_bool(0.7) { 10 * 60_000 } else { 3 * 3_600_000 };
            let line = format!(
                r#"{{"ts":{},"id":"{seed}-{number}-{}","user":"u{}","type":"{}","country":"{}","page":"/{}","agent":"{}","props":{{"x":{},"place":"p{}"}}}}"#,
                now - rng.random_range(0..span),
                rng.random_range(0..u64::MAX),
                rng.random_range(0..40),
                ["view", "cart", "buy"][rng.random_range(0..3)],
                ["DE", "FR", "US", "PL"][rng.random_range(0..4)],
                rng.random_range(0..8),
                AGENTS[rng.random_range(0..AGENTS.len())],
                rng.random_range(0..1_000),
                rng.random_range(0..30),
            ) + "\n";
            body += &line;
            lines.push(line);
        }
        body
    };
    (0..batches).map(batch).collect()
}

/// Clients post all of it; `act` is done once a third is acknowledged.
fn post(host: &Host, bodies: &[String], act: impl FnOnce() -> Result<()>) -> Result<()> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let client = || -> Result<()> {
        let agent = host::agent();
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::AcqRel)) {
            let answer = host::post(&agent, &host.url, body.as_bytes(), &[NDJSON])?;
            ensure!(answer.status == 202, "{} {}", answer.status, answer.text);
            done.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        until("a third to be acknowledged", || {
            let over = clients.iter().all(|client| client.is_finished());
            Ok((over || done.load(Ordering::Acquire) >= bodies.len() / 3).then_some(()))
        })?;
        let acted = act();
        clients.into_iter().try_for_each(|client| client.join().expect("no panic"))?;
        acted
    })
}

fn metric(host: &Host, name: &str) -> Result<Value> {
    let answer = host.get_json("/v1/metrics")?;
    let found = answer["metrics"].as_array().and_then(|all| all.iter().find(|metric| metric["name"] == name).cloned());
    found.with_context(|| format!("{name} in {answer}"))
}

fn is_filling(host: &Host) -> Result<bool> {
    Ok(metric(host, "new_events")?["state"] == "filling")
}

fn filled(host: &Host) -> Result<()> {
    until("the metrics to be filled", || Ok((!is_filling(host)?).then_some(()))).with_context(|| host.log())?;
    ensure!(metric(host, "new_way")?["complete_from"] == 0, "{}", metric(host, "new_way")?);
    ensure!(metric(host, "old_way")?["complete_from"].is_null(), "{}", metric(host, "old_way")?);
    Ok(())
}

/// Of each metric the answers of both, as soon as they are of one moment.
fn equal(host: &Host) -> Result<()> {
    let (from, to) = (host::now_ms() - 5 * 3_600_000, host::now_ms() + 600_000);
    for (name, _, asked) in METRICS {
        for by in *asked {
            for step in ["1m", "1h"] {
                let ask = |which: &str| {
                    let query = format!("metric={which}_{name}&by={by}&step={step}&from={from}&to={to}");
                    host.get_json(&format!("/v1/query?{query}"))
                };
                let (mut old, mut new) = (Value::Null, Value::Null);
                let same = until("equal answers", || {
                    (old, new) = (ask("old")?, ask("new")?);
                    ensure!(new["complete_from"] == 0 && old["complete_from"].is_null(), "{new}");
                    Ok((old["series"] == new["series"]).then_some(()))
                });
                same.with_context(|| format!("{name} by {by:?}, {step}\nold {old}\nnew {new}\n{}", host.log()))?;
                ensure!(old["series"][0]["points"].as_array().is_some_and(|points| !points.is_empty()), "{old}");
            }
        }
    }
    Ok(())
}

fn as_if_it_had_been_there(log: &[&str]) -> Result<()> {
    let home = home(log, &[])?;
    let host = home.start_ready()?;
    post(&host, &traffic(1, 600), || {
        applied(&host, || Ok(fs::write(home.metrics(), definitions(true))?))?;
        let told = metric(&host, "new_events")?;
        ensure!(told["complete_from"].is_i64(), "{told}");
        Ok(())
    })?;
    filled(&host)?;
    equal(&host)?;
    let told = host.get("/metrics")?.text;
    ensure!(told.contains("\ntidemark_backfill_batches_left 0\n"), "{told}");
    host.kill()?;
    let host = home.start_ready()?;
    // What was read once is not read again.
    filled(&host)?;
    equal(&host)
}

/// One in a hundred of a core: so slow that the host dies in the midst of it. A life is long enough for a piece of a second.
fn killed(log: &[&str]) -> Result<()> {
    let home = home(log, &["--backfill-percent-max", "1"])?;
    let host = home.start_ready()?;
    post(&host, &traffic(2, 1_500), || Ok(()))?;
    applied(&host, || Ok(fs::write(home.metrics(), definitions(true))?))?;
    let (rng, mut running, mut in_the_midst) = (&mut SmallRng::seed_from_u64(2), Some(host), 0);
    for round in 0..KILLS {
        let host = match running.take() {
            Some(host) => host,
            None => home.start_ready()?,
        };
        post(&host, &traffic(10 + round as u64, 5), || Ok(()))?;
        got_on(&host)?;
        let life = std::time::Duration::from_millis(rng.random_range(0..1_200));
        let began = std::time::Instant::now();
        until("the host to have lived for a while", || Ok((began.elapsed() > life).then_some(())))?;
        in_the_midst += usize::from(is_filling(&host)?);
        host.kill()?;
    }
    ensure!(in_the_midst > 0, "it was never killed in the midst of filling");
    let home = home.with_only_flags(&["--checkpoint", "150ms", "--backfill-percent-max", "100"]).with_flags(log);
    let host = home.start_ready()?;
    filled(&host)?;
    equal(&host)
}

/// Waits until this life has filled something, or nothing is left to be filled.
fn got_on(host: &Host) -> Result<()> {
    let mut most_left = 0;
    let less_left = || {
        let left = batches_left(host)?;
        most_left = most_left.max(left);
        // Before it has looked it knows of none.
        Ok((left > 0 && left < most_left || !is_filling(host)?).then_some(()))
    };
    until("a piece to be filled", less_left).with_context(|| host.log())
}

fn batches_left(host: &Host) -> Result<u64> {
    let told = host.get("/metrics")?.text;
    let line = told.lines().find_map(|line| line.strip_prefix("tidemark_backfill_batches_left "));
    Ok(line.with_context(|| told.clone())?.parse()?)
}

/// What came while it was gone is filled as well.
fn undo(log: &[&str]) -> Result<()> {
    let home = home(log, &["--backfill-percent-max", "5"])?;
    let host = home.start_ready()?;
    post(&host, &traffic(3, 400), || Ok(()))?;
    applied(&host, || Ok(fs::write(home.metrics(), definitions(true))?))?;
    post(&host, &traffic(4, 60), || applied(&host, || Ok(fs::write(home.metrics(), definitions(false))?)))?;
    host.kill()?;
    let host = home.start_ready()?;
    post(&host, &traffic(5, 60), || applied(&host, || Ok(fs::write(home.metrics(), definitions(true))?)))?;
    filled(&host)?;
    equal(&host)
}

fn added_while_down() -> Result<()> {
    let home = home(&[], &[])?;
    let host = home.start_ready()?;
    post(&host, &traffic(6, 200), || Ok(()))?;
    host.kill()?;
    fs::write(home.metrics(), definitions(true))?;
    let host = home.start_ready()?;
    post(&host, &traffic(7, 20), || Ok(()))?;
    filled(&host)?;
    equal(&host)
}

/// The demo's two days are more than memory keeps.
fn history() -> Result<()> {
    let text = |new: &str| {
        let head = "[event]\ntime = \"ts\"\nkey = \"user_id\"\nid = \"id\"\nlateness = \"1h\"\n";
        let dimensions = "[dimensions]\ncategory = { field = \"props.category\" }\n";
        format!("{head}{dimensions}[metrics]\nold = \"uniq(user_id) where type <> 'error'\"\n{new}")
    };
    let new = "new = { value = \"uniq(user_id) where type <> 'error'\", backfill = true }\n";
    let fast = ["--checkpoint", "150ms", "--demo", "1", "--backfill-percent-max", "100"];
    let home = Home::new(&text(""))?.with_flags(&fast);
    let host = home.start_ready()?;
    let (from, to) = (host::now_ms() - 47 * 3_600_000, host::now_ms() - 3 * 60_000);
    let ask = |metric: &str, step: &str, by: &str| {
        host.get_json(&format!("/v1/query?metric={metric}&from={from}&to={to}&step={step}&by={by}"))
    };
    until("the two days", || Ok((host.get_json("/v1/status")?["lag_ms"].as_i64() < Some(5_000)).then_some(())))?;
    applied(&host, || Ok(fs::write(home.metrics(), text(new))?))?;
    let filled = || Ok((metric(&host, "new")?["state"] == "live").then_some(()));
    until("the metric to be filled", filled).with_context(|| host.log())?;
    for (step, by) in [("1m", ""), ("1m", "category"), ("1h", ""), ("1h", "category")] {
        let (old, new) = (ask("old", step, by)?, ask("new", step, by)?);
        ensure!(old["series"][0]["points"].as_array().is_some_and(|points| points.len() > 40), "{old}");
        ensure!(old["series"] == new["series"], "{step} by {by:?}\nold {old}\nnew {new}\n{}", host.log());
    }
    Ok(())
}

const PLAIN: &str = "[event]\ntime = \"ts\"\n[metrics]\nold = \"count()\"\n";

/// Marked later, it is filled all the same.
fn without_the_mark() -> Result<()> {
    let home = Home::new(PLAIN)?;
    let host = home.start_ready()?;
    let sum = |metric: &str| -> Result<f64> {
        let from = host::now_ms() - 3_600_000;
        Ok(host.sums(&format!("metric={metric}&from={from}&to={}", host::now_ms() + 120_000))?.values().sum())
    };
    let shows = |metric: &str, events: f64| {
        until("the events", || Ok((sum(metric)? == events).then_some(())))
            .with_context(|| format!("{metric} is not {events}"))
    };
    let line = format!("{{\"ts\":{}}}\n", host::now_ms());
    host.send(&line.repeat(3))?;
    shows("old", 3.0)?;
    applied(&host, || Ok(fs::write(home.metrics(), format!("{PLAIN}new = \"count()\"\n"))?))?;
    host.send(&line)?;
    shows("old", 4.0)?;
    shows("new", 1.0)?;
    ensure!(metric(&host, "new")?["complete_from"].is_null(), "{}", metric(&host, "new")?);
    let marked = format!("{PLAIN}new = {{ value = \"count()\", backfill = true }}\n");
    applied(&host, || Ok(fs::write(home.metrics(), marked)?))?;
    shows("new", 4.0)
}

fn refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("metrics.toml");
    fs::write(&file, "[metrics]\nevents = { value = \"count()\", backfill = true }\n")?;
    let text = |path: &std::path::Path| path.display().to_string();
    let output = binary::run(&["check", &text(&file)])?;
    ensure!(output.status == Some(0), "{}", output.stdout);
    let data = text(&folder.path().join("data"));
    // Nobody is asked before the file is looked at.
    let services = ["--kafka", "127.0.0.1:1", "--redis", "redis://127.0.0.1:1", "--roles", "ingest"];
    let file = text(&file);
    let arguments = [&["run", "--metrics", &file, "--data", &data, "--listen", "127.0.0.1:0"], &services[..]].concat();
    let output = binary::run(&arguments)?;
    ensure!(output.status == Some(2), "exit {:?}: {}", output.status, output.stderr);
    ensure!(
        output.stderr.contains("cannot be filled backwards here") && output.stderr.contains("^^^^"),
        "{}",
        output.stderr
    );
    Ok(())
}
