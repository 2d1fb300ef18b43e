//! The plugin author's commands, on components that are built already.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use libtest_mimic::Trial;

use crate::binary::{root, run, run_in};
use crate::trial::trial;

pub fn trials() -> Vec<Trial> {
    let test = |name: &str, run: fn() -> Result<()>| trial(format!("author::{name}"), run);
    vec![
        test("test: cases pass or say what differs", cases_of_an_enricher),
        test("test: a series is judged", cases_of_a_detector),
        test("test: each case of a stateful plugin begins anew", cases_of_a_stateful_plugin),
        test("test: a case file with a slip of the pen", a_wrong_case_file),
        test("inspect: says what a plugin is", inspect),
        test("new: makes a folder once, under a fit name", new),
    ]
}

fn cases_of_an_enricher() -> Result<()> {
    let settings = "[settings]\ninput = ['t']\noutput = ['a', 'b']\n";
    let good = format!("{settings}[[case]]\nname = 'echo'\nin = {{ t = 'x' }}\nout = {{ a = 'x', b = 'x' }}\n");
    check("hostile_enricher", &good, 0, &["ok     echo", "1 passed, 0 failed"])?;
    let bad = format!("{good}[[case]]\nname = 'other'\nin = {{ t = 'x' }}\nout = {{ a = 'y' }}\n");
    check(
        "hostile_enricher",
        &bad,
        1,
        &[
            "ok     echo",
            "FAILED other",
            "a: expected \"y\", got \"x\"",
            "b: expected no value, got \"x\"",
            "1 passed, 1 failed",
        ],
    )?;
    let traps = good.replace("[[case]]", "config = { do = 'trap', on = 'x' }\n[[case]]");
    check("hostile_enricher", &traps, 1, &["FAILED echo", "the plugin trapped", "0 passed, 1 failed"])
}

fn cases_of_a_detector() -> Result<()> {
    let cases = "[[case]]\nname = 'calm'\nvalues = [0, nan, 0.5]\nanomalous = false\nlower = -1\nupper = 1\n\
                 [[case]]\nname = 'jump'\nvalues = [0, 5]\nanomalous = false\n\
                 [[case]]\nname = 'silent'\nconfig = { do = 'none' }\npoints = [[0, 1.0]]\nnone = true\n";
    check(
        "hostile_detector",
        cases,
        1,
        &["ok     calm", "FAILED jump", "anomalous: expected false, got true", "ok     silent", "2 passed, 1 failed"],
    )
}

fn cases_of_a_stateful_plugin() -> Result<()> {
    let settings = "[settings]\ninput = ['t']\noutput = ['n']\n";
    let case = "[[case]]\nname = 'the first'\nin = { t = 'x' }\nout = { n = 1 }\n";
    check("hostile_counter", &format!("{settings}{case}{case}"), 0, &["2 passed, 0 failed"])
}

fn a_wrong_case_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("cases.toml");
    std::fs::write(&path, "[[case]]\nname = 'x'\nouts = { a = 'y' }\n")?;
    let output = run(&["plugin", "test", &component("hostile_enricher"), "--cases", &path.to_string_lossy()])?;
    assert_eq!(output.status, Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("outs"), "{}", output.stderr);
    Ok(())
}

fn inspect() -> Result<()> {
    let output = run(&["plugin", "inspect", &component("hostile_counter")])?;
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    for part in ["hostile_counter", "enricher, stateful", "tidemark:plugin@0.1.0", "digest", "compiles in"] {
        assert!(output.stdout.contains(part), "`{part}` is not in:\n{}", output.stdout);
    }
    let output = run(&["plugin", "inspect", &component("hostile_stranger")])?;
    assert_eq!(output.status, Some(2));
    assert!(output.stderr.contains("is a component but not a plugin"), "{}", output.stderr);
    Ok(())
}

fn new() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let sdk = root().join("plugin-sdk").to_string_lossy().into_owned();
    let make = |name: &str| run_in(folder.path(), &["plugin", "new", name, "--kind", "detector", "--sdk", &sdk]);
    assert_eq!(make("steady")?.status, Some(0));
    let manifest = std::fs::read_to_string(folder.path().join("steady/Cargo.toml"))?;
    assert!(manifest.contains("name = \"steady\"") && manifest.contains("plugin-sdk"), "{manifest}");
    assert!(std::fs::read_to_string(folder.path().join("steady/src/lib.rs"))?.contains("export_detector!(Steady)"));
    for (name, says) in [("steady", "is there already"), ("Bad-Name", "is not a name for a plugin")] {
        let output = make(name)?;
        assert_eq!(output.status, Some(2));
        assert!(output.stderr.contains(says), "{}", output.stderr);
    }
    Ok(())
}

/// `plugin test` with these cases ends so and prints these parts, in this order.
#[track_caller]
fn check(plugin: &str, cases: &str, status: i32, parts: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path: PathBuf = folder.path().join("cases.toml");
    std::fs::write(&path, cases)?;
    let output = run(&["plugin", "test", &component(plugin), "--cases", &path.to_string_lossy()])?;
    assert_eq!(output.status, Some(status), "{}{}", output.stdout, output.stderr);
    let mut rest = output.stdout.as_str();
    for part in parts {
        let at =
            rest.find(part).with_context(|| format!("`{part}` is not where it should be in:\n{}", output.stdout))?;
        rest = &rest[at + part.len()..];
    }
    Ok(())
}

fn component(name: &str) -> String {
    let path = root().join(Path::new("target/hostile")).join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is not there; `scripts/plugins.sh hostile` builds it", path.display());
    path.to_string_lossy().into_owned()
}
