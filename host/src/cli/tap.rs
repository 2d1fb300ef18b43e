//! `tidemark tap`: events that a running host counts just now, as they are after enrichment.

use std::io::{BufRead, BufReader, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;

use super::client::{Refused, Remote, escaped};
use super::paint;

/// Show events that a running host counts just now, as they are after enrichment; a sample, where there are many.
#[derive(Args)]
pub struct Arguments {
    /// Only events for which this is true, as behind `where` in metrics.toml: "type = 'purchase' and country <> 'US'".
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// End after so many events.
    #[arg(long, value_name = "EVENTS")]
    limit: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

/// What is no event.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Sampled { events: u64, looked_at: u64, passed: u64, skipped: u64 },
    Error { message: String, help: String },
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let condition = arguments.condition.as_deref();
    let path = condition.map_or("/v1/tap".to_owned(), |condition| format!("/v1/tap?where={}", escaped(condition)));
    let answer = arguments.remote.get(&path)?;
    let limit = arguments.limit.unwrap_or(u64::MAX);
    let (screen, mut shown) = (std::io::stdout().is_terminal(), 0);
    for line in BufReader::new(answer.into_body().into_reader()).lines() {
        let line = line.context("the host has gone")?;
        match serde_json::from_str(&line) {
            Ok(Told::Error { message, help }) => return Err(Refused::new(&message, &help).into()),
            Ok(Told::Sampled { events, looked_at, passed, skipped }) => {
                if std::io::stderr().is_terminal() && events > 0 {
                    eprintln!(
                        "{events} events counted, {looked_at} looked at, {passed} passed, {skipped} of them not shown"
                    );
                }
                continue;
            }
            Err(_) => {}
        }
        let line = if screen { paint::plain(&line, false) } else { line };
        if !super::print_on(format!("{line}\n").as_bytes())? {
            return Ok(ExitCode::SUCCESS);
        }
        shown += 1;
        if shown >= limit {
            return Ok(ExitCode::SUCCESS);
        }
    }
    bail!("the host has closed the tap")
}
