//! `GET /v1/explain`: a point that one country's toys lifted.

use anyhow::{Result, ensure};

use super::{Check, counted, refused};
use crate::host::{Home, Host, now_ms, until};

pub const CHECKS: &[Check] = &[("explains_a_point", explained), ("refuses_to_explain_what_is_no_point", refusals)];

const DEFINITIONS: &str = r#"
[event]
time = "ts"

[dimensions]
country = {}
category = { field = "props.category" }

[metrics]
events = "count()"
revenue = { value = "sum(props.amount) where type = 'purchase'", unit = "USD" }
mean = "avg(props.amount)"
pages = "top(3, url)"

[anomalies]
revenue = { rule = "zscore", threshold = 2.0, baseline = "2h" }
"#;

const MINUTE: i64 = 60_000;
/// Minutes of ordinary trade before the point that is not.
const BEFORE: i64 = 100;

fn event(ts: i64, country: &str, category: &str, amount: i64) -> String {
    format!(
        "{{\"ts\":{ts},\"type\":\"purchase\",\"country\":\"{country}\",\"props\":{{\"category\":\"{category}\",\"amount\":{amount}}}}}\n"
    )
}

/// Gives the point in question.
fn filled(host: &Host) -> Result<i64> {
    let t = now_ms() / MINUTE * MINUTE - 30 * MINUTE;
    let mut lines = String::new();
    for minute in 1..=BEFORE {
        let at = t - minute * MINUTE + 1;
        lines += &event(at, "US", "books", 100 + minute % 7);
        lines += &event(at, "BR", "toys", 10);
        lines += &event(at, "BR", "books", 10);
    }
    lines +=
        &[event(t + 1, "US", "books", 130), event(t + 2, "BR", "toys", 300), event(t + 3, "BR", "books", 10)].concat();
    host.send(&lines)?;
    counted(host, (3 * BEFORE + 3) as f64)?;
    Ok(t)
}

fn explained() -> Result<()> {
    let home = Home::new(DEFINITIONS)?;
    let host = home.start_ready()?;
    let t = filled(&host)?;
    let ask = |more: &str| host.get_json(&format!("/v1/explain?metric=revenue&t={t}{more}"));
    let told = ask("")?;
    ensure!(
        told["value"] == 440.0 && told["t"] == t && told["rule"] == "zscore" && told["anomalous"] == true,
        "{told}"
    );
    ensure!(told["expected"].as_f64().is_some_and(|expected| (122.0..124.0).contains(&expected)), "{told}");
    ensure!(told["score"].as_f64() > Some(2.0) && told["revision"] == 1 && told["provisional"] == false, "{told}");
    let first = &told["movers"][0];
    ensure!(first["dimension"] == "country" && first["value"] == "BR" || first["value"] == "toys", "{told}");
    ensure!(told["together"]["labels"] == serde_json::json!({"country": "BR", "category": "toys"}), "{told}");
    ensure!(told["together"]["share"].as_f64().is_some_and(|share| (0.9..0.93).contains(&share)), "{told}");
    let sentence = told["sentence"].as_str().unwrap_or_default();
    for words in [" σ above expected, 9", " % of it from ", "country = BR", "category = toys"] {
        ensure!(sentence.contains(words), "{sentence}");
    }
    let events = told["events"].as_array().map_or(0, Vec::len);
    ensure!(events == 1 && told["events"][0]["event"]["props"]["amount"] == 300, "{told}");
    // The same with a late event, and for one country.
    let before = told["corrections"].as_u64().unwrap_or(0);
    host.send(&event(t + 4, "US", "books", 60))?;
    until("the correction", || Ok((ask("")?["value"] == 500.0).then_some(())))?;
    let told = ask("")?;
    ensure!(told["corrections"] == before + 1 && told["sentence"].as_str().unwrap_or_default().contains("late events"));
    let us = ask("&country=US")?;
    ensure!(us["value"] == 190.0 && us["rule"].is_null() && us["movers"] == serde_json::json!([]), "{us}");
    ensure!(us["sentence"].as_str().unwrap_or_default().contains(" % above the mean of "), "{us}");
    // A mean does not add up: its values are told by how far they moved.
    let mean = host.get_json(&format!("/v1/explain?metric=mean&t={t}"))?;
    ensure!(mean["movers"][0]["share"].is_null() && mean["together"].is_null(), "{mean}");
    host.stop()
}

fn refusals() -> Result<()> {
    let home = Home::new(DEFINITIONS)?;
    let host = home.start_ready()?;
    let t = filled(&host)?;
    for (query, status, code) in [
        ("metric=revenue".to_owned(), 400, "missing_time"),
        (format!("t={t}"), 400, "missing_metric"),
        (format!("metric=revenu&t={t}"), 404, "unknown_metric"),
        ("metric=revenue&t=yesterday".to_owned(), 400, "invalid_time"),
        ("metric=revenue&t=1".to_owned(), 400, "invalid_time"),
        (format!("metric=revenue&t={t}&from=-1h"), 400, "unknown_parameter"),
        (format!("metric=revenue&t={t}&city=x"), 400, "unknown_dimension"),
        (format!("metric=revenue&t={t}&by=country"), 400, "several_series"),
        (format!("metric=pages&t={t}"), 400, "no_number"),
    ] {
        refused(&host.get(&format!("/v1/explain?{query}"))?, status, code)?;
    }
    host.stop()
}
