//! Scenarios: what goes in and what must come out, as files in `tests/scenarios`. A new behaviour is a new file.

mod file;
mod larger;
pub mod points;
mod random;
mod replay;
mod run;
mod three_hosts;

use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::Trial;

use crate::binary;
use crate::trial::trial;
use file::Scenario;

pub fn trials() -> Vec<Trial> {
    let (mut trials, mut scenarios) = (Vec::new(), Vec::new());
    for path in binary::files("tests/scenarios", "test") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match Scenario::read(&path) {
            Ok(scenario) => {
                let scenario = Arc::new(scenario);
                trials.extend(of_scenario(&name, scenario.clone()));
                scenarios.push((name, scenario));
            }
            Err(error) => trials.push(trial(format!("scenarios::{name}"), || Err(error))),
        }
    }
    trials.extend(three_hosts::trials(&scenarios));
    trials.extend(random::trials());
    trials.extend(larger::trials());
    trials
}

type Check = Box<dyn FnOnce(&Scenario) -> Result<()> + Send>;

fn of_scenario(name: &str, scenario: Arc<Scenario>) -> Vec<Trial> {
    // A plugin that was not built is said, not passed over.
    let missing = scenario.plugins.iter().any(|plugin| binary::plugins_with(plugin).is_none());
    // Each run compiles its plugins: a few of them will do.
    let step = if scenario.plugins.is_empty() { 1 } else { 2 };
    let test = |variant: &str, check: Check| {
        let scenario = Arc::clone(&scenario);
        trial(format!("scenarios::{name}::{variant}"), move || check(&scenario)).with_ignored_flag(missing)
    };
    let variants = replay::VARIANTS.iter().skip(step - 1).step_by(step);
    let mut trials: Vec<Trial> =
        variants.map(|variant| test(variant.name, Box::new(|scenario| replay::check(scenario, variant)))).collect();
    if !scenario.replay_only {
        trials.push(test("crash_and_restart", Box::new(run::check)));
    }
    trials
}
