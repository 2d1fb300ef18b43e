//! One plugin by itself, for its author: the same sandbox and the same checks as in a host, without definitions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::abi::v0_1;
use super::component::{Compiled, Components, Kind, plugin_error};
use super::described::Described;
use super::detector::DetectorPlugin;
use super::enricher::EnricherPlugin;
use super::files::Files;
use super::limits::Limits;
use super::sandbox::Sandbox;
use crate::engine::extension::{EnricherRequest, Fault, PluginError};

pub struct Workbench {
    name: String,
    sandbox: Arc<Sandbox>,
    compiled: Arc<Compiled>,
}

impl Workbench {
    pub fn open(file: &Path, limits: Limits) -> Result<Self, PluginError> {
        let sandbox = Sandbox::new(limits, 1).map_err(|error| plugin_error(error.to_string(), None))?;
        let compiled = Components::default().open(&sandbox, file)?;
        let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, sandbox: sandbox.into(), compiled })
    }

    /// Its first kind, if it is of both.
    pub fn kind(&self) -> Kind {
        if self.compiled.kinds.contains(&Kind::Enricher) { Kind::Enricher } else { Kind::Detector }
    }

    /// The version of the interface it was made for.
    pub fn interface(&self) -> String {
        format!("{}@{}", v0_1::PACKAGE.trim_end_matches('/'), v0_1::VERSION)
    }

    pub fn imports(&self) -> &[String] {
        &self.compiled.imports
    }

    /// Of the file alone, hexadecimal.
    pub fn digest(&self) -> String {
        format!("{:032x}", self.compiled.hash)
    }

    pub fn bytes(&self) -> usize {
        self.compiled.bytes
    }

    pub fn compile_time(&self) -> Duration {
        self.compiled.compile_time
    }

    pub fn describe(&self) -> Result<Described, PluginError> {
        match self.kind() {
            Kind::Enricher => EnricherPlugin::describe(&self.sandbox, &self.compiled, &self.name),
            Kind::Detector => DetectorPlugin::describe(&self.sandbox, &self.compiled, &self.name),
        }
    }

    /// `files`: granted names and where they are, anywhere.
    pub fn enricher(
        &self,
        input: &[String],
        output: &[String],
        config: &str,
        files: &[(String, PathBuf)],
    ) -> Result<EnricherPlugin, PluginError> {
        let request = EnricherRequest {
            plugin: self.name.clone(),
            input: input.to_vec(),
            output: output.to_vec(),
            files: files.iter().map(|(name, _)| name.clone()).collect(),
            config: config.to_owned(),
        };
        let files = Files::from_paths(files, self.sandbox.limits.file_bytes_max).map_err(|message| PluginError {
            fault: Fault::Files,
            message,
            help: None,
        })?;
        EnricherPlugin::load(&self.sandbox, &self.compiled, &request, files, 1)
    }

    pub fn detector(&self, config: &str) -> Result<DetectorPlugin, PluginError> {
        DetectorPlugin::load(&self.sandbox, &self.compiled, &self.name, config)
    }
}
