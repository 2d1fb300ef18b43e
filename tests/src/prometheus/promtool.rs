//! Prometheus' own client and checker, `promtool`, against a host: it reads answers with the library that everybody uses.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Check, MINUTE, filled, start};

pub const CHECKS: &[Check] = &[
    ("promtool_asks_for_instants_and_ranges", queries),
    ("promtool_lists_series_and_labels", listings),
    ("promtool_needs_a_read_key", keys),
    ("promtool_finds_nothing_wrong_with_the_hosts_metrics", metrics),
];

/// Why it cannot be asked.
pub fn missing() -> Option<&'static str> {
    let version = Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!version.is_ok_and(|status| status.success())).then_some("no promtool (apt-get install prometheus)")
}

struct Told {
    succeeded: bool,
    out: String,
    error: String,
}

fn promtool(arguments: &[&str], input: &[u8]) -> Result<Told> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("piped")?.write_all(input)?;
    let output = child.wait_with_output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Told { succeeded: output.status.success(), out: text(output.stdout), error: text(output.stderr) })
}

fn succeeds(arguments: &[&str]) -> Result<String> {
    let told = promtool(arguments, b"")?;
    ensure!(told.succeeded, "{arguments:?}: {}{}", told.out, told.error);
    Ok(told.out)
}

fn queries() -> Result<()> {
    let (_home, host) = start(&[])?;
    let first = filled(&host)?;
    let (start, end) = ((first / 1_000).to_string(), ((first + 19 * MINUTE) / 1_000).to_string());
    let instant = |expression: &str| succeeds(&["query", "instant", &format!("--time={end}"), &host.url, expression]);
    ensure!(instant("1 + 1")? == format!("scalar: 2 @[{end}]\n"), "{}", instant("1 + 1")?);
    let known =
        host.sums(&format!("metric=events&by=country&from={}&to={}", first + 19 * MINUTE, first + 20 * MINUTE))?;
    let told = instant("sum by (country) (events)")?;
    for (country, count) in known {
        let labels = if country.is_empty() { "{}".into() } else { format!("{{country=\"{country}\"}}") };
        let line = format!("{labels} => {count} @[{end}]");
        ensure!(told.lines().any(|known| known == line), "{line} is not in\n{told}");
    }
    ensure!(instant("up")?.trim().is_empty());
    let infinite = instant("sum(events) / 0 > 1")?;
    ensure!(infinite.contains("+Inf"), "{infinite}");
    let flags = [format!("--start={start}"), format!("--end={end}"), "--step=1m".into()];
    let told = succeeds(&["query", "range", &flags[0], &flags[1], &flags[2], &host.url, "sum(events)"])?;
    ensure!(told.matches(" @[").count() == 20, "{told}");
    let sum: u64 =
        told.lines().filter_map(|line| line.split(" @[").next()?.split_whitespace().last()?.parse::<u64>().ok()).sum();
    ensure!(sum == 400, "{sum} of 400 events:\n{told}");
    let told = promtool(&["query", "instant", &host.url, "rate(events[5m])"], b"")?;
    ensure!(
        !told.succeeded && told.error.contains("bad_data") && told.error.contains("range selectors"),
        "{}",
        told.error
    );
    let time = format!("--time={end}");
    let told = promtool(&["query", "instant", &time, &host.url, "events / on (country) events"], b"")?;
    ensure!(!told.succeeded && told.error.contains("execution"), "{}", told.error);
    Ok(())
}

fn listings() -> Result<()> {
    let (_home, host) = start(&[])?;
    let first = filled(&host)?;
    let (start, end) = (first / 1_000, (first + 20 * MINUTE) / 1_000);
    let (start, end) = (format!("--start={start}"), format!("--end={end}"));
    let told = succeeds(&[
        "query",
        "series",
        "--match=events",
        "--match={__name__=\"users\",country=\"FR\"}",
        &start,
        &end,
        &host.url,
    ])?;
    ensure!(told.lines().count() == 10, "8 of one and 2 of the other:\n{told}");
    ensure!(told.contains("__name__=\"events\", country=\"DE\", device=\"phone\""), "{told}");
    // Without a range it asks for more than a year.
    let told = succeeds(&["query", "series", "--match=events{device=\"desk\"}", &host.url])?;
    ensure!(told.lines().count() == 4, "{told}");
    ensure!(succeeds(&["query", "labels", &host.url, "country"])? == "DE\nFR\nUS\n");
    let names = succeeds(&["query", "labels", &host.url, "__name__"])?;
    ensure!(names == "events\nlow\nmean\np95\nrevenue\nshare\nusers\n", "{names}");
    Ok(())
}

fn keys() -> Result<()> {
    let (_home, host) = start(&["--read-key", "r", "--write-key", "w"])?;
    let with = |key: &str| {
        let url = host.url.replace("http://", &format!("http://anyone:{key}@"));
        promtool(&["query", "instant", &url, "1"], b"")
    };
    ensure!(with("r")?.succeeded, "{}", with("r")?.error);
    let refused = with("w")?;
    ensure!(!refused.succeeded && refused.error.contains("a read key is needed"), "{}", refused.error);
    Ok(())
}

fn metrics() -> Result<()> {
    let (_home, host) = start(&[])?;
    filled(&host)?;
    host.get("/api/v1/query?query=events")?;
    // promtool reads the older format; Prometheus itself asks for OpenMetrics.
    let text = host.get_with("/metrics", &[("accept", "text/plain")])?.text;
    ensure!(text.contains("\ntidemark_queries_total "), "{text}");
    let told = promtool(&["check", "metrics"], text.as_bytes())?;
    ensure!(told.succeeded && told.out.is_empty() && told.error.is_empty(), "{}{}\nof\n{text}", told.out, told.error);
    Ok(())
}
