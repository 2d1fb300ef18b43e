//! `tidemark replay`: events of files through the pipeline at full speed, final points out.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use super::progress;
use crate::catalog::{decode, load};
use crate::plugin::{Limits, Registry};
use crate::runtime::replay::{ReplaySettings, Source, Summary, replay};
use crate::time::Clock;

/// Run NDJSON files through the pipeline at full speed and print the final points.
#[derive(Args)]
pub struct Arguments {
    /// Files of events, one JSON object a line; `-` for standard input.
    #[arg(required = true)]
    files: Vec<String>,
    #[arg(long, default_value = "metrics.toml", env = "TIDEMARK_METRICS")]
    metrics: PathBuf,
    /// The folder of plugins.
    #[arg(long, default_value = "plugins", env = "TIDEMARK_PLUGINS")]
    plugins: PathBuf,
    /// Threads that count events; as many as there are cores, if not given.
    #[arg(long, env = "TIDEMARK_SHARDS")]
    shards: Option<usize>,
    /// The summary on standard error: for people, or its last line one JSON object.
    #[arg(long, default_value = "text")]
    summary: SummaryFormat,
    /// Print the summary only.
    #[arg(long)]
    no_points: bool,
    #[arg(long, default_value_t = 64 << 10, env = "TIDEMARK_EVENT_BYTES_MAX")]
    event_bytes_max: usize,
    /// Bytes of lines that a shard takes at a time.
    #[arg(long, default_value_t = 256 << 10, hide = true)]
    batch_bytes: usize,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SummaryFormat {
    Text,
    Json,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = arguments.shards.unwrap_or(cores);
    ensure!((1..=256).contains(&shards), "--shards: between 1 and 256");
    let name = arguments.metrics.display().to_string();
    let bytes = std::fs::read(&arguments.metrics).with_context(|| format!("cannot read {name}"))?;
    let registry = Registry::new(arguments.plugins.clone(), arguments.limits.clone(), shards)?;
    let definitions = match decode(&name, bytes).and_then(|text| load(&name, &text, &registry)) {
        Ok(definitions) => definitions,
        Err(diagnostics) => {
            super::complain(&diagnostics);
            anyhow::bail!("{name} is rejected");
        }
    };
    let sources = arguments.files.iter().map(|file| Source::open(file)).collect::<Result<Vec<_>, _>>()?;
    let bar = progress::bar(&sources);
    let settings = ReplaySettings {
        shards,
        batch_bytes: arguments.batch_bytes,
        event_bytes_max: arguments.event_bytes_max,
        now: Clock::System.now(),
    };
    let replayed = replay(definitions, sources, settings, &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let replayed = replayed?;
    if !arguments.no_points {
        let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        match replayed.write_points(&mut out).and_then(|()| Ok(out.flush()?)) {
            // Whoever read the points has seen enough.
            Err(crate::runtime::replay::ReplayError::Write(error))
                if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            outcome => outcome?,
        }
    }
    replayed.errors.iter().for_each(|(_, reason)| eprintln!("rejected: {reason}"));
    match arguments.summary {
        SummaryFormat::Text => eprintln!("{}", for_people(&replayed.summary)),
        SummaryFormat::Json => eprintln!("{}", serde_json::to_string(&replayed.summary)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(summary: &Summary) -> String {
    let Summary { events, rejected, late, duplicates, seconds, events_per_s } = summary;
    format!(
        "{events} events counted, {rejected} rejected, {late} late, {duplicates} duplicates in {seconds:.2} s ({:.2} M events/s)",
        events_per_s / 1e6
    )
}
