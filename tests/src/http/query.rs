//! `GET /v1/query` and the other things to read.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Check, counted, refused, start};
use crate::host::{Host, now_ms};

pub const CHECKS: &[Check] = &[
    ("answers_points_as_defined", points),
    ("filters_and_splits", filters),
    ("rounds_ranges_to_steps", ranges),
    ("refuses_what_it_cannot_answer", refusals),
    ("lists_metrics_dimensions_and_definitions", lists),
    ("tells_about_itself", status),
];

const MINUTE: i64 = 60_000;

/// Events in three closed minutes some while ago; gives the first minute.
fn filled(host: &Host) -> Result<i64> {
    let first = now_ms() / MINUTE * MINUTE - 30 * MINUTE;
    let mut lines = String::new();
    for (minute, x, country, device) in [
        (0, 1, "DE", "phone"),
        (0, 2, "DE", "desk"),
        (0, 4, "FR", "desk"),
        (2, 8, "DE", "phone"),
        (2, 16, "a,b", "a&b=c"),
        (2, 32, "Ärö", ""),
    ] {
        let ts = first + minute * MINUTE + 1;
        lines += &format!("{{\"ts\":{ts},\"x\":{x},\"country\":\"{country}\",\"device\":\"{device}\"}}\n");
    }
    host.send(&lines)?;
    counted(host, 6.0)?;
    Ok(first)
}

fn ask(host: &Host, query: &str) -> Result<Value> {
    host.get_json(&format!("/v1/query?{query}"))
}

/// Labels and points of each series.
fn series(answer: &Value) -> Result<Vec<(Value, Value)>> {
    let series = answer["series"].as_array().with_context(|| answer.to_string())?;
    Ok(series.iter().map(|series| (series["labels"].clone(), series["points"].clone())).collect())
}

fn points() -> Result<()> {
    let (_home, host) = start()?;
    let first = filled(&host)?;
    let at = |minute: i64| first + minute * MINUTE;
    let range = format!("from={}&to={}", at(-1), at(4));
    let answer = ask(&host, &format!("metric=events&{range}"))?;
    ensure!(answer["metric"] == "events" && answer["step_ms"] == MINUTE && answer["from"] == at(-1), "{answer}");
    ensure!(answer["to"] == at(4) && answer["revision"].is_u64() && answer["unit"].is_null(), "{answer}");
    ensure!(answer["provisional_from"].is_null(), "all is closed: {answer}");
    let open = ask(&host, &format!("metric=events&from={}", at(-1)))?;
    ensure!(open["provisional_from"].as_i64().is_some_and(|from| from > at(20)), "{open}");
    // From the first point on, what counts has a value at every step.
    let expected = json!([[at(0), 3], [at(1), 0], [at(2), 3], [at(3), 0]]);
    same(&series(&answer)?, &[(json!({}), expected)])?;
    let mean = ask(&host, &format!("metric=mean&{range}"))?;
    same(&series(&mean)?, &[(json!({}), json!([[at(0), 7.0 / 3.0], [at(2), 56.0 / 3.0]]))])?;
    let revenue = ask(&host, &format!("metric=revenue&{range}"))?;
    ensure!(revenue["unit"] == "USD", "{revenue}");
    same(&series(&revenue)?, &[(json!({}), json!([[at(0), 7], [at(1), 7], [at(2), 63], [at(3), 63]]))])?;
    let share = ask(&host, &format!("metric=share&{range}"))?;
    same(&series(&share)?, &[(json!({}), json!([[at(0), 7.0 / 3.0], [at(1), null], [at(2), 21], [at(3), null]]))])
}

fn filters() -> Result<()> {
    let (_home, host) = start()?;
    let first = filled(&host)?;
    let range = format!("from={first}&to={}&step=3m", (first / (3 * MINUTE) + 2) * 3 * MINUTE);
    let total = |query: &str| -> Result<Vec<(String, f64)>> {
        let mut sums: Vec<_> = host.sums(&format!("metric=events&{range}&{query}"))?.into_iter().collect();
        sums.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(sums)
    };
    let expect = |query: &str, expected: &[(&str, f64)]| -> Result<()> {
        let actual = total(query)?;
        let equal = actual.iter().map(|(label, sum)| (label.as_str(), *sum)).eq(expected.iter().copied());
        ensure!(equal, "{query}: {actual:?}, expected {expected:?}");
        Ok(())
    };
    expect("", &[("", 6.0)])?;
    expect("by=", &[("", 6.0)])?;
    expect("by=country", &[("DE", 3.0), ("FR", 1.0), ("a,b", 1.0), ("Ärö", 1.0)])?;
    expect("country=DE", &[("", 3.0)])?;
    expect("country=DE,FR", &[("", 4.0)])?;
    expect("country=DE&country=FR", &[("", 4.0)])?;
    expect("country=a%2Cb", &[("", 1.0)])?;
    expect("device=a%26b%3Dc&by=country", &[("a,b", 1.0)])?;
    expect("country=%C3%84r%C3%B6", &[("", 1.0)])?;
    expect("country=DE&device=desk", &[("", 1.0)])?;
    expect("country=nowhere", &[])?;
    expect("country=nowhere&by=device", &[])?;
    expect("device=&by=country", &[("Ärö", 1.0)])?;
    let both = ask(&host, &format!("metric=events&{range}&by=device,country&country=DE"))?;
    let labels: Vec<Value> = series(&both)?.into_iter().map(|(labels, _)| labels).collect();
    let expected = [json!({"device": "desk", "country": "DE"}), json!({"device": "phone", "country": "DE"})];
    ensure!(labels == expected, "{labels:?}");
    Ok(())
}

fn ranges() -> Result<()> {
    let (_home, host) = start()?;
    let first = filled(&host)?;
    let at = |minute: i64| first + minute * MINUTE;
    // Rounded down to the step, `to` exclusive.
    let answer = ask(&host, &format!("metric=events&from={}&to={}", at(0) + 59_999, at(2) + 59_999))?;
    ensure!(answer["from"] == at(0) && answer["to"] == at(2), "{answer}");
    same(&series(&answer)?, &[(json!({}), json!([[at(0), 3], [at(1), 0]]))])?;
    let rfc = |ms: i64| {
        let seconds = ms / 1_000;
        let days = seconds / 86_400;
        let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
        let (year, month, day) = civil(days);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:00Z")
    };
    let written = ask(&host, &format!("metric=events&from={}&to={}", rfc(at(0)), rfc(at(2))))?;
    ensure!(written["series"] == answer["series"], "{written}");
    let relative = ask(&host, "metric=events&from=-1h")?;
    let sum: f64 = series(&relative)?[0].1.as_array().context("points")?.iter().filter_map(|p| p[1].as_f64()).sum();
    ensure!(sum == 6.0, "{relative}");
    let hours = ask(&host, "metric=events&step=1h")?;
    ensure!(
        hours["step_ms"] == 60 * MINUTE && hours["from"].as_i64().is_some_and(|from| from % (60 * MINUTE) == 0),
        "{hours}"
    );
    Ok(())
}

/// Days since the epoch to year, month and day (Howard Hinnant, chrono-compatible low-level date algorithms).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

fn refusals() -> Result<()> {
    let (_home, host) = start()?;
    for (query, status, suggests) in [
        ("metric=event", 404, "events"),
        ("metric=nothing_like_it", 404, ""),
        ("", 400, ""),
        ("metric=events&by=contry", 400, "country"),
        ("metric=events&contry=DE", 400, "country"),
        ("metric=events&step=90s", 400, ""),
        ("metric=events&step=0", 400, ""),
        ("metric=events&step=-1m", 400, ""),
        ("metric=events&step=often", 400, ""),
        ("metric=events&from=yesterday", 400, ""),
        ("metric=events&from=-1h&to=-2h", 400, ""),
        ("metric=events&from=99999999999999999999", 400, ""),
        ("metric=events&from=-2000d&step=1m", 400, ""),
    ] {
        let answer = host.get(&format!("/v1/query?{query}"))?;
        ensure!(answer.status == status, "{query}: {} instead of {status}: {}", answer.status, answer.text);
        let error = answer.json()?["error"].clone();
        ensure!(error["code"].is_string() && error["message"].is_string(), "{query}: {error}");
        ensure!(error["help"].as_str().is_some_and(|help| help.contains(suggests)), "{query}: {error}");
    }
    refused(&host.get("/v1/dimensions/contry")?, 404, "unknown_dimension")
}

fn lists() -> Result<()> {
    let (_home, host) = start()?;
    filled(&host)?;
    let metrics = host.get_json("/v1/metrics")?;
    let names: Vec<&str> =
        metrics["metrics"].as_array().context("metrics")?.iter().filter_map(|metric| metric["name"].as_str()).collect();
    ensure!(names == ["events", "revenue", "mean", "share"], "{names:?}");
    ensure!(metrics["metrics"][1]["unit"] == "USD" && metrics["metrics"][1]["window_ms"] == 60 * MINUTE, "{metrics}");
    let countries = host.get_json("/v1/dimensions/country")?;
    ensure!(countries["values"][0] == json!({"value": "DE", "count": 3}), "{countries}");
    let definitions = host.get_json("/v1/definitions")?;
    ensure!(definitions["last"]["outcome"] == "applied" && definitions["digest"].is_string(), "{definitions}");
    ensure!(host.get_json("/v1/plugins")?["plugins"] == json!([]), "plugins");
    Ok(())
}

fn status() -> Result<()> {
    let (_home, host) = start()?;
    let answer = host.get("/metrics")?;
    let kind = answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    ensure!(answer.status == 200 && kind.starts_with("application/openmetrics-text"), "{kind}");
    ensure!(answer.text.trim_end().ends_with("# EOF"), "{}", answer.text);
    ensure!(host.get("/health/live")?.status == 200 && host.get("/health/ready")?.status == 200, "health");
    let page = host.get("/")?;
    ensure!(page.status == 200 && page.text.contains("<html"), "{} {}", page.status, page.text);
    Ok(())
}

fn same(actual: &[(Value, Value)], expected: &[(Value, Value)]) -> Result<()> {
    let equal = actual.len() == expected.len()
        && actual.iter().zip(expected).all(|(a, b)| {
            let (left, right) = (a.1.as_array(), b.1.as_array());
            a.0 == b.0
                && left.zip(right).is_some_and(|(left, right)| {
                    left.len() == right.len()
                        && left
                            .iter()
                            .zip(right)
                            .all(|(l, r)| l[0] == r[0] && crate::scenarios::points::values_equal(&r[1], &l[1]))
                })
        });
    ensure!(equal, "got      {}\nexpected {}", json!(actual), json!(expected));
    Ok(())
}
