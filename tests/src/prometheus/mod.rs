//! The Prometheus API of a real host: by hand, by Prometheus' own client, by what Grafana asks.

mod api;
mod grafana;
mod promtool;

use anyhow::Result;
use libtest_mimic::Trial;

use crate::host::{Home, Host, now_ms, until};
use crate::trial::trial;

const DEFINITIONS: &str = r#"
[event]
time = "ts"

[dimensions]
country = {}
device = {}

[metrics]
events = "count()"
revenue = { value = "sum(x)", window = "1h", unit = "USD" }
mean = "avg(x)"
share = "revenue / events"
low = "min(x)"
users = { value = "uniq(user)", window = "5m" }
p95 = "quantile(0.95, x)"
pages = "top(3, page)"
"#;

type Check = (&'static str, fn() -> Result<()>);

const MINUTE: i64 = 60_000;
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

pub fn trials() -> Vec<Trial> {
    let test = |(name, check): Check| trial(format!("prometheus::{name}"), check);
    let missing = promtool::missing();
    if let Some(reason) = &missing {
        eprintln!("prometheus: promtool is not asked: {reason}");
    }
    let by_promtool = promtool::CHECKS.iter().map(|check| test(*check).with_ignored_flag(missing.is_some()));
    [api::CHECKS, grafana::CHECKS].concat().into_iter().map(test).chain(by_promtool).collect()
}

fn start(flags: &[&str]) -> Result<(Home, Host)> {
    let home = Home::new(DEFINITIONS)?.with_flags(flags);
    let host = home.start_ready()?;
    Ok((home, host))
}

/// 400 events in 20 closed minutes, the first of which it gives; counted.
fn filled(host: &Host) -> Result<i64> {
    let first = now_ms() / MINUTE * MINUTE - 40 * MINUTE;
    host.send(&lines(first))?;
    until("400 events", || {
        let sums = host.sums(&format!("metric=events&from={first}"))?;
        Ok((sums.values().sum::<f64>() == 400.0).then_some(()))
    })?;
    Ok(first)
}

fn lines(first: i64) -> String {
    use rand::prelude::*;
    let mut random = rand::rngs::StdRng::seed_from_u64(11);
    let line = |_| {
        let ts = first + random.random_range(0..20 * MINUTE);
        let country = ["DE", "FR", "US", ""][random.random_range(0..4)];
        let device = ["phone", "desk"][random.random_range(0..2)];
        let (x, user) = (random.random_range(0..1_000), random.random_range(0..50));
        format!("{{\"ts\":{ts},\"x\":{x},\"user\":\"u{user}\",\"country\":\"{country}\",\"device\":\"{device}\"}}\n")
    };
    (0..400).map(line).collect()
}

/// As one value in a URL or a form.
fn encode(text: &str) -> String {
    let byte = |b: u8| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}
