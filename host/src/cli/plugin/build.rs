//! `tidemark plugin build`: a crate to a component, with cargo and a compiler that knows WebAssembly.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;

const TARGET: &str = "wasm32-unknown-unknown";

/// Build the plugin in DIR and leave DIR/NAME.wasm.
#[derive(Args)]
pub struct Arguments {
    /// The folder with its Cargo.toml.
    #[arg(default_value = ".")]
    dir: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let wasm = build(&arguments.dir)?;
    let bytes = std::fs::metadata(&wasm).with_context(|| format!("cannot read {}", wasm.display()))?.len();
    println!("{} ({})", wasm.display(), super::size(bytes as usize));
    Ok(ExitCode::SUCCESS)
}

/// Builds the crate in `folder` and gives the path of the component it leaves there. cargo talks on standard error.
pub fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.canonicalize().with_context(|| format!("there is no {}", manifest.display()))?;
    let rustc = rustc()?;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(&manifest)
        .current_dir(folder)
        .env("RUSTC", rustc)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo: install Rust from https://rustup.rs")?;
    if !output.status.success() {
        bail!("cargo could not build {}", manifest.display());
    }
    let built = artifact(&String::from_utf8_lossy(&output.stdout), &manifest)
        .with_context(|| format!("{} builds no .wasm: it needs crate-type = [\"cdylib\"]", manifest.display()))?;
    place(&built, folder)
}

/// The compiler named by TIDEMARK_WASM_RUSTC, else the installed one if it has the target, else the one that
/// scripts/wasm-toolchain.sh set up.
fn rustc() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("TIDEMARK_WASM_RUSTC") {
        let named = PathBuf::from(named);
        if !knows_target(&named) {
            bail!("TIDEMARK_WASM_RUSTC={} has no target {TARGET}", named.display());
        }
        return Ok(named);
    }
    let candidates = [installed(), set_up()];
    candidates.into_iter().flatten().find(|rustc| knows_target(rustc)).with_context(|| {
        format!("no Rust compiler for WebAssembly: `rustup target add {TARGET}`, or scripts/wasm-toolchain.sh of Tidemark's source, or TIDEMARK_WASM_RUSTC")
    })
}

/// Not rustup's proxy, which would pick by the folder.
fn installed() -> Option<PathBuf> {
    Some(PathBuf::from(said(Path::new("rustc"), &["--print", "sysroot"])?).join("bin/rustc"))
}

fn set_up() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("TIDEMARK_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("tidemark")))
        .or_else(|| Some(folder("HOME")?.join(".cache/tidemark")))?;
    Some(cache.join("wasm-toolchain/bin/rustc"))
}

fn knows_target(rustc: &Path) -> bool {
    let Some(folder) = said(rustc, &["--print", "target-libdir", "--target", TARGET]) else { return false };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The component among what cargo says it made for this manifest.
fn artifact(messages: &str, manifest: &Path) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|message| {
        let ours = message["reason"] == "compiler-artifact"
            && message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
        let mut files = message["filenames"].as_array().filter(|_| ours)?.iter().filter_map(|file| file.as_str());
        files.find(|file| file.ends_with(".wasm")).map(PathBuf::from)
    })
}

/// Put beside the manifest, whole at once: a host may be watching.
fn place(built: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let name = built.file_name().context("cargo named no file")?;
    let (to, part) = (folder.join(name), folder.join(format!(".{}.part", name.to_string_lossy())));
    std::fs::copy(built, &part).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, &to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(to)
}
