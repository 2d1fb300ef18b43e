//! `tidemark bench ingest`: events at a steady rate, and how long the host takes to acknowledge them.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::events::Events;
use super::percentiles::Percentiles;
use super::target::{Http, Target};
use super::{Format, duration};
use crate::time::Clock;

/// Send events at a steady rate and measure how long they take to be acknowledged.
#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A key that sends events.
    #[arg(long, env = "TIDEMARK_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Events per second.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// How long it goes on.
    #[arg(long = "for", default_value = "10s", value_parser = duration)]
    lasts: Duration,
    /// Events of one request.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    batch: u32,
    /// Bytes of an event; one that needs more has more.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    event_bytes: u32,
    /// Requests at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    #[arg(long, default_value = "text")]
    format: Format,
}

/// What a run came to.
#[derive(Serialize)]
struct Report {
    wanted_per_s: u32,
    /// Acknowledged.
    events: u64,
    events_per_s: f64,
    /// Requests that were answered 429 or 503: the host said that it cannot keep up.
    refused: u64,
    /// Those that were answered otherwise, or not at all.
    failed: u64,
    /// From when a request was due, so that waiting for the ones before it counts.
    acknowledged_ms: Percentiles,
    /// From when it was sent.
    answered_ms: Percentiles,
}

/// When which request is due; shared by all connections.
struct Schedule {
    begin: Instant,
    every: Duration,
    requests: u64,
    next: AtomicU64,
}

#[derive(Default)]
struct Tally {
    accepted: u64,
    refused: u64,
    failed: u64,
    from_due_ms: Vec<f64>,
    from_sent_ms: Vec<f64>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    ensure!(arguments.rate > 0, "--rate: at least one event per second");
    let target = Target::find(&arguments.url, arguments.key.as_deref()).await?;
    let every = Duration::from_secs_f64(f64::from(arguments.batch) / f64::from(arguments.rate));
    let requests = (arguments.lasts.as_secs_f64() / every.as_secs_f64()).ceil() as u64;
    // A host that is not there is one error, not many.
    target.http().await?;
    let schedule = Arc::new(Schedule { begin: Instant::now(), every, requests, next: AtomicU64::new(0) });
    let mut senders = JoinSet::new();
    for _ in 0..arguments.connections {
        let events = Events::new(rand::random(), arguments.event_bytes as usize);
        senders.spawn(send_all(target.clone(), schedule.clone(), events, arguments.batch as usize));
    }
    let mut all = Tally::default();
    while let Some(tally) = senders.join_next().await {
        all.add(tally??);
    }
    let seconds = schedule.begin.elapsed().as_secs_f64();
    let report = Report {
        wanted_per_s: arguments.rate,
        events: all.accepted,
        events_per_s: all.accepted as f64 / seconds,
        refused: all.refused,
        failed: all.failed,
        acknowledged_ms: Percentiles::of(all.from_due_ms),
        answered_ms: Percentiles::of(all.from_sent_ms),
    };
    match arguments.format {
        Format::Json => println!("{}", serde_json::to_string(&report)?),
        Format::Text => print(&report),
    }
    Ok(ExitCode::from(u8::from(report.failed > 0)))
}

fn print(report: &Report) {
    let Report { wanted_per_s, events, events_per_s, refused, failed, acknowledged_ms, answered_ms } = report;
    println!("{events} events acknowledged, {events_per_s:.0} a second of {wanted_per_s} wanted");
    println!("{refused} requests refused, {failed} failed");
    println!("acknowledged, from when due:  {}", acknowledged_ms.row());
    println!("answered, from when sent:     {}", answered_ms.row());
}

/// Sends what is due next until nothing is.
async fn send_all(target: Target, schedule: Arc<Schedule>, mut events: Events, batch: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut http = target.http().await?;
    loop {
        let number = schedule.next.fetch_add(1, Relaxed);
        if number >= schedule.requests {
            return Ok(tally);
        }
        let due = schedule.begin + schedule.every.mul_f64(number as f64);
        sleep_until(due).await;
        let body = Bytes::from(events.lines(batch, Clock::System.now()));
        let sent = Instant::now();
        match post(&mut http, body).await {
            Ok(StatusCode::ACCEPTED) => {
                tally.accepted += batch as u64;
                tally.from_due_ms.push(due.elapsed().as_secs_f64() * 1e3);
                tally.from_sent_ms.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => tally.refused += 1,
            Ok(_) => tally.failed += 1,
            Err(_) => {
                tally.failed += 1;
                http = target.http().await?;
            }
        }
    }
}

async fn post(http: &mut Http, body: Bytes) -> Result<StatusCode> {
    Ok(http.send(Method::POST, "/v1/events", "application/x-ndjson", body).await?.0)
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.failed += other.failed;
        self.from_due_ms.extend(other.from_due_ms);
        self.from_sent_ms.extend(other.from_sent_ms);
    }
}
