//! What `tidemark check` says about a mistake, as files: `tests/diagnostics/NAME.toml` and, word for word, `NAME.err`.
//! `TIDEMARK_BLESS=1` writes the `.err` anew; read the difference before committing it.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::binary;
use crate::trial::trial;

pub fn trials() -> Vec<Trial> {
    let files = binary::files("tests/diagnostics", "toml");
    files
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            trial(format!("diagnostics::{name}"), move || check(&name))
        })
        .collect()
}

fn check(name: &str) -> Result<()> {
    let folder = binary::root().join("tests/diagnostics");
    let file = format!("{name}.toml");
    let output = binary::run_in(&folder, &["check", "--plugins", ".", &file])?;
    let actual = format!("{}{}", output.stdout, output.stderr);
    let expected = folder.join(format!("{name}.err"));
    if std::env::var_os("TIDEMARK_BLESS").is_some() {
        std::fs::write(&expected, &actual)?;
    }
    ensure!(output.status == Some(1), "exit {:?}\n{actual}", output.status);
    let expected = std::fs::read_to_string(&expected).context("no .err beside it: TIDEMARK_BLESS=1 writes it")?;
    ensure!(actual == expected, "expected:\n{expected}\ngot:\n{actual}");
    machine_readable(&folder, &file)
}

/// Editors and CI read the same as JSON: every position lies in the file.
fn machine_readable(folder: &std::path::Path, file: &str) -> Result<()> {
    let output = binary::run_in(folder, &["check", "--plugins", ".", "--format", "json", file])?;
    ensure!(output.status == Some(1), "exit {:?} with --format json", output.status);
    let value: Value = serde_json::from_str(&output.stdout).with_context(|| output.stdout.clone())?;
    let diagnostics = value.as_array().or_else(|| value["diagnostics"].as_array()).context("no list of diagnostics")?;
    ensure!(!diagnostics.is_empty(), "no diagnostics: {value}");
    let text = std::fs::read_to_string(folder.join(file))?;
    let lines: Vec<&str> = text.lines().collect();
    for diagnostic in diagnostics {
        let number = |member: &str| diagnostic[member].as_u64().with_context(|| format!("no {member}: {diagnostic}"));
        let (line, column, length) = (number("line")?, number("column")?, number("length")?);
        let there = lines.get(line as usize - 1).map_or(0, |line| line.chars().count() as u64);
        ensure!(line >= 1 && column >= 1 && length >= 1, "positions count from 1: {diagnostic}");
        ensure!(line as usize <= lines.len().max(1), "line {line} is not in the file: {diagnostic}");
        ensure!(
            column + length - 1 <= there + 1,
            "columns {column}..{} are not in line {line}: {diagnostic}",
            column + length
        );
    }
    Ok(())
}
