//! `tidemark plugin test`: the cases of a plugin in the real sandbox.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::cases::{CaseFile, DetectorCase, EnricherCase, Settings, columns};
use super::{plain, source};
use crate::plugin::{EnricherPlugin, Kind, Limits, Workbench};

/// Run the examples of cases.toml in the sandbox; exit 0 when all are as they should be, else 1.
#[derive(Args)]
pub struct Arguments {
    /// A .wasm, or a folder that holds one; a folder with a Cargo.toml is built first.
    #[arg(default_value = ".")]
    plugin: PathBuf,
    /// By default cases.toml beside the .wasm, or in the folder NAME beside it.
    #[arg(long)]
    cases: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
}

/// What differs; nothing when the case passes.
type Differences = Vec<String>;

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let component = source::component(&arguments.plugin)?;
    let cases = arguments.cases.clone().or_else(|| source::cases(&component));
    let cases = cases.with_context(|| format!("there is no cases.toml for {}", component.display()))?;
    let workbench = Workbench::open(&component, arguments.limits.clone()).map_err(plain)?;
    let outcomes = match workbench.kind() {
        Kind::Enricher => enricher(&workbench, &cases)?,
        Kind::Detector => detector(&workbench, &cases)?,
    };
    for (name, differences) in &outcomes {
        println!("{} {name}", if differences.is_empty() { "ok    " } else { "FAILED" });
        differences.iter().for_each(|difference| println!("         {difference}"));
    }
    let failed = outcomes.iter().filter(|(_, differences)| !differences.is_empty()).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn enricher(workbench: &Workbench, path: &Path) -> anyhow::Result<Vec<(String, Differences)>> {
    let file = CaseFile::<EnricherCase>::read(path)?;
    let settings = &file.settings;
    let load = || workbench.enricher(&settings.input, &settings.output, &settings.config(), &settings.files(path));
    let plugin = load().map_err(plain)?;
    let mut outcomes = Vec::new();
    for case in &file.cases {
        // Each case begins anew, also for a plugin that keeps a state.
        let fresh = if plugin.described.stateful { Some(load().map_err(plain)?) } else { None };
        let row = enrich(fresh.as_ref().unwrap_or(&plugin), settings, &[case]);
        outcomes.push((case.name.clone(), row.unwrap_or_else(|failure| vec![failure])));
    }
    // Alone they are right; a host hands over many rows at once.
    let all_passed = outcomes.iter().all(|(_, differences)| differences.is_empty());
    if all_passed && !plugin.described.stateful {
        let all: Vec<&EnricherCase> = file.cases.iter().collect();
        let together = all.chunks(1_024).flat_map(|cases| match enrich(&plugin, settings, cases) {
            Ok(differences) => differences,
            Err(failure) => vec![failure],
        });
        let together: Differences = together.collect();
        if !together.is_empty() {
            outcomes.push(("all cases in one batch".into(), together));
        }
    }
    Ok(outcomes)
}

fn enrich(plugin: &EnricherPlugin, settings: &Settings, cases: &[&EnricherCase]) -> Result<Differences, String> {
    cases.iter().try_for_each(|case| case.check(settings))?;
    let rows = cases.len() as u32;
    let answer = plugin
        .try_enrich(0, rows, &columns(settings, cases))
        .map_err(|failure| format!("the plugin {}", failure.message))?;
    Ok(cases.iter().enumerate().flat_map(|(row, case)| case.compare(settings, &answer, row)).collect())
}

fn detector(workbench: &Workbench, path: &Path) -> anyhow::Result<Vec<(String, Differences)>> {
    let file = CaseFile::<DetectorCase>::read(path)?;
    let outcomes = file.cases.iter().map(|case| {
        let differences = judge(workbench, &file.settings, case).unwrap_or_else(|failure| vec![failure]);
        (case.name.clone(), differences)
    });
    Ok(outcomes.collect())
}

fn judge(workbench: &Workbench, settings: &Settings, case: &DetectorCase) -> Result<Differences, String> {
    let points = case.points()?;
    let config = match &case.config {
        Some(config) => serde_json::Value::Object(config.clone()).to_string(),
        None => settings.config(),
    };
    let plugin = workbench.detector(&config).map_err(|error| error.message)?;
    let verdict =
        plugin.try_judge(case.step_ms, &points).map_err(|failure| format!("the plugin {}", failure.message))?;
    Ok(case.compare(verdict.as_ref()))
}
