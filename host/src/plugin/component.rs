//! From a `.wasm` to a component that can be started: read, compiled, told what it is. Errors are for the operator.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wasmtime::component::InstancePre;
use xxhash_rust::xxh3::xxh3_128;

use super::abi::v0_1;
use super::files::read_bounded;
use super::guest::Guest;
use super::health::lock;
use super::limits::COMPILED_COMPONENTS_MAX;
use super::sandbox::Sandbox;
use crate::engine::extension::{Fault, PluginError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Enricher,
    Detector,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Enricher => "enricher",
            Self::Detector => "detector",
        }
    }

    pub fn with_article(self) -> &'static str {
        match self {
            Self::Enricher => "an enricher",
            Self::Detector => "a detector",
        }
    }

    fn export(self) -> &'static str {
        match self {
            Self::Enricher => v0_1::ENRICHER,
            Self::Detector => v0_1::DETECTOR,
        }
    }
}

/// A compiled component, linked to the host.
pub struct Compiled {
    pub hash: u128,
    pub kinds: Vec<Kind>,
    pub imports: Vec<String>,
    pub bytes: usize,
    pub compile_time: Duration,
    pub start: InstancePre<Guest>,
}

/// Components compiled lately, by the hash of their bytes; the latest used last.
#[derive(Default)]
pub struct Components(Mutex<Vec<Arc<Compiled>>>);

impl Components {
    /// The component in `folder` of that name.
    pub fn named(&self, sandbox: &Sandbox, folder: &Path, name: &str) -> Result<Arc<Compiled>, PluginError> {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !plain || name.starts_with('.') {
            let help = Some("a plugin is named as its file in the plugin folder, without `.wasm`".into());
            return Err(plugin_error(format!("`{name}` is not the name of a plugin"), help));
        }
        let path = folder.join(format!("{name}.wasm"));
        if !path.exists() {
            return Err(missing(folder, name));
        }
        self.open(sandbox, &path)
    }

    pub fn open(&self, sandbox: &Sandbox, path: &Path) -> Result<Arc<Compiled>, PluginError> {
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let bytes = read_bounded(path, sandbox.limits.component_bytes_max)
            .map_err(|error| plugin_error(format!("cannot read {file}: {error}"), None))?;
        let hash = xxh3_128(&bytes);
        if let Some(compiled) = self.used(hash) {
            return Ok(compiled);
        }
        let compiled = Arc::new(compile(sandbox, &file, &bytes, hash)?);
        let mut components = lock(&self.0);
        components.push(compiled.clone());
        if components.len() > COMPILED_COMPONENTS_MAX {
            components.remove(0);
        }
        Ok(compiled)
    }

    fn used(&self, hash: u128) -> Option<Arc<Compiled>> {
        let mut components = lock(&self.0);
        let at = components.iter().position(|compiled| compiled.hash == hash)?;
        let compiled = components.remove(at);
        components.push(compiled.clone());
        Some(compiled)
    }
}

impl Compiled {
    /// An error that says what it is instead.
    pub fn require(&self, name: &str, kind: Kind, wanted_by: &str) -> Result<(), PluginError> {
        if self.kinds.contains(&kind) {
            return Ok(());
        }
        let is = self.kinds.first().map_or("no plugin", |kind| kind.with_article());
        Err(plugin_error(format!("{name} is {is}, {wanted_by} needs {}", kind.with_article()), None))
    }
}

fn compile(sandbox: &Sandbox, file: &str, bytes: &[u8], hash: u128) -> Result<Compiled, PluginError> {
    check_header(file, bytes)?;
    let began = Instant::now();
    let component = sandbox.compile(bytes).map_err(|error| {
        let help = Some("half-written or broken; build it again with `tidemark plugin build`".into());
        plugin_error(format!("{file} is not a valid WebAssembly component: {}", first_line(&error)), help)
    })?;
    let compile_time = began.elapsed();
    let named = component.component_type();
    let imports: Vec<String> = named.imports(&sandbox.engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = named.exports(&sandbox.engine).map(|(name, _)| name.to_owned()).collect();
    let kinds = kinds(file, &exports)?;
    imports.iter().try_for_each(|import| check_import(file, import))?;
    let start = sandbox.link(&component).map_err(|error| {
        plugin_error(format!("{file} does not fit {}{}: {}", v0_1::PACKAGE, v0_1::VERSION, first_line(&error)), None)
    })?;
    Ok(Compiled { hash, kinds, imports, bytes: bytes.len(), compile_time, start })
}

/// The first eight bytes tell a component from a module, and both from anything else.
fn check_header(file: &str, bytes: &[u8]) -> Result<(), PluginError> {
    match bytes {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Err(plugin_error(
            format!("{file} is a core WebAssembly module, a plugin is a component"),
            Some("`tidemark plugin build` makes one; so does `wasm-tools component new` from a module with the interface inside".into()),
        )),
        [] => Err(plugin_error(format!("{file} is empty"), None)),
        _ => Err(plugin_error(format!("{file} is not WebAssembly"), None)),
    }
}

fn kinds(file: &str, exports: &[String]) -> Result<Vec<Kind>, PluginError> {
    let kinds = [Kind::Enricher, Kind::Detector].into_iter().filter(|kind| exports.iter().any(|e| e == kind.export()));
    let kinds: Vec<Kind> = kinds.collect();
    if !kinds.is_empty() {
        return Ok(kinds);
    }
    if let Some(other) = exports.iter().find(|export| export.starts_with(v0_1::PACKAGE)) {
        return Err(other_version(file, "exports", other));
    }
    let help = format!("a plugin exports `{}` or `{}`", v0_1::ENRICHER, v0_1::DETECTOR);
    Err(plugin_error(format!("{file} is a component but not a plugin"), Some(help)))
}

fn check_import(file: &str, import: &str) -> Result<(), PluginError> {
    if import == v0_1::HOST || import == v0_1::TYPES {
        return Ok(());
    }
    if import.starts_with(v0_1::PACKAGE) {
        return Err(other_version(file, "imports", import));
    }
    if import.starts_with("wasi:") {
        let help = "a plugin has no clock, files, network or randomness: build it for wasm32-unknown-unknown, or with WASI stubbed out";
        return Err(plugin_error(format!("{file} needs WASI (`{import}`), which no plugin gets"), Some(help.into())));
    }
    let help = format!("a plugin may import `{}` and nothing else", v0_1::HOST);
    Err(plugin_error(format!("{file} imports `{import}`, which this host does not have"), Some(help)))
}

fn other_version(file: &str, does: &str, name: &str) -> PluginError {
    let message = format!(
        "{file} {does} `{name}`; this host speaks {}{}",
        v0_1::PACKAGE.trim_end_matches('/'),
        format_args!("@{}", v0_1::VERSION)
    );
    plugin_error(message, Some("build the plugin with the SDK of this host's version".into()))
}

fn missing(folder: &Path, name: &str) -> PluginError {
    if !folder.is_dir() {
        return plugin_error(format!("there is no plugin folder {}", folder.display()), None);
    }
    let there = names_in(folder);
    let near = there.iter().map(|other| (strsim::jaro_winkler(name, other), other)).max_by(|a, b| a.0.total_cmp(&b.0));
    let help = match near {
        Some((likeness, other)) if likeness > 0.8 => Some(format!("did you mean `{other}`?")),
        Some(_) => Some(format!("there are: {}", there.join(", "))),
        None => Some("the folder holds no .wasm; `make build` or `tidemark plugin build` makes them".into()),
    };
    plugin_error(format!("there is no plugin `{name}`: no {name}.wasm in {}", folder.display()), help)
}

/// Names of the plugins in a folder, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        paths_in(folder).iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// Every `.wasm` in a folder.
pub fn paths_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).collect()
}

pub fn plugin_error(message: String, help: Option<String>) -> PluginError {
    PluginError { fault: Fault::Plugin, message, help }
}

/// wasmtime explains itself over many lines; the first and the deepest say it.
fn first_line(error: &wasmtime::Error) -> String {
    let (outer, cause) = (error.to_string(), error.root_cause().to_string());
    let outer = outer.lines().next().unwrap_or_default();
    let cause = cause.lines().next().unwrap_or_default();
    if outer == cause { outer.into() } else { format!("{outer}: {cause}") }
}
