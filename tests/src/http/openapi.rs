//! `/openapi.json` and the host are of one mind: every route is described, everything described is there, and answers are as
//! described, asked by a fuzzer made for it (schemathesis; `scripts/fuzzer.sh` brings it).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use super::{Check, DEFINITIONS};
use crate::binary;
use crate::host::{Home, Host, NDJSON};
use crate::trial::trial_within;

/// The fuzzer runs twice, with a limit of its own.
const FUZZED_WITHIN: Duration = Duration::from_secs(660);

pub const CHECKS: &[Check] = &[("describes_every_route", routes), ("is_as_it_describes_itself", described)];

/// Not run, and said to be, where there is no fuzzer.
pub fn fuzz_trial() -> Trial {
    trial_within(FUZZED_WITHIN, "http::answers_a_fuzzer_as_described", fuzzed).with_ignored_flag(fuzzer().is_none())
}

/// Where routes are made.
const FOLDERS: &[&str] = &["host/src/serve", "host/src/ingest"];

/// Requests to each route, and what they are made from.
const EXAMPLES_MAX: &str = "40";
const SEED: &str = "20261130";

const NAMES: &str = "[parameters]\n\"query.metric\" = \"events\"\n\"path.name\" = \"country\"\n";

/// These never end, or are no HTTP once they are open.
const ENDLESS: &[&str] = &["/v1/tap", "/v1/live"];

/// The literals that stand behind `.route(` and in tables of paths.
fn routed() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for folder in FOLDERS {
        visit(&binary::root().join(folder), &mut |text| {
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for (at, _) in code.match_indices(".route(") {
                routes.extend(first_literal(&code[at..]).map(str::to_owned));
            }
            for (at, _) in code.match_indices("PATHS: &[").chain(code.match_indices("SERVED: &[")) {
                let table = code[at..].split(';').next().unwrap_or_default();
                let literals = table.split('"').skip(1).step_by(2);
                routes.extend(literals.filter(|literal| literal.starts_with('/')).map(str::to_owned));
            }
        });
    }
    routes
}

/// Behind a bracket; a route whose path is a variable is in a table.
fn first_literal(call: &str) -> Option<&str> {
    call.split_once('(')?.1.trim_start().strip_prefix('"')?.split('"').next()
}

fn visit(folder: &Path, each: &mut dyn FnMut(&str)) {
    for entry in std::fs::read_dir(folder).expect("sources").flatten() {
        let path = entry.path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "fake");
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|it| it == "rs") && !is_test {
            each(&std::fs::read_to_string(&path).expect("sources are text"));
        }
    }
}

fn start() -> Result<(Home, Host, Value)> {
    let home = Home::new(DEFINITIONS)?;
    let host = home.start_ready()?;
    let document = host.get_json("/openapi.json")?;
    Ok((home, host, document))
}

fn routes() -> Result<()> {
    let (_home, host, document) = start()?;
    let paths = document["paths"].as_object().context("paths")?;
    let routed = routed();
    ensure!(routed.len() > 10 && routed.contains("/v1/query") && routed.contains("/v1/events"), "{routed:?}");
    // What a parameter is called is not part of a path.
    let plain =
        |path: &str| path.split('{').map(|part| part.split_once('}').map_or(part, |it| it.1)).collect::<String>();
    let described: BTreeSet<String> = paths.keys().map(|path| plain(path)).collect();
    // What stands for all the rest is an error.
    let routed = routed.iter().filter(|route| !route.contains("{*"));
    let missing: Vec<_> = routed.filter(|route| !described.contains(&plain(route))).collect();
    ensure!(missing.is_empty(), "docs/openapi.json does not describe {missing:?}");
    host.stop()
}

fn described() -> Result<()> {
    let (_home, host, document) = start()?;
    ensure!(document["info"]["version"] == host.get_json("/v1/status")?["version"], "{}", document["info"]);
    for (path, operations) in document["paths"].as_object().context("paths")? {
        let asked = path.replace("{name}", "country");
        for method in operations.as_object().context("operations")?.keys().filter(|key| *key != "parameters") {
            let answer = match method.as_str() {
                "get" if ENDLESS.contains(&path.as_str()) => host.get(&format!("{asked}?wher=1&key="))?,
                "get" => host.get(&asked)?,
                _ => host.request(&method.to_uppercase(), &asked, b"")?,
            };
            let code = answer.json().ok().map(|json| json["error"]["code"].clone()).unwrap_or_default();
            ensure!(code != "not_found" && answer.status != 405, "{method} {path}: {} {}", answer.status, answer.text);
            let status = answer.status.to_string();
            ensure!(
                operations[method]["responses"].get(&status).is_some(),
                "{method} {path}: {status} is not described"
            );
        }
    }
    host.stop()
}

/// Its folder, as `scripts/fuzzer.sh` leaves it.
fn fuzzer() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("TIDEMARK_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
        Some(base.join("tidemark"))
    });
    cache.map(|cache| cache.join("schemathesis-4.32.5")).filter(|folder| folder.exists())
}

fn fuzzed() -> Result<()> {
    let folder = fuzzer().context("no schemathesis: scripts/fuzzer.sh brings it")?;
    let home = Home::new(DEFINITIONS)?.with_flags(&["--read-key", "r", "--write-key", "w"]);
    let host = home.start_ready()?;
    // Names that there are: else most questions would be about metrics that there are not.
    std::fs::write(home.path().join("schemathesis.toml"), NAMES)?;
    let events = b"{\"country\":\"DE\",\"device\":\"phone\",\"x\":1}\n{\"country\":\"FR\",\"x\":2}\n";
    ensure!(host.post(events, &[NDJSON, ("authorization", "Bearer w")])?.status == 202);
    let mut failures = Vec::new();
    // A key is of one kind: who reads may not send.
    for (key, which) in [("w", "--include-method=POST"), ("r", "--exclude-method=POST")] {
        let mut run = Command::new("timeout");
        run.args(["--signal=KILL", "300"]).arg(folder.join("bin/python"));
        run.args(["-m", "schemathesis.cli", "run", which, "--seed", SEED, "--max-examples", EXAMPLES_MAX]);
        run.args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "20", "--generation-database", "none"]);
        run.args(["--exclude-checks", "negative_data_rejection,positive_data_acceptance"]);
        for path in ENDLESS {
            run.args(["--exclude-path", path]);
        }
        run.args(["-H", &format!("Authorization: Bearer {key}")]).arg(format!("{}/openapi.json", host.url));
        let output = run.current_dir(home.path()).env("NO_COLOR", "1").output()?;
        if !output.status.success() {
            failures.push(format!(
                "{which}: {}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
    }
    ensure!(failures.is_empty(), "{}\n{}", failures.join("\n"), host.log());
    ensure!(host.get("/health/ready")?.status == 200, "{}", host.log());
    host.stop()
}
