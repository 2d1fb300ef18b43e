//! Where the program under test is, and how to run one of its commands to the end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};

/// A command that takes longer than this hangs.
const COMMAND_SECONDS_MAX: &str = "60";

/// Root of the sources: where cargo runs the tests, which may be another checkout than the one that they were built in.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&here).parent().expect("the crate stands in the workspace").to_owned()
    });
    &ROOT
}

/// The binary: `TIDEMARK_BIN`, else the one built beside this test.
pub fn tidemark() -> PathBuf {
    if let Some(given) = std::env::var_os("TIDEMARK_BIN") {
        return given.into();
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    test.ancestors().nth(2).expect("target/release/deps/test").join("tidemark")
}

/// The folder with built plugins, if the plugin was built.
pub fn plugins_with(name: &str) -> Option<PathBuf> {
    let folder = root().join("plugins");
    folder.join(format!("{name}.wasm")).exists().then_some(folder)
}

pub struct Output {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `tidemark` with these arguments until it ends.
pub fn run(arguments: &[&str]) -> Result<Output> {
    run_in(Path::new("."), arguments)
}

pub fn run_in(folder: &Path, arguments: &[&str]) -> Result<Output> {
    let binary = tidemark();
    ensure!(binary.exists(), "{} is not there; `make build` makes it", binary.display());
    let output = Command::new("timeout")
        .args(["--signal=KILL", COMMAND_SECONDS_MAX])
        .arg(&binary)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} does not start", binary.display()))?;
    Ok(Output {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Files of a folder of the sources, by how their names end.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = root().join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}
