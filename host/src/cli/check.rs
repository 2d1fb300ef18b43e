//! `tidemark check`: validates `metrics.toml` and its plugins, for people, editors and CI.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::paint;
use crate::catalog::definitions::Definitions;
use crate::catalog::diagnostic::Diagnostic;
use crate::catalog::{decode, load};
use crate::plugin::{Limits, Registry};

/// Validate metrics.toml and its plugins; exit 0 when it is sound, 1 with what is wrong.
#[derive(Args)]
pub struct Arguments {
    #[arg(default_value = "metrics.toml", env = "TIDEMARK_METRICS")]
    file: PathBuf,
    /// The folder of plugins.
    #[arg(long, default_value = "plugins", env = "TIDEMARK_PLUGINS")]
    plugins: PathBuf,
    #[command(flatten)]
    limits: Limits,
    /// For people, or one JSON array of diagnostics.
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.file.display().to_string();
    let bytes = std::fs::read(&arguments.file).with_context(|| format!("cannot read {name}"))?;
    let plugins = Registry::new(arguments.plugins.clone(), arguments.limits.clone(), 1)?;
    let outcome = decode(&name, bytes).and_then(|text| load(&name, &text, &plugins));
    let diagnostics = outcome.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    match (arguments.format, &outcome) {
        (Format::Json, _) => println!("{}", serde_json::to_string_pretty(diagnostics)?),
        (Format::Text, Ok(definitions)) => println!("{name}: {}", summary(definitions)),
        (Format::Text, Err(diagnostics)) => {
            println!("{}\n\n{name}: {}", rendered(diagnostics), count(diagnostics.len(), "error"))
        }
    }
    Ok(if diagnostics.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    let painted = diagnostics.iter().map(|diagnostic| paint::diagnostic(&diagnostic.rendered, paint::on_out()));
    painted.collect::<Vec<_>>().join("\n\n")
}

fn summary(definitions: &Definitions) -> String {
    let mut plugins: Vec<_> = definitions.plugin_uses.iter().map(|used| used.plugin.as_str()).collect();
    plugins.sort_unstable();
    plugins.dedup();
    let names = if plugins.is_empty() { String::new() } else { format!(" ({})", plugins.join(", ")) };
    format!(
        "{}, {}, {}, {}{names}",
        count(definitions.metrics.len(), "metric"),
        count(definitions.dimensions.len(), "dimension"),
        count(definitions.rules.len(), "anomaly rule"),
        count(plugins.len(), "plugin"),
    )
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
