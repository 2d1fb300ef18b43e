//! `tidemark bench`: load for a running host, and what it makes of it, with percentiles. Knows the host only by its address.

mod dashboard;
mod dashboards;
mod events;
mod ingest;
mod percentiles;
mod refreshes;
mod subscriptions;
mod target;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// Load a running host and say how it bears it.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Ingest(ingest::Arguments),
    Dashboards(dashboards::Arguments),
}

/// Of the result on standard output.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // A connection is an open file.
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.what {
            What::Ingest(arguments) => ingest::run(arguments).await,
            What::Dashboards(arguments) => dashboards::run(arguments, files).await,
        }
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let ms = crate::serve::query::request::parse_duration(text).filter(|ms| *ms > 0);
    ms.map(|ms| Duration::from_millis(ms as u64)).ok_or_else(|| format!("`{text}` is no duration such as 10s, 5m"))
}
