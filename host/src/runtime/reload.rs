//! Definitions in force: load, compare, publish. Build, then swap: a rejected file leaves everything as it was.
//!
//! Does not watch; `watch` calls `check`, and so may anyone.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::catalog::definitions::{Active, Definitions, Difference, Outcome};
use crate::catalog::diagnostic::Diagnostic;
use crate::catalog::{decode, difference, load, refuse_backfill};
use crate::engine::plan::Fingerprint;
use crate::plugin::Registry;
use crate::store::StoreError;
use crate::store::embedded::Embedded;
use crate::telemetry::Telemetry;
use crate::time::{Clock, Millis};

const META_REVISION: &str = "definitions";

pub struct Keeper {
    file: PathBuf,
    registry: Arc<Registry>,
    store: Arc<Embedded>,
    clock: Clock,
    telemetry: Arc<Telemetry>,
    active: Arc<ArcSwap<Active>>,
    /// Why new metrics cannot be filled backwards on this host.
    no_backfill: Option<&'static str>,
    /// Of the files as they were when they were last tried.
    tried: Mutex<u64>,
}

/// A fingerprint's predecessors with the time each was followed: what is stored for a lineage, newest first.
type Lineage = Vec<(Fingerprint, Option<Millis>)>;

impl Keeper {
    /// Loads the definitions a host starts with; a bad file keeps it from starting.
    pub fn start(
        file: PathBuf,
        registry: Arc<Registry>,
        store: Arc<Embedded>,
        clock: Clock,
        telemetry: Arc<Telemetry>,
        no_backfill: Option<&'static str>,
    ) -> anyhow::Result<Result<Self, Vec<Diagnostic>>> {
        let tried = signature(&file, &registry);
        let definitions = match read(&file, &registry, no_backfill) {
            Ok(definitions) => definitions,
            Err(diagnostics) => return Ok(Err(diagnostics)),
        };
        let now = clock.now();
        let stored: Option<(u64, String)> =
            store.meta_get(META_REVISION)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let revision = match stored {
            Some((revision, digest)) if digest == definitions.digest => revision,
            Some((revision, _)) => revision + 1,
            None => 1,
        };
        let added = definitions.metrics.iter().map(|metric| metric.name.clone()).collect();
        let last = Outcome::Applied { at: now, difference: Difference { added, ..Difference::default() } };
        let active = publish(&store, definitions, revision, now, last)?;
        telemetry.reload.revision.set(revision as i64);
        retain(&registry, &active);
        let active = Arc::new(ArcSwap::from_pointee(active));
        Ok(Ok(Self { file, registry, store, clock, telemetry, active, no_backfill, tried: Mutex::new(tried) }))
    }

    pub fn active(&self) -> &Arc<ArcSwap<Active>> {
        &self.active
    }

    /// Folders in which a change may concern the definitions.
    pub fn watched(&self) -> Vec<PathBuf> {
        let files = std::iter::once(self.file.clone()).chain(self.registry.watched_files());
        let with_targets = files.flat_map(|file| {
            let target = std::fs::canonicalize(&file).ok();
            [Some(file), target].into_iter().flatten()
        });
        let mut folders: Vec<PathBuf> = with_targets.filter_map(|file| parent(&file)).collect();
        folders.push(self.registry.folder().to_path_buf());
        folders.sort();
        folders.dedup();
        folders
    }

    /// Applies what has changed since the last try, whole or not at all, by handing it to `switch`. `None`: nothing did.
    pub fn check(
        &self,
        switch: impl FnOnce(Active) -> Result<(), StoreError>,
    ) -> Result<Option<Arc<Outcome>>, StoreError> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = signature(&self.file, &self.registry);
        if *tried == signature {
            return Ok(None);
        }
        *tried = signature;
        let before = self.active.load_full();
        let now = self.clock.now();
        let active = match read(&self.file, &self.registry, self.no_backfill) {
            Ok(definitions) if definitions.digest == before.definitions.digest => {
                let unchanged = definitions.metrics.iter().map(|metric| metric.name.clone()).collect();
                let last = Outcome::Applied { at: now, difference: Difference { unchanged, ..Difference::default() } };
                if matches!(*before.last, Outcome::Applied { .. }) {
                    return Ok(None);
                }
                Active { last: Arc::new(last), ..(*before).clone() }
            }
            Ok(definitions) => {
                let difference = difference(&before.definitions, &definitions);
                let revision = before.revision + 1;
                tracing::info!(revision, added = ?difference.added, changed = ?difference.changed, removed = ?difference.removed, "definitions applied");
                let last = Outcome::Applied { at: now, difference };
                self.telemetry.reload.applied.inc();
                publish(&self.store, definitions, revision, now, last)?
            }
            Err(diagnostics) => {
                self.telemetry.reload.rejected.inc();
                for diagnostic in &diagnostics {
                    tracing::warn!("definitions rejected, the old ones stay:\n{}", diagnostic.rendered);
                }
                Active { last: Arc::new(Outcome::Rejected { at: now, diagnostics }), ..(*before).clone() }
            }
        };
        self.telemetry.reload.revision.set(active.revision as i64);
        retain(&self.registry, &active);
        let last = active.last.clone();
        switch(active)?;
        Ok(Some(last))
    }
}

fn parent(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() })
}

fn read(file: &Path, registry: &Registry, no_backfill: Option<&str>) -> Result<Definitions, Vec<Diagnostic>> {
    let name = file.display().to_string();
    match std::fs::read(file) {
        Ok(bytes) => decode(&name, bytes).and_then(|text| {
            let definitions = load(&name, &text, registry)?;
            match no_backfill {
                Some(reason) if !definitions.backfilled().is_empty() => Err(refuse_backfill(&name, &text, reason)),
                _ => Ok(definitions),
            }
        }),
        Err(error) => {
            let message = format!("cannot read {name}: {error}");
            let rendered = format!("error: {message}");
            Err(vec![Diagnostic {
                file: name,
                line: 1,
                column: 1,
                length: 1,
                message,
                expected: None,
                help: None,
                rendered,
            }])
        }
    }
}

/// What tells one state of the files from another without reading the large ones.
fn signature(file: &Path, registry: &Registry) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::fs::read(file).ok().hash(&mut hasher);
    for path in registry.watched_files() {
        path.hash(&mut hasher);
        let metadata = std::fs::metadata(&path).ok();
        metadata.map(|it| (it.len(), it.modified().ok(), std::os::unix::fs::MetadataExt::ino(&it))).hash(&mut hasher);
    }
    hasher.finish()
}

/// Gives each metric its lineage, and remembers both for the next start.
fn publish(
    store: &Embedded,
    definitions: Definitions,
    revision: u64,
    now: Millis,
    last: Outcome,
) -> Result<Active, StoreError> {
    let mut lineages = Vec::new();
    for metric in &definitions.plan.metrics {
        let key = format!("lineage/{}", metric.lineage);
        let stored: Lineage =
            store.meta_get(&key)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut lineage = stored.clone();
        lineage.retain(|(fingerprint, _)| *fingerprint != metric.fingerprint);
        if let Some((_, until)) = lineage.first_mut() {
            until.get_or_insert(now);
        }
        lineage.insert(0, (metric.fingerprint, None));
        if lineage != stored {
            store.meta_put(
                &key,
                &serde_json::to_vec(&lineage).map_err(|error| StoreError::Corrupt(error.to_string()))?,
            )?;
        }
        lineages.push(lineage);
    }
    let stored =
        serde_json::to_vec(&(revision, &definitions.digest)).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    store.meta_put(META_REVISION, &stored)?;
    Ok(Active {
        revision,
        applied_at: now,
        definitions: Arc::new(definitions),
        last: Arc::new(last),
        lineages: Arc::new(lineages),
    })
}

fn retain(registry: &Registry, active: &Active) {
    let digests: Vec<String> = active.definitions.plugin_uses.iter().map(|plugin| plugin.digest.clone()).collect();
    registry.retain(&digests);
}
