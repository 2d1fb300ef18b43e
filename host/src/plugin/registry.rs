//! Plugins in force, by the digest of everything their answers depend on: the same digest is the same instance, with its
//! memory of answers and its health. Knows no definitions; the catalog asks, the runtime says what is still in use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::component::{self, Compiled, Components, Kind};
use super::detector::DetectorPlugin;
use super::enricher::EnricherPlugin;
use super::files::Files;
use super::health::{FailureKind, Health, lock};
use super::limits::Limits;
use super::sandbox::{Sandbox, StartError};
use crate::engine::extension::{EnricherRequest, Fault, LoadedDetector, LoadedEnricher, PluginError, Plugins};
use crate::engine::memo::Memo;

/// Granted files watched before those that nothing uses any more are forgotten.
const WATCHED_FILES_MAX: usize = 256;

pub struct Registry {
    folder: PathBuf,
    shards: usize,
    sandbox: Arc<Sandbox>,
    components: Components,
    loaded: Mutex<BTreeMap<String, Loaded>>,
    /// Files granted so far, for the watcher; also by requests that failed, since a file may be what is missing.
    granted: Mutex<BTreeSet<PathBuf>>,
    /// Held while one is loaded, so that equal requests do not load twice. Never with `loaded`, which answers wait for.
    loading: Mutex<()>,
}

#[derive(Clone)]
enum Loaded {
    Enricher(Arc<EnricherPlugin>, Option<Arc<Memo>>),
    Detector(Arc<DetectorPlugin>),
}

/// One plugin as `GET /v1/plugins` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PluginStatus {
    pub name: String,
    pub file: String,
    pub digest: String,
    pub kind: Kind,
    pub version: String,
    pub description: String,
    pub state: State,
    pub calls: u64,
    /// Rows handed to the plugin; what was remembered is not among them. For a detector, judged points.
    pub rows: u64,
    pub memo_hits: u64,
    pub memo_misses: u64,
    pub ns_per_row: u64,
    /// Failed calls of every kind.
    pub traps: u64,
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Live,
    Quarantined,
}

impl Registry {
    /// `folder` need not exist yet. `shards`: how many threads call enrichers.
    pub fn new(folder: PathBuf, limits: Limits, shards: usize) -> Result<Self, StartError> {
        Ok(Self {
            folder,
            shards,
            sandbox: Sandbox::new(limits, shards)?.into(),
            components: Components::default(),
            loaded: Mutex::default(),
            granted: Mutex::default(),
            loading: Mutex::default(),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Forgets all but the plugins with these digests. Called after every reload with what is now in force.
    pub fn retain(&self, digests: &[String]) {
        lock(&self.loaded).retain(|digest, _| digests.contains(digest));
        let mut granted = lock(&self.granted);
        if granted.len() > WATCHED_FILES_MAX {
            *granted = lock(&self.loaded).values().flat_map(|loaded| self.files_of(loaded)).collect();
        }
    }

    /// Every `.wasm` in the folder and every granted file.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let mut files = component::paths_in(&self.folder);
        files.extend(lock(&self.granted).iter().cloned());
        files
    }

    pub fn status(&self) -> Vec<PluginStatus> {
        let mut all: Vec<_> = lock(&self.loaded).iter().map(|(digest, loaded)| loaded.status(digest)).collect();
        all.sort_by(|a, b| (&a.name, &a.digest).cmp(&(&b.name, &b.digest)));
        all
    }

    /// Failed calls by plugin and kind.
    pub fn failures(&self) -> Vec<(String, FailureKind, u64)> {
        let mut all = Vec::new();
        for loaded in lock(&self.loaded).values() {
            let by_kind = loaded.health().failures().by_kind;
            all.extend(by_kind.into_iter().map(|(kind, count)| (loaded.name().to_owned(), kind, count)));
        }
        all
    }

    fn files_of(&self, loaded: &Loaded) -> Vec<PathBuf> {
        match loaded {
            Loaded::Enricher(plugin, _) => plugin.request.files.iter().map(|file| self.folder.join(file)).collect(),
            Loaded::Detector(_) => Vec::new(),
        }
    }

    /// What was loaded under this digest, or what `load` now loads.
    fn load_once(
        &self,
        digest: &str,
        load: impl FnOnce() -> Result<Loaded, PluginError>,
    ) -> Result<Loaded, PluginError> {
        let _loading = lock(&self.loading);
        if let Some(loaded) = lock(&self.loaded).get(digest) {
            return Ok(loaded.clone());
        }
        let loaded = load()?;
        lock(&self.loaded).insert(digest.to_owned(), loaded.clone());
        Ok(loaded)
    }
}

impl Plugins for Registry {
    fn enricher(&self, request: &EnricherRequest) -> Result<LoadedEnricher, PluginError> {
        lock(&self.granted).extend(request.files.iter().map(|file| self.folder.join(file)));
        let compiled = self.components.named(&self.sandbox, &self.folder, &request.plugin)?;
        compiled.require(&request.plugin, Kind::Enricher, "an enrichment")?;
        let files = Files::load(&self.folder, &request.files, self.sandbox.limits.file_bytes_max)
            .map_err(|message| PluginError { fault: Fault::Files, message, help: None })?;
        let digest = enricher_digest(&compiled, &files, request);
        let loaded = self.load_once(&digest, || {
            let plugin = EnricherPlugin::load(&self.sandbox, &compiled, request, files, self.shards)?;
            let memo = (!plugin.described.stateful).then(Arc::default);
            Ok(Loaded::Enricher(plugin.into(), memo))
        })?;
        match loaded {
            Loaded::Enricher(enricher, memo) => Ok(LoadedEnricher { enricher, digest, memo }),
            Loaded::Detector(_) => unreachable!("the kind is part of the digest"),
        }
    }

    fn detector(&self, name: &str, config: &str) -> Result<LoadedDetector, PluginError> {
        let compiled = self.components.named(&self.sandbox, &self.folder, name)?;
        compiled.require(name, Kind::Detector, "an anomaly rule")?;
        let digest = detector_digest(&compiled, name, config);
        let loaded = self.load_once(&digest, || {
            Ok(Loaded::Detector(DetectorPlugin::load(&self.sandbox, &compiled, name, config)?.into()))
        })?;
        match loaded {
            Loaded::Detector(detector) => Ok(LoadedDetector { detector, digest }),
            Loaded::Enricher(..) => unreachable!("the kind is part of the digest"),
        }
    }
}

impl Loaded {
    fn name(&self) -> &str {
        match self {
            Self::Enricher(plugin, _) => &plugin.request.plugin,
            Self::Detector(plugin) => &plugin.name,
        }
    }

    fn health(&self) -> &Health {
        match self {
            Self::Enricher(plugin, _) => &plugin.health,
            Self::Detector(plugin) => &plugin.health,
        }
    }

    fn status(&self, digest: &str) -> PluginStatus {
        let (kind, described, memo) = match self {
            Self::Enricher(plugin, memo) => (Kind::Enricher, &plugin.described, memo.as_ref()),
            Self::Detector(plugin) => (Kind::Detector, &plugin.described, None),
        };
        let health = self.health();
        let failures = health.failures();
        PluginStatus {
            name: self.name().to_owned(),
            file: format!("{}.wasm", self.name()),
            digest: digest.to_owned(),
            kind,
            version: described.version.clone(),
            description: described.description.clone(),
            state: if health.is_quarantined() { State::Quarantined } else { State::Live },
            calls: health.calls(),
            rows: health.rows(),
            memo_hits: memo.map_or(0, |memo| memo.hits.load(Relaxed)),
            memo_misses: memo.map_or(0, |memo| memo.misses.load(Relaxed)),
            ns_per_row: health.ns_per_row(),
            traps: failures.total(),
            last_error: failures.last,
        }
    }
}

fn enricher_digest(compiled: &Compiled, files: &Files, request: &EnricherRequest) -> String {
    let mut digest = Digest::new("enricher", compiled);
    digest.list(&request.input).list(&request.output).part(request.config.as_bytes());
    for (name, bytes) in files.iter() {
        digest.part(name.as_bytes()).part(bytes);
    }
    digest.hex()
}

fn detector_digest(compiled: &Compiled, name: &str, config: &str) -> String {
    let mut digest = Digest::new("detector", compiled);
    digest.part(name.as_bytes()).part(config.as_bytes());
    digest.hex()
}

/// A hash of parts that cannot run into each other.
struct Digest(Xxh3);

impl Digest {
    fn new(kind: &str, compiled: &Compiled) -> Self {
        let mut digest = Self(Xxh3::new());
        digest.part(kind.as_bytes()).part(&compiled.hash.to_le_bytes());
        digest
    }

    fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    fn list(&mut self, items: &[String]) -> &mut Self {
        self.0.update(&(items.len() as u64).to_le_bytes());
        for item in items {
            self.part(item.as_bytes());
        }
        self
    }

    fn hex(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}
