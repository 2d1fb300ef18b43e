//! What a plugin command is pointed at: a `.wasm`, or a folder that holds or builds one; and where its cases are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::build::build;

/// The component; a folder with a Cargo.toml is built first.
pub fn component(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        bail!("there is no {}", path.display());
    }
    if path.join("Cargo.toml").is_file() {
        return build(path);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut components: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "wasm")).collect();
    match components.len() {
        1 => Ok(components.remove(0)),
        0 => bail!("{} holds neither a Cargo.toml nor a .wasm", path.display()),
        _ => bail!("{} holds several .wasm: name one", path.display()),
    }
}

/// Beside the component, or in a folder of its name beside it.
pub fn cases(component: &Path) -> Option<PathBuf> {
    let folder = component.parent()?;
    let own = folder.join(component.file_stem()?);
    [folder.join("cases.toml"), own.join("cases.toml")].into_iter().find(|path| path.is_file())
}
