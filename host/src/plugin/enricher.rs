//! An enricher in force: one instance a shard, made when the shard first needs it and again after a failure.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::abi::v0_1::enricher::exports::tidemark::plugin::enricher::{Settings, TextColumn as Column};
use super::abi::v0_1::enricher::{EnricherPlugin as Bindings, EnricherPluginPre as Pre};
use super::component::{Compiled, plugin_error};
use super::described::Described;
use super::files::Files;
use super::guest::{Guest, Instance, LogBudget, one_line};
use super::health::{Failure, Health, lock};
use super::limits::INPUT_BYTES_MAX;
use super::sandbox::Sandbox;
use super::{batch, shape};
use crate::engine::extension::{Enricher, EnricherRequest, Fault, OutputColumn, PluginError, TextColumn};

pub struct EnricherPlugin {
    pub request: EnricherRequest,
    pub described: Described,
    pub health: Health,
    name: Arc<str>,
    sandbox: Arc<Sandbox>,
    pre: Pre<Guest>,
    files: Arc<Files>,
    log: Arc<LogBudget>,
    /// Each is locked by its own shard only.
    shards: Box<[Mutex<Option<Instance<Bindings>>>]>,
}

impl EnricherPlugin {
    /// Starts it, hands it its settings and runs it dry, so that what is wrong with it shows now.
    pub fn load(
        sandbox: &Arc<Sandbox>,
        compiled: &Compiled,
        request: &EnricherRequest,
        files: Files,
        shards: usize,
    ) -> Result<Self, PluginError> {
        let mut plugin = Self::idle(sandbox, compiled, request, files, shards)?;
        let (mut instance, described) = plugin.described()?;
        let accepted = plugin.configure(&mut instance).map_err(|failure| failure.of(&request.plugin))?;
        accepted.map_err(|message| plugin.rejected(message))?;
        plugin.dry_run(&mut instance)?;
        plugin.described = described;
        // A stateful one has now seen rows that never were.
        if !plugin.described.stateful {
            *lock(&plugin.shards[0]) = Some(instance);
        }
        Ok(plugin)
    }

    /// What a component says of itself, whatever its settings would be.
    pub fn describe(sandbox: &Arc<Sandbox>, compiled: &Compiled, name: &str) -> Result<Described, PluginError> {
        let request = EnricherRequest { plugin: name.to_owned(), ..EnricherRequest::default() };
        Self::idle(sandbox, compiled, &request, Files::default(), 1)?.described().map(|(_, described)| described)
    }

    fn idle(
        sandbox: &Arc<Sandbox>,
        compiled: &Compiled,
        request: &EnricherRequest,
        files: Files,
        shards: usize,
    ) -> Result<Self, PluginError> {
        Ok(Self {
            described: Described::default(),
            health: Health::default(),
            name: request.plugin.as_str().into(),
            sandbox: sandbox.clone(),
            pre: Pre::new(compiled.start.clone()).map_err(|error| plugin_error(error.to_string(), None))?,
            files: files.into(),
            log: LogBudget::new(&sandbox.ticks).into(),
            shards: std::iter::repeat_with(Mutex::default).take(shards.max(1)).collect(),
            request: request.clone(),
        })
    }

    fn described(&self) -> Result<(Instance<Bindings>, Described), PluginError> {
        let failed = |failure: Failure| failure.of(&self.name);
        let mut instance = self.start().map_err(failed)?;
        let deadline_ms = self.sandbox.limits.configure_deadline_ms;
        let metadata = instance
            .call(deadline_ms, |store, bindings| bindings.tidemark_plugin_enricher().call_describe(store))
            .map_err(failed)?;
        Ok((instance, Described::new(metadata)))
    }

    /// Bytes of memory of the instance that was started first.
    pub fn memory_bytes(&self) -> Option<usize> {
        lock(&self.shards[0]).as_ref().map(Instance::memory_bytes)
    }

    /// As `enrich`, with the reason of a failure; counts nothing and looks at no quarantine.
    pub fn try_enrich(&self, shard: usize, rows: u32, input: &[TextColumn]) -> Result<Vec<OutputColumn>, Failure> {
        let mut slot = lock(&self.shards[shard % self.shards.len()]);
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => self.start_configured()?,
        };
        let columns = self.run_in_parts(&mut instance, rows, input)?;
        *slot = Some(instance);
        Ok(columns)
    }

    fn run_in_parts(
        &self,
        instance: &mut Instance<Bindings>,
        rows: u32,
        input: &[TextColumn],
    ) -> Result<Vec<OutputColumn>, Failure> {
        if input.iter().map(|column| column.bytes.len()).sum::<usize>() <= INPUT_BYTES_MAX {
            return self.run(instance, rows, input);
        }
        let mut answers = batch::parts(rows, input, INPUT_BYTES_MAX).into_iter().map(|rows| {
            let part: Vec<_> = input.iter().map(|column| batch::part(column, rows.clone())).collect();
            self.run(instance, rows.len() as u32, &part)
        });
        let mut all = answers.next().unwrap_or_else(|| Ok(Vec::new()))?;
        for more in answers {
            if !batch::append(&mut all, more?) {
                return Err(Failure::shape("answered text for some rows and numbers for others"));
            }
        }
        Ok(all)
    }

    fn start_configured(&self) -> Result<Instance<Bindings>, Failure> {
        let mut instance = self.start()?;
        match self.configure(&mut instance)? {
            Ok(()) => Ok(instance),
            Err(message) => Err(Failure::shape(format!("rejected the settings it had accepted before: {message}"))),
        }
    }

    fn start(&self) -> Result<Instance<Bindings>, Failure> {
        Instance::new(&self.sandbox, &self.name, &self.files, &self.log, |store| self.pre.instantiate(store))
    }

    fn configure(&self, instance: &mut Instance<Bindings>) -> Result<Result<(), String>, Failure> {
        let input: Vec<&str> = self.request.input.iter().map(String::as_str).collect();
        let output: Vec<&str> = self.request.output.iter().map(String::as_str).collect();
        let settings = Settings { input: &input, output: &output, config: &self.request.config };
        instance.call(self.sandbox.limits.configure_deadline_ms, |store, bindings| {
            bindings.tidemark_plugin_enricher().call_configure(store, settings)
        })
    }

    fn run(
        &self,
        instance: &mut Instance<Bindings>,
        rows: u32,
        input: &[TextColumn],
    ) -> Result<Vec<OutputColumn>, Failure> {
        let input: Vec<Column<'_>> = input
            .iter()
            .map(|column| Column { bytes: &column.bytes, ends: &column.ends, nulls: &column.nulls })
            .collect();
        let columns = instance.call(self.sandbox.limits.deadline_ms, |store, bindings| {
            bindings.tidemark_plugin_enricher().call_enrich(store, rows, &input)
        })?;
        shape::check(&self.request.output, rows, columns).map_err(Failure::shape)
    }

    /// No row; then a missing and an empty value in every input.
    fn dry_run(&self, instance: &mut Instance<Bindings>) -> Result<(), PluginError> {
        let null_and_empty = TextColumn { bytes: Vec::new(), ends: vec![0, 0], nulls: vec![0] };
        for (rows, column) in [(0, TextColumn::default()), (2, null_and_empty)] {
            let input = vec![column; self.request.input.len()];
            self.run(instance, rows, &input).map_err(|failure| PluginError {
                fault: if failure.message.starts_with("answered") { Fault::Output } else { Fault::Plugin },
                message: format!("{} failed a dry run of {rows} rows: it {}", self.name, failure.message),
                help: None,
            })?;
        }
        Ok(())
    }

    fn rejected(&self, message: String) -> PluginError {
        let message = one_line(message);
        let fault = at_fault(&message, &self.request.files);
        PluginError { fault, message: format!("{} rejects its settings: {message}", self.name), help: None }
    }
}

/// Which of its settings a plugin does not like: the one its message names first. The SDK begins with it.
fn at_fault(message: &str, files: &[String]) -> Fault {
    let words = [("output", Fault::Output), ("input", Fault::Input), ("config", Fault::Config), ("file", Fault::Files)];
    let granted = files.iter().map(|file| (file.as_str(), Fault::Files));
    let named = words.into_iter().chain(granted).filter_map(|(word, fault)| Some((message.find(word)?, fault)));
    named.min_by_key(|&(at, _)| at).map_or(Fault::Config, |(_, fault)| fault)
}

impl Enricher for EnricherPlugin {
    fn enrich(&self, shard: usize, rows: u32, input: &[TextColumn]) -> Option<Vec<OutputColumn>> {
        if self.health.is_quarantined() {
            return None;
        }
        let began = Instant::now();
        let outcome = self.try_enrich(shard, rows, input);
        self.health.book(&self.name, rows.into(), began.elapsed(), outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_named_setting_is_at_fault() {
        for (message, fault) in [
            ("output: there is no \"devise\"", Fault::Output),
            ("input: one field is needed, not 2", Fault::Input),
            ("config: unknown field `unknwn`, expected `unknown` or `file`", Fault::Config),
            ("`b.mmdb` is not among the files granted to this plugin (a.mmdb)", Fault::Files),
            ("a.mmdb: the input ends too early", Fault::Files),
            ("no", Fault::Config),
        ] {
            assert_eq!(at_fault(message, &["a.mmdb".into()]), fault, "{message}");
        }
    }
}
