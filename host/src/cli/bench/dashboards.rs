//! `tidemark bench dashboards`: many live connections, when what changed reaches them, and what they cost the host.

use std::collections::HashMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::dashboard::{Back, Dashboard, Phase, STORM, Seen};
use super::percentiles::Percentiles;
use super::refreshes::{Refresh, Refreshes, refresh_of};
use super::subscriptions::subscriptions;
use super::target::Target;
use super::{Format, duration};
use crate::time::{Clock, Millis};

/// Connections that are being opened at a time.
const OPENING_MAX: usize = 100;
/// Open files of this process besides.
const FILES_BESIDES: u64 = 100;
/// What was sent at the end of the span has arrived after so long.
const SETTLE: Duration = Duration::from_secs(2);
const RESIDENT: &str = "process_resident_memory_bytes";

/// Open many live connections and measure when what changed reaches them.
#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A key that reads.
    #[arg(long, env = "TIDEMARK_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Dashboards: connections with one subscription each.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Different subscriptions among them, of 1 to 5 series.
    #[arg(long, default_value_t = 200)]
    subscriptions: usize,
    /// How long they are watched.
    #[arg(long = "for", default_value = "60s", value_parser = duration)]
    lasts: Duration,
    /// Afterwards all drop their connection at once and come back within 5 s.
    #[arg(long)]
    storm: bool,
    #[arg(long, default_value = "text")]
    format: Format,
}

/// What a run came to.
#[derive(Serialize)]
struct Report {
    connections: usize,
    subscriptions: usize,
    seconds: f64,
    refreshes: usize,
    frames: usize,
    /// Frames that others with the same subscription were sent.
    missed: usize,
    skipped: u64,
    bytes_per_frame: f64,
    /// From the beginning of the host's refresh to the frame's arrival.
    delivered_ms: Percentiles,
    /// From opening a connection to its snapshot.
    opened_ms: Percentiles,
    /// What the host's resident memory grew by, for each connection.
    memory_bytes_per_connection: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storm: Option<Storm>,
}

#[derive(Serialize)]
struct Storm {
    /// From the drop until the last one was answered.
    all_back_ms: f64,
    by_delta: usize,
    by_snapshot: usize,
    /// Connections that were refused at first.
    refused: u32,
    /// From the first try of each to its answer.
    back_ms: Percentiles,
}

pub async fn run(arguments: Arguments, files: u64) -> Result<ExitCode> {
    let Arguments { connections, lasts, .. } = arguments;
    ensure!(connections > 0 && arguments.subscriptions > 0, "--connections, --subscriptions: at least one");
    let room = files.saturating_sub(FILES_BESIDES);
    ensure!(connections as u64 <= room, "--connections: {files} files may be open, which is room for {room}");
    let target = Target::find(&arguments.url, arguments.key.as_deref()).await?;
    let asked = subscriptions(&mut target.http().await?, arguments.subscriptions).await?;
    if asked.len() < arguments.subscriptions {
        eprintln!("the host measures no more than {} different subscriptions", asked.len());
    }
    let before = target.http().await?.metric(RESIDENT).await?;
    let mut crowd = Crowd::open(&target, &asked, connections).await?;
    let refreshes = Refreshes::watch(target.clone())?;
    let from = Clock::System.now();
    sleep(lasts).await;
    let until = Clock::System.now();
    let after = target.http().await?.metric(RESIDENT).await?;
    // What is still under way arrives.
    sleep(SETTLE).await;
    let stormed = if arguments.storm { Some(crowd.storm().await?) } else { None };
    let seen = crowd.end().await?;
    let (span, refreshes) = (from..until, refreshes.found().await);
    let memory = before.zip(after).map(|(before, after)| (after - before) / connections as f64);
    let report = report(&seen, asked.len(), &span, &refreshes, memory, stormed);
    match arguments.format {
        Format::Json => println!("{}", serde_json::to_string(&report)?),
        Format::Text => print(&report),
    }
    Ok(ExitCode::SUCCESS)
}

/// All dashboards.
struct Crowd {
    tasks: JoinSet<Result<(usize, Seen)>>,
    size: usize,
    phase: watch::Sender<Phase>,
    told: mpsc::UnboundedReceiver<()>,
}

impl Crowd {
    /// Opens them, a part at a time, and waits until each has its snapshot.
    async fn open(target: &Target, asked: &[Value], size: usize) -> Result<Self> {
        let (phase, turns) = (watch::Sender::new(Phase::Watch), Arc::new(Semaphore::new(OPENING_MAX)));
        let (tell, told) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for number in 0..size {
            let dashboard = Dashboard { target: target.clone(), number, asked: asked[number % asked.len()].clone() };
            let (phase, tell, turns) = (phase.subscribe(), tell.clone(), turns.clone());
            tasks.spawn(async move {
                let turn = turns.acquire_owned().await?;
                Ok((number, dashboard.run(phase, tell, turn).await?))
            });
        }
        let mut crowd = Self { tasks, size, phase, told };
        crowd.all_told().await?;
        Ok(crowd)
    }

    /// Each has said once more that it is there; or one is lost.
    async fn all_told(&mut self) -> Result<()> {
        for _ in 0..self.size {
            tokio::select! {
                _ = self.told.recv() => {}
                Some(ended) = self.tasks.join_next() => bail!("a dashboard ended early: {:?}", ended?.err()),
            }
        }
        Ok(())
    }

    /// How long until all are back.
    async fn storm(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.phase.send_replace(Phase::Storm);
        self.all_told().await?;
        Ok(started.elapsed())
    }

    /// What each saw, by its number.
    async fn end(mut self) -> Result<Vec<(usize, Seen)>> {
        self.phase.send_replace(Phase::End);
        let mut seen = Vec::with_capacity(self.size);
        while let Some(one) = self.tasks.join_next().await {
            seen.push(one??);
        }
        Ok(seen)
    }
}

/// What a refresh had to say about a subscription; equal for all who have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Told {
    subscription: usize,
    prev: u64,
    seq: u64,
    /// Where only time has passed the change number is the same once more.
    again: u32,
}

fn report(
    seen: &[(usize, Seen)],
    subscriptions: usize,
    span: &Range<Millis>,
    refreshes: &[Refresh],
    memory: Option<f64>,
    stormed: Option<Duration>,
) -> Report {
    let mut told: HashMap<Told, Vec<Millis>> = HashMap::new();
    for (number, seen) in seen {
        let mut before: Option<Told> = None;
        for delta in &seen.deltas {
            let same = before.filter(|before| (before.prev, before.seq) == (delta.prev, delta.seq));
            let again = same.map_or(0, |before| before.again + 1);
            let this = Told { subscription: number % subscriptions, prev: delta.prev, seq: delta.seq, again };
            told.entry(this).or_default().push(delta.at);
            before = Some(this);
        }
    }
    let with = |subscription: usize| (subscription..seen.len()).step_by(subscriptions).count();
    let (mut delivered, mut missed) = (Vec::new(), 0);
    for (told, arrivals) in told {
        let first = arrivals.iter().min().copied().unwrap_or_default();
        let refresh = refresh_of(refreshes, told.seq, first).map(|refresh| refreshes[refresh].at);
        let Some(began) = refresh.filter(|began| span.contains(began)) else { continue };
        missed += with(told.subscription).saturating_sub(arrivals.len());
        delivered.extend(arrivals.iter().map(|at| (at - began) as f64));
    }
    let (frames, bytes): (usize, u64) =
        seen.iter().fold((0, 0), |(frames, bytes), (_, seen)| (frames + seen.deltas.len(), bytes + seen.delta_bytes));
    let first = seen.iter().filter_map(|(_, seen)| seen.first).map(ms).collect();
    Report {
        connections: seen.len(),
        subscriptions,
        seconds: (span.end - span.start) as f64 / 1e3,
        refreshes: refreshes.iter().filter(|refresh| span.contains(&refresh.at)).count(),
        frames: delivered.len(),
        missed,
        skipped: seen.iter().map(|(_, seen)| seen.skipped).sum(),
        bytes_per_frame: bytes as f64 / frames.max(1) as f64,
        delivered_ms: Percentiles::of(delivered),
        opened_ms: Percentiles::of(first),
        memory_bytes_per_connection: memory,
        storm: stormed.map(|all_back| storm_of(seen, all_back)),
    }
}

fn storm_of(seen: &[(usize, Seen)], all_back: Duration) -> Storm {
    let back: Vec<&Back> = seen.iter().filter_map(|(_, seen)| seen.back.as_ref()).collect();
    let by_delta = back.iter().filter(|back| back.by_delta).count();
    Storm {
        all_back_ms: ms(all_back),
        by_delta,
        by_snapshot: back.len() - by_delta,
        refused: back.iter().map(|back| back.tries - 1).sum(),
        back_ms: Percentiles::of(back.iter().map(|back| ms(back.took)).collect()),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn print(report: &Report) {
    let Report { connections, subscriptions, seconds, refreshes, frames, missed, skipped, .. } = report;
    println!(
        "{connections} dashboards, {subscriptions} different subscriptions, {seconds:.0} s, {refreshes} refreshes"
    );
    println!("{frames} frames of {:.0} bytes, {missed} missed, {skipped} skipped forward", report.bytes_per_frame);
    println!("delivered, from the refresh's beginning:  {}", report.delivered_ms.row());
    println!("opened, from connecting to the snapshot:  {}", report.opened_ms.row());
    if let Some(bytes) = report.memory_bytes_per_connection {
        println!("resident memory of the host:              {:.1} KB a connection", bytes / 1e3);
    }
    if let Some(storm) = &report.storm {
        let Storm { all_back_ms, by_delta, by_snapshot, refused, back_ms } = storm;
        println!("storm: all dropped, and came back within {} s", STORM.as_secs());
        println!(
            "all answered after {all_back_ms:.0} ms, {by_delta} with what they had missed, {by_snapshot} with a snapshot, {refused} refused at first"
        );
        println!("back, from connecting to the answer:      {}", back_ms.row());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::dashboard::Delta;

    const REFRESHES: [Refresh; 3] =
        [Refresh { at: 1_000, seq: 10 }, Refresh { at: 2_000, seq: 12 }, Refresh { at: 3_000, seq: 12 }];

    #[test]
    fn what_one_was_told_and_another_was_not_is_missed() {
        let seen = |deltas: &[(u64, u64, Millis)]| Seen {
            deltas: deltas.iter().map(|&(prev, seq, at)| Delta { prev, seq, at }).collect(),
            ..Seen::default()
        };
        // Two subscriptions; the second dashboard of the first was not told of the second refresh.
        let all = [
            (0, seen(&[(8, 10, 1_010), (10, 12, 2_020)])),
            (1, seen(&[(8, 10, 1_030)])),
            (2, seen(&[(8, 10, 1_040)])),
            (3, seen(&[(8, 10, 1_050)])),
        ];
        let report = report(&all, 2, &(500..2_500), &REFRESHES, None, None);
        assert_eq!((report.frames, report.missed, report.refreshes), (5, 1, 2));
        assert_eq!((report.delivered_ms.p50, report.delivered_ms.max), (30.0, 50.0));
    }

    /// One was skipped forward to the third refresh's state; what time alone had changed is told with the change number before.
    #[test]
    fn frames_of_a_refresh_are_not_counted_with_the_ones_of_the_next() {
        let delta = |prev, seq, at| Delta { prev, seq, at };
        let all = Seen { deltas: vec![delta(10, 12, 2_010), delta(12, 12, 3_010)], ..Seen::default() };
        let skipped = Seen { deltas: vec![delta(12, 12, 3_030)], ..Seen::default() };
        let report = report(&[(0, all), (1, skipped)], 1, &(500..3_500), &REFRESHES, None, None);
        assert_eq!((report.frames, report.missed, report.delivered_ms.max), (3, 1, 30.0));
    }
}
