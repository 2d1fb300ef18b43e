//! Plugins for tests of the catalog: they load, or fail in the way their name says.

use std::sync::Arc;

use crate::engine::extension::{
    Detector, Enricher, EnricherRequest, Fault, LoadedDetector, LoadedEnricher, OutputColumn, PluginError, Plugins,
    TextColumn, Verdict,
};
use crate::time::{DAY_MS, Millis};

/// `digest` is every plugin's.
pub struct Fake {
    pub digest: &'static str,
}

struct Nothing;

impl Enricher for Nothing {
    fn enrich(&self, _: usize, _: u32, _: &[TextColumn]) -> Option<Vec<OutputColumn>> {
        None
    }
}

impl Detector for Nothing {
    fn lookback_ms(&self) -> Millis {
        DAY_MS
    }

    fn judge(&self, _: Millis, _: &[(Millis, f64)]) -> Option<Verdict> {
        None
    }
}

fn refuse(plugin: &str, config: &str) -> Result<(), PluginError> {
    let error = |fault, message: &str, help: Option<&str>| {
        Err(PluginError { fault, message: message.to_owned(), help: help.map(str::to_owned) })
    };
    match plugin {
        "user_agent" | "geo_ip" | "seasonal" if config.contains("bad") => {
            error(Fault::Config, "the plugin refused its settings: bad", None)
        }
        "user_agent" | "geo_ip" | "seasonal" => Ok(()),
        "broken" => error(Fault::Plugin, "`broken.wasm` is not a component", None),
        _ => error(Fault::Plugin, &format!("there is no `{plugin}.wasm` in the plugin folder"), None),
    }
}

impl Plugins for Fake {
    fn enricher(&self, request: &EnricherRequest) -> Result<LoadedEnricher, PluginError> {
        refuse(&request.plugin, &request.config)?;
        if let Some(file) = request.files.iter().find(|file| file.contains("missing")) {
            let message = format!("there is no file `{file}` in the plugin folder");
            return Err(PluginError { fault: Fault::Files, message, help: None });
        }
        let digest = format!("{} {} {}", self.digest, request.config, request.files.join(" "));
        Ok(LoadedEnricher { enricher: Arc::new(Nothing), digest, memo: None })
    }

    fn detector(&self, plugin: &str, config: &str) -> Result<LoadedDetector, PluginError> {
        refuse(plugin, config)?;
        Ok(LoadedDetector { detector: Arc::new(Nothing), digest: format!("{} {config}", self.digest) })
    }
}
