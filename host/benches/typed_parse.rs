//! What `make bench` compares with: sonic-rs alone, one core, into a typed struct of the fields that `replay.toml` reads.
//! `typed_parse FILE` prints one JSON object.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Event<'a> {
    ts: i64,
    #[serde(rename = "type", borrow)]
    kind: &'a str,
    #[serde(borrow)]
    id: &'a str,
    #[serde(borrow)]
    user_id: &'a str,
    #[serde(borrow)]
    ip: &'a str,
    #[serde(borrow)]
    user_agent: &'a str,
    #[serde(borrow)]
    props: Props<'a>,
}

#[derive(Deserialize)]
struct Props<'a> {
    amount: f64,
    ms: f64,
    #[serde(borrow)]
    category: &'a str,
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: typed_parse FILE")?;
    let text = std::fs::read(&path).context(path)?;
    let started = Instant::now();
    let (mut events, mut check) = (0_u64, 0.0);
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Event = sonic_rs::from_slice(line)?;
        let texts = [event.kind, event.id, event.user_id, event.ip, event.user_agent, event.props.category];
        check +=
            event.ts as f64 + event.props.amount + event.props.ms + texts.iter().map(|t| t.len()).sum::<usize>() as f64;
        events += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{{\"events\":{events},\"seconds\":{seconds},\"events_per_s\":{},\"check\":{check}}}",
        events as f64 / seconds
    );
    Ok(())
}
