//! Commands that people type besides `run`: what they print, to whom, and how they exit.

mod query;
mod watch;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use crate::binary::{self, Output};
use crate::trial::trial;

pub type Check = (&'static str, fn() -> Result<()>);

const CHECKS: &[Check] = &[
    ("completions_name_every_command", completions),
    ("man_pages_say_what_help_says", man),
    ("colour_is_for_terminals_that_want_it", colour),
    ("replay_shows_how_far_it_is_to_a_terminal_only", progress),
];

pub fn trials() -> Vec<Trial> {
    let test = |(name, check): Check| trial(format!("commands::{name}"), check);
    let plugin_missing = binary::plugins_with(watch::PLUGIN).is_none();
    let with_plugin = watch::CHECKS_WITH_PLUGIN.iter().map(|check| test(*check).with_ignored_flag(plugin_missing));
    [CHECKS, query::CHECKS, watch::CHECKS].concat().into_iter().map(test).chain(with_plugin).collect()
}

/// Its standard output, after it has ended well.
fn said(arguments: &[&str]) -> Result<String> {
    let output = binary::run(arguments)?;
    ensure!(output.status == Some(0), "{arguments:?}: {:?} {}", output.status, output.stderr);
    Ok(output.stdout)
}

pub fn exits(output: &Output, status: i32, words: &str) -> Result<()> {
    ensure!(
        output.status == Some(status) && output.stderr.contains(words),
        "not {status} with `{words}`: {:?} {} {}",
        output.status,
        output.stdout,
        output.stderr
    );
    Ok(())
}

/// The commands that `--help` lists.
fn commands() -> Result<Vec<String>> {
    let help = said(&["--help"])?;
    let list = help.split("Commands:").nth(1).context("commands")?.split("\n\n").next().unwrap_or_default();
    let names: Vec<String> =
        list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    ensure!(names.len() > 5, "{help}");
    Ok(names)
}

fn completions() -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&["completions", shell])?;
        for name in commands()?.iter().filter(|name| *name != "help") {
            ensure!(script.contains(name.as_str()), "{shell} does not complete `{name}`");
        }
        ensure!(script.contains("journal-bytes-max"), "{shell} does not complete the flags of `run`");
    }
    // A shell that reads its own language finds nothing to complain about.
    let script = said(&["completions", "bash"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tidemark.bash");
    std::fs::write(&file, script)?;
    let status = std::process::Command::new("bash").arg("-n").arg(&file).status()?;
    ensure!(status.success(), "bash -n: {status}");
    exits(&binary::run(&["completions", "tcl"])?, 2, "invalid value 'tcl'")
}

fn man() -> Result<()> {
    let page = said(&["man", "query"])?;
    for words in [".TH tidemark-query", "Ask a running host for a metric", "TIDEMARK_URL", "\\-\\-last"] {
        ensure!(page.contains(words), "`{words}` is missing in {page}");
    }
    let folder = tempfile::tempdir()?;
    let folder = folder.path().to_str().context("a path")?;
    said(&["man", "--out", folder])?;
    for name in commands()?.iter().filter(|name| *name != "help") {
        let file = std::path::Path::new(folder).join(format!("tidemark-{name}.1"));
        ensure!(file.exists(), "there is no {}", file.display());
    }
    exits(&binary::run(&["man", "qeury"])?, 2, "there is no command `qeury` here; there are: ")
}

/// In a terminal of its own, with these variables set.
fn in_terminal(command: &str, variables: &[(&str, &str)]) -> Result<String> {
    let mut script = std::process::Command::new("script");
    script.args(["-qec", command, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm-256color");
    let output = script.envs(variables.iter().copied()).stdin(std::process::Stdio::null()).output();
    Ok(String::from_utf8_lossy(&output.context("script (Debian: bsdutils)")?.stdout).into_owned())
}

fn colour() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("metrics.toml");
    std::fs::write(&file, "[metrics]\na = \"cuont()\"\n")?;
    let (binary, file) = (binary::tidemark(), file.display().to_string());
    let piped = binary::run(&["check", &file])?;
    ensure!(piped.status == Some(1) && piped.stdout.starts_with("error: ") && !piped.stdout.contains('\u{1b}'));
    let command = format!("{} check {file}", binary.display());
    let seen = in_terminal(&command, &[])?;
    ensure!(seen.contains("\u{1b}[31m\u{1b}[1merror:\u{1b}[0m"), "{seen:?}");
    let plain = in_terminal(&command, &[("NO_COLOR", "1")])?;
    ensure!(plain.contains("error: ") && !plain.contains('\u{1b}'), "{plain:?}");
    Ok(())
}

fn progress() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (definitions, events) = (folder.path().join("metrics.toml"), folder.path().join("events.ndjson"));
    std::fs::write(&definitions, "[metrics]\nevents = \"count()\"\n")?;
    // Long enough for a bar to be drawn on the fastest machine.
    std::fs::write(
        &events,
        "{\"ts\":1700000000,\"type\":\"page_view\",\"url\":\"/a/rather/long/one\"}\n".repeat(1 << 20),
    )?;
    let (definitions, events) = (definitions.display().to_string(), events.display().to_string());
    let piped = binary::run(&["replay", "--no-points", "--metrics", &definitions, &events])?;
    exits(&piped, 0, "1048576 events counted")?;
    ensure!(!piped.stderr.contains('%') && !piped.stderr.contains('\u{1b}'), "{}", piped.stderr);
    let binary = binary::tidemark();
    let command = format!("{} replay --shards 1 --no-points --metrics {definitions} {events}", binary.display());
    let seen = in_terminal(&command, &[])?;
    let bar = seen.split('\r').find(|line| line.contains('%')).with_context(|| format!("no bar in {seen:?}"))?;
    ensure!(bar.contains("/s") && bar.contains("left") && seen.contains("events counted"), "{seen:?}");
    Ok(())
}
