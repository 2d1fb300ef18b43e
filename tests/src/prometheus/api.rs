//! The Prometheus API of a real host: equal to `/v1/query`, over the real parser and the real store; odd requests.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Check, FORM, MINUTE, encode, filled, start};
use crate::host::Host;

pub const CHECKS: &[Check] =
    &[("answers_equal_those_of_v1_query", equal), ("takes_forms_and_urls", forms), ("survives_odd_requests", odd)];

type Told = BTreeMap<String, BTreeMap<i64, f64>>;

fn sorted(labels: &Value) -> Result<String> {
    let labels = labels.as_object().context("labels")?.iter();
    let labels = labels.filter(|(name, value)| *name != "__name__" && **value != "");
    Ok(json!(labels.collect::<BTreeMap<_, _>>()).to_string())
}

fn by_query(host: &Host, asked: &str) -> Result<Told> {
    let mut told = Told::new();
    let answer = host.get_json(&format!("/v1/query?{asked}"))?;
    for series in answer["series"].as_array().context("series")? {
        let points = series["points"].as_array().context("points")?.iter();
        let points: BTreeMap<_, _> =
            points.filter_map(|point| Some((point[0].as_i64()?, point[1].as_f64()?))).collect();
        if !points.is_empty() {
            told.insert(sorted(&series["labels"])?, points);
        }
    }
    Ok(told)
}

fn by_range(host: &Host, query: &str, start: i64, end: i64, step: &str) -> Result<Told> {
    let (start, end) = (start / 1_000, end / 1_000);
    let path = format!("/api/v1/query_range?query={}&start={start}&end={end}&step={step}", encode(query));
    let answer = host.get_json(&path)?;
    ensure!(answer["status"] == "success" && answer["data"]["resultType"] == "matrix", "{answer}");
    let mut told = Told::new();
    for series in answer["data"]["result"].as_array().context("result")? {
        let mut values = BTreeMap::new();
        for value in series["values"].as_array().context("values")? {
            let (at, text) = (value[0].as_i64().context("seconds")?, value[1].as_str().context("text")?);
            values.insert(at * 1_000, text.parse()?);
        }
        told.insert(sorted(&series["metric"])?, values);
    }
    Ok(told)
}

fn close(a: &Told, b: &Told) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    let series = |a: &BTreeMap<i64, f64>, b: &BTreeMap<i64, f64>| {
        a.len() == b.len() && a.iter().zip(b).all(|((t, a), (u, b))| t == u && near(*a, *b))
    };
    a.len() == b.len() && a.iter().zip(b).all(|((l, a), (m, b))| l == m && series(a, b))
}

fn equal() -> Result<()> {
    let (_home, host) = start(&[])?;
    let from = filled(&host)?;
    let to = from + 25 * MINUTE;
    let check = |metric: &str, by: &str, filter: &str, step: i64, query: &str| -> Result<()> {
        let asked = format!("metric={metric}&by={by}{filter}&from={from}&to={to}&step={step}m");
        let aligned = |ms: i64| ms / (step * MINUTE) * step * MINUTE;
        let (start, end) = (aligned(from), aligned(to) - step * MINUTE);
        let (expected, actual) = (by_query(&host, &asked)?, by_range(&host, query, start, end, &format!("{step}m"))?);
        ensure!(!expected.is_empty() && close(&expected, &actual), "{query}:\n{actual:?}\n{asked}:\n{expected:?}");
        Ok(())
    };
    for metric in ["events", "revenue", "mean", "share", "low", "users", "p95"] {
        check(metric, "country,device", "", 1, metric)?;
        check(metric, "country,device", "&country=DE,FR", 1, &format!("{metric}{{country=~\"DE|FR\"}}"))?;
        for (by, step) in [("", 1), ("country", 1), ("device", 5)] {
            let merged = format!("__by__=\"{by}\",__step__=\"{step}m\"");
            check(metric, by, "", step, &format!("{metric}{{{merged}}}"))?;
            check(metric, by, "&country=US", step, &format!("{metric}{{{merged},country=\"US\"}}"))?;
            check(metric, by, "&country=DE,US", step, &format!("{metric}{{{merged},country=~\"DE|US\"}}"))?;
        }
    }
    // What can be added up is the same without saying how to merge.
    for metric in ["events", "revenue"] {
        check(metric, "", "", 1, &format!("sum({metric})"))?;
        check(metric, "country", "&device=desk", 1, &format!("sum by (country) ({metric}{{device=\"desk\"}})"))?;
        check(metric, "device", "", 1, &format!("sum without (country) ({metric})"))?;
    }
    check("low", "device", "", 1, "min by (device) (low)")?;
    // Where there was no event, the quotient is infinite here and null there.
    check("share", "country", "", 1, "sum by (country) (revenue) / sum by (country) (events) < 1e300")
}

fn forms() -> Result<()> {
    let (_home, host) = start(&[])?;
    let answer = host.post_to("/api/v1/query", b"query=1%2B1&time=1700000000.5", &[FORM])?;
    let expected = json!({"status": "success", "data": {"resultType": "scalar", "result": [1700000000.5, "2"]}});
    ensure!(answer.status == 200 && answer.json()? == expected, "{}", answer.text);
    let first = filled(&host)?;
    let (start, end) = (first / 1_000 - 1, first / 1_000 + 3_600);
    let body = format!("match%5B%5D=events&start={start}&end={end}");
    let answer = host.post_to("/api/v1/series", body.as_bytes(), &[FORM])?;
    let series = answer.json()?;
    ensure!(series["data"].as_array().is_some_and(|series| series.len() == 8), "{series}");
    let named = series["data"].as_array().into_iter().flatten().all(|labels| labels["__name__"] == "events");
    ensure!(named, "{series}");
    let values = host.get_json(&format!("/api/v1/label/country/values?match[]=users&start={start}&end={end}"))?;
    ensure!(values["data"] == json!(["DE", "FR", "US"]), "{values}");
    Ok(())
}

fn odd() -> Result<()> {
    let (_home, host) = start(&[])?;
    let deep = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let bodies: Vec<(Vec<u8>, u16)> = vec![
        (Vec::new(), 400),
        (b"query=".to_vec(), 400),
        (b"query=%ff%fe".to_vec(), 400),
        (b"query=sum(&time=1".to_vec(), 400),
        (format!("query={}", encode(&deep)).into_bytes(), 400),
        (format!("query=1{}", encode(&"+1".repeat(30_000))).into_bytes(), 400),
        (format!("query={}a", "-".repeat(60_000)).into_bytes(), 400),
        (format!("query=a%7Bb%3D~%22{}%22%7D", encode("(\\\\w{900}){900}")).into_bytes(), 400),
        (b"query=a+offset+1e300".to_vec(), 400),
        (vec![b'a'; 1 << 20], 413),
        (b"\0\0\0=\0&&&==&query=1".to_vec(), 200),
    ];
    for (body, status) in bodies {
        let answer = host.post_to("/api/v1/query", &body, &[FORM])?;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        ensure!(answer.status == status, "{shown}: {} {}", answer.status, answer.text);
        let told = answer.json()?;
        let expected = if status == 200 { "success" } else { "error" };
        ensure!(told["status"] == expected, "{shown}: {told}");
    }
    ensure!(host.get("/health/live")?.status == 200);
    Ok(())
}
