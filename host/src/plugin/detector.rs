//! A detector in force: a few instances that are used in turn.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::abi::v0_1::detector::exports::tidemark::plugin::detector::{Verdict as Answer, Window};
use super::abi::v0_1::detector::{DetectorPlugin as Bindings, DetectorPluginPre as Pre};
use super::component::{Compiled, plugin_error};
use super::described::Described;
use super::files::Files;
use super::guest::{Guest, Instance, LogBudget, one_line};
use super::health::{Failure, Health, lock};
use super::limits::{IDLE_DETECTORS_MAX, LOOKBACK_DAYS_MAX};
use super::sandbox::Sandbox;
use crate::engine::extension::{Detector, Fault, PluginError, Verdict};
use crate::time::{DAY_MS, Millis};

pub struct DetectorPlugin {
    pub described: Described,
    pub health: Health,
    pub name: Arc<str>,
    sandbox: Arc<Sandbox>,
    pre: Pre<Guest>,
    config: String,
    lookback_ms: Millis,
    files: Arc<Files>,
    log: Arc<LogBudget>,
    idle: Mutex<Vec<Instance<Bindings>>>,
}

impl DetectorPlugin {
    /// Starts it, hands it its settings and lets it judge a few points, so that what is wrong with it shows now.
    pub fn load(sandbox: &Arc<Sandbox>, compiled: &Compiled, name: &str, config: &str) -> Result<Self, PluginError> {
        let mut plugin = Self::idle(sandbox, compiled, name, config)?;
        let (mut instance, described) = plugin.described()?;
        let accepted = plugin.configure(&mut instance).map_err(|failure| failure.of(name))?;
        plugin.lookback_ms = accepted.and_then(lookback).map_err(|message| plugin.rejected(message))?;
        plugin.dry_run(&mut instance).map_err(|failure| failure.of(name))?;
        plugin.described = described;
        lock(&plugin.idle).push(instance);
        Ok(plugin)
    }

    /// What a component says of itself, whatever its settings would be.
    pub fn describe(sandbox: &Arc<Sandbox>, compiled: &Compiled, name: &str) -> Result<Described, PluginError> {
        Self::idle(sandbox, compiled, name, "{}")?.described().map(|(_, described)| described)
    }

    fn idle(sandbox: &Arc<Sandbox>, compiled: &Compiled, name: &str, config: &str) -> Result<Self, PluginError> {
        Ok(Self {
            described: Described::default(),
            health: Health::default(),
            name: name.into(),
            sandbox: sandbox.clone(),
            pre: Pre::new(compiled.start.clone()).map_err(|error| plugin_error(error.to_string(), None))?,
            config: config.into(),
            lookback_ms: 0,
            files: Arc::default(),
            log: LogBudget::new(&sandbox.ticks).into(),
            idle: Mutex::default(),
        })
    }

    fn described(&self) -> Result<(Instance<Bindings>, Described), PluginError> {
        let failed = |failure: Failure| failure.of(&self.name);
        let mut instance = self.start().map_err(failed)?;
        let deadline_ms = self.sandbox.limits.configure_deadline_ms;
        let metadata = instance
            .call(deadline_ms, |store, bindings| bindings.tidemark_plugin_detector().call_describe(store))
            .map_err(failed)?;
        Ok((instance, Described::new(metadata)))
    }

    /// Bytes of memory of an idle instance.
    pub fn memory_bytes(&self) -> Option<usize> {
        lock(&self.idle).first().map(Instance::memory_bytes)
    }

    /// As `judge`, with the reason of a failure; counts nothing and looks at no quarantine.
    pub fn try_judge(&self, step_ms: Millis, points: &[(Millis, f64)]) -> Result<Option<Verdict>, Failure> {
        let idle = lock(&self.idle).pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => self.start_configured()?,
        };
        let verdict = self.run(&mut instance, step_ms, points)?;
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_DETECTORS_MAX {
            idle.push(instance);
        }
        Ok(verdict)
    }

    fn start_configured(&self) -> Result<Instance<Bindings>, Failure> {
        let mut instance = self.start()?;
        match self.configure(&mut instance)? {
            Ok(_) => Ok(instance),
            Err(message) => Err(Failure::shape(format!("rejected the settings it had accepted before: {message}"))),
        }
    }

    fn start(&self) -> Result<Instance<Bindings>, Failure> {
        Instance::new(&self.sandbox, &self.name, &self.files, &self.log, |store| self.pre.instantiate(store))
    }

    fn configure(&self, instance: &mut Instance<Bindings>) -> Result<Result<u64, String>, Failure> {
        instance.call(self.sandbox.limits.configure_deadline_ms, |store, bindings| {
            bindings.tidemark_plugin_detector().call_configure(store, &self.config)
        })
    }

    fn run(
        &self,
        instance: &mut Instance<Bindings>,
        step_ms: Millis,
        points: &[(Millis, f64)],
    ) -> Result<Option<Verdict>, Failure> {
        // Columns of numbers are copied whole; a list of records would be written field by field.
        let (times, values): (Vec<i64>, Vec<f64>) = points.iter().copied().unzip();
        let window = Window { step_ms: step_ms.unsigned_abs(), times: &times, values: &values };
        let answer = instance.call(self.sandbox.limits.deadline_ms, |store, bindings| {
            bindings.tidemark_plugin_detector().call_judge(store, window)
        })?;
        answer.map(check).transpose()
    }

    /// One point alone, then three.
    fn dry_run(&self, instance: &mut Instance<Bindings>) -> Result<(), Failure> {
        let points = [(0, 1.0), (60_000, 1.0), (120_000, 1.0)];
        self.run(instance, 60_000, &points[..1])?;
        self.run(instance, 60_000, &points).map(drop)
    }

    fn rejected(&self, message: String) -> PluginError {
        let message = one_line(message);
        PluginError {
            fault: Fault::Config,
            message: format!("{} rejects its settings: {message}", self.name),
            help: None,
        }
    }
}

fn lookback(ms: u64) -> Result<Millis, String> {
    let ms_max = LOOKBACK_DAYS_MAX * DAY_MS;
    match Millis::try_from(ms) {
        Ok(ms) if ms <= ms_max => Ok(ms),
        _ => Err(format!("it wants to see more than {LOOKBACK_DAYS_MAX} days before a point")),
    }
}

/// Answers are shown and drawn, so they are numbers.
fn check(answer: Answer) -> Result<Verdict, Failure> {
    let Answer { expected, lower, upper, score, anomalous } = answer;
    if [expected, lower, upper, score].iter().any(|number| !number.is_finite()) {
        return Err(Failure::shape(format!(
            "answered with numbers that are not finite: expected {expected}, lower {lower}, upper {upper}, score {score}"
        )));
    }
    if lower > upper {
        return Err(Failure::shape(format!("answered a band whose lower end {lower} is above its upper end {upper}")));
    }
    Ok(Verdict { expected, lower, upper, score, anomalous })
}

impl Detector for DetectorPlugin {
    fn lookback_ms(&self) -> Millis {
        self.lookback_ms
    }

    fn judge(&self, step_ms: Millis, points: &[(Millis, f64)]) -> Option<Verdict> {
        if self.health.is_quarantined() {
            return None;
        }
        let began = Instant::now();
        let outcome = self.try_judge(step_ms, points);
        self.health.book(&self.name, 1, began.elapsed(), outcome).flatten()
    }
}
