//! The HTTP contract with ordinary and odd inputs, against a real host.

mod explain;
mod ingest;
mod live;
mod openapi;
mod query;
pub mod resume;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use crate::host::{Answer, Home, Host, now_ms, until};
use crate::trial::trial;

pub const DEFINITIONS: &str = r#"
[event]
time = "ts"
id = "id"

[dimensions]
country = {}
device = {}

[metrics]
events = "count()"
revenue = { value = "sum(x)", window = "1h", unit = "USD" }
mean = "avg(x)"
share = "revenue / events"
"#;

pub fn trials() -> Vec<Trial> {
    [ingest::CHECKS, query::CHECKS, live::CHECKS, openapi::CHECKS, resume::CHECKS, explain::CHECKS]
        .concat()
        .into_iter()
        .map(|(name, check)| trial(format!("http::{name}"), check))
        .chain([openapi::fuzz_trial()])
        .collect()
}

pub type Check = (&'static str, fn() -> Result<()>);

pub fn start() -> Result<(Home, Host)> {
    let home = Home::new(DEFINITIONS)?;
    let host = home.start_ready()?;
    Ok((home, host))
}

/// Waits until the total of `events` is this, and never sees more.
pub fn counted(host: &Host, expected: f64) -> Result<()> {
    until(&format!("{expected} events"), || {
        let total: f64 = host.sums(&format!("metric=events&from=-24h&{}", soon()))?.values().sum();
        ensure!(total <= expected, "{total} events, and {expected} were sent");
        Ok((total == expected).then_some(()))
    })
}

/// The end of a range that holds events from a little ahead too.
pub fn soon() -> String {
    format!("to={}", now_ms() + 600_000)
}

/// Status, and the code of an error.
pub fn refused(answer: &Answer, status: u16, code: &str) -> Result<()> {
    ensure!(answer.status == status, "{} instead of {status}: {}", answer.status, answer.text);
    let error = &answer.json()?["error"];
    ensure!(error["code"] == code, "code {} instead of {code}", error["code"]);
    let told = |member: &str| error[member].as_str().is_some_and(|text| !text.is_empty());
    ensure!(told("message") && told("help"), "{error}");
    Ok(())
}
