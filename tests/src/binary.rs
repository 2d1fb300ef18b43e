//! Where the program under test is, and how to run one of its commands to the end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A command that takes longer than this hangs.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Root of the sources.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace")
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
    let binary = tidemark();
    let mut child = Command::new(&binary)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} does not start; `make build` makes it", binary.display()))?;
    let mut out = child.stdout.take().expect("piped");
    let mut err = child.stderr.take().expect("piped");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| err.read_to_end(&mut stderr));
        let late = scope.spawn(|| {
            let started = Instant::now();
            // The pipes close when the child ends: only then is there a status to be had at once.
            while started.elapsed() < COMMAND_DEADLINE {
                if let Ok(Some(status)) = child.try_wait() {
                    return Ok(status);
                }
                std::thread::park_timeout(Duration::from_millis(2));
            }
            let _ = child.kill();
            bail!("{arguments:?} still runs after {COMMAND_DEADLINE:?}")
        });
        out.read_to_end(&mut stdout)?;
        errors.join().expect("no panic")?;
        let status = late.join().expect("no panic")?;
        Ok(status.code())
    })
    .map(|status| Output {
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}
