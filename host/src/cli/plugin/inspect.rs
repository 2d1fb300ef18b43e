//! `tidemark plugin inspect`: what a component is and what it costs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::cases::{CaseFile, DetectorCase, EnricherCase, columns};
use super::{plain, size, source};
use crate::plugin::{Kind, Limits, Workbench};

/// What the cost is measured on.
const ROWS_A_BATCH: usize = 1_024;
const BATCHES: usize = 16;

/// Show what a plugin is, what it asks for and what it costs.
#[derive(Args)]
pub struct Arguments {
    /// A .wasm, or a folder that holds one; a folder with a Cargo.toml is built first.
    #[arg(default_value = ".")]
    plugin: PathBuf,
    /// Whose settings and rows the cost is measured with; by default cases.toml as `plugin test` finds it.
    #[arg(long)]
    cases: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
}

/// Of a live instance.
struct Cost {
    memory_bytes: usize,
    ns_per_row: u128,
    of: &'static str,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let component = source::component(&arguments.plugin)?;
    let workbench = Workbench::open(&component, arguments.limits.clone()).map_err(plain)?;
    let described = workbench.describe().map_err(plain)?;
    let imports = if workbench.imports().is_empty() { "none".into() } else { workbench.imports().join(", ") };
    line("file", component.display());
    line("name", &described.name);
    line("version", &described.version);
    line("description", &described.description);
    line(
        "kind",
        match (workbench.kind(), described.stateful) {
            (Kind::Enricher, false) => "enricher",
            (Kind::Enricher, true) => "enricher, stateful: nothing is remembered",
            (Kind::Detector, _) => "detector",
        },
    );
    line("interface", workbench.interface());
    line("imports", imports);
    line("size", format_args!("{} ({} bytes)", size(workbench.bytes()), workbench.bytes()));
    line("digest", workbench.digest());
    line("compiles in", format_args!("{} ms", workbench.compile_time().as_millis()));
    match arguments.cases.clone().or_else(|| source::cases(&component)) {
        Some(cases) => {
            let cost = cost(&workbench, &cases)?;
            line("memory", format_args!("{} an instance", size(cost.memory_bytes)));
            line("time", format_args!("{} ns a {}", cost.ns_per_row, cost.of));
        }
        None => line("memory, time", "not measured: no cases.toml with settings to run it with"),
    }
    Ok(ExitCode::SUCCESS)
}

fn line(what: &str, value: impl std::fmt::Display) {
    println!("{what:<12} {value}");
}

fn cost(workbench: &Workbench, cases: &Path) -> anyhow::Result<Cost> {
    match workbench.kind() {
        Kind::Enricher => enricher_cost(workbench, cases),
        Kind::Detector => detector_cost(workbench, cases),
    }
}

/// The rows of the cases, over and over.
fn enricher_cost(workbench: &Workbench, path: &Path) -> anyhow::Result<Cost> {
    let file = CaseFile::<EnricherCase>::read(path)?;
    let settings = &file.settings;
    let plugin = workbench
        .enricher(&settings.input, &settings.output, &settings.config(), &settings.files(path))
        .map_err(plain)?;
    let rows: Vec<&EnricherCase> = file.cases.iter().cycle().take(ROWS_A_BATCH).collect();
    let input = columns(settings, &rows);
    let run = || plugin.try_enrich(0, ROWS_A_BATCH as u32, &input).map_err(|failure| plain(failure.of("the plugin")));
    run()?;
    let began = Instant::now();
    (0..BATCHES).try_for_each(|_| run().map(drop))?;
    let ns_per_row = began.elapsed().as_nanos() / (BATCHES * ROWS_A_BATCH) as u128;
    Ok(Cost { memory_bytes: plugin.memory_bytes().unwrap_or(0), ns_per_row, of: "row" })
}

/// The first case's series, over and over.
fn detector_cost(workbench: &Workbench, path: &Path) -> anyhow::Result<Cost> {
    let file = CaseFile::<DetectorCase>::read(path)?;
    let case = &file.cases[0];
    let points = case.points().map_err(anyhow::Error::msg)?;
    let plugin = workbench.detector(&file.settings.config()).map_err(plain)?;
    let run = || plugin.try_judge(case.step_ms, &points).map_err(|failure| plain(failure.of("the plugin")));
    run()?;
    let began = Instant::now();
    (0..BATCHES).try_for_each(|_| run().map(drop))?;
    let ns_per_row = began.elapsed().as_nanos() / BATCHES as u128;
    Ok(Cost { memory_bytes: plugin.memory_bytes().unwrap_or(0), ns_per_row, of: "judgement" })
}
