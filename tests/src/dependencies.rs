//! Who may use whom in `host/src`, and which tools belong to one place: the table of the design, held by a test.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use crate::binary;
use crate::trial::trial;

/// A module may use those it lists, by the first part of the path.
const MODULES: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("telemetry", &[]),
    ("engine", &["time"]),
    ("web", &["time"]),
    ("ingest", &["engine", "time"]),
    ("catalog", &["engine", "time"]),
    ("plugin", &["engine", "time"]),
    ("store", &["engine", "time"]),
    ("anomaly", &["engine", "time"]),
    ("alert", &["engine", "time"]),
    ("serve", &["engine", "time"]),
    ("settings", &["time"]),
    ("runtime", BELOW_RUNTIME),
    ("cli", &["runtime", "anomaly", "catalog", "engine", "ingest", "plugin", "serve", "store", "time", "web"]),
    ("main", &["cli"]),
];

const BELOW_RUNTIME: &[&str] =
    &["alert", "anomaly", "catalog", "engine", "ingest", "plugin", "serve", "settings", "store", "time", "web"];

/// Siblings that meet in data all the same, by the longer path.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("serve", "catalog::definitions", "what is asked for is what is defined"),
    ("serve", "catalog::diagnostic", "a rejected file is shown"),
    ("serve", "store", "through its traits and their data; see STORE_INSIDES"),
    ("serve", "anomaly", "answers carry verdicts"),
    ("anomaly", "catalog::definitions", "a rule is a definition"),
    ("alert", "catalog::definitions", "who is told of what is a definition"),
    ("alert", "anomaly", "an alert is made of verdicts"),
];

/// Implementations of the stores' traits: nobody but the runtime names one.
const STORE_INSIDES: &[&str] = &["clickhouse", "embedded", "memory", "redis"];

/// What may stand in one place only.
const TOOLS: &[(&str, &[&str])] = &[
    ("wasmtime::", &["plugin"]),
    ("SystemTime", &["time"]),
    ("sqlparser", &["catalog"]),
    ("rusty_promql_parser", &["serve/prometheus"]),
    ("fjall", &["store"]),
    ("rdkafka::", &["ingest"]),
    ("tokio", &["alert", "cli", "ingest", "runtime", "serve", "store/clickhouse", "web", "main"]),
    ("clickhouse::Client", &["store/clickhouse"]),
    ("hyper_util::client", &["alert"]),
    ("axum", &["ingest", "runtime", "serve", "web"]),
    ("anyhow", &["cli", "main", "runtime"]),
];

/// The data plane has none of these.
const NOT_IN_ENGINE: &[&str] = &["async ", ".await", "serde_json", "Mutex", "RwLock", "std::fs", "std::net", "Instant"];

/// Shared by the shards: takes its lock only when a plugin gave an answer that was never seen before.
const MEMO: &str = "engine/memo.rs";

/// Telemetry counters are raised by all, HTTP's shared parts used by whoever speaks it.
const FOR_ALL: &[&str] = &["telemetry"];
const SPEAK_HTTP: &[&str] = &["ingest", "serve"];

const FILE_LINES_MAX: usize = 500;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("dependencies::modules_use_only_what_the_table_allows", || fail_with(check_all(modules))),
        trial("dependencies::tools_stay_in_their_place", || fail_with(check_all(tools))),
        trial("dependencies::files_stay_short", || fail_with(check_all(length))),
        trial("dependencies::the_table_sees_a_breach", || fail_with(sees_a_breach())),
    ]
}

/// A line of code with what it takes to name it.
struct Source {
    file: PathBuf,
    /// `engine`, `time`, …
    module: String,
    lines: Vec<String>,
}

type Check = fn(&Source, &mut Vec<String>);

fn fail_with(complaints: Vec<String>) -> Result<()> {
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

fn check_all(check: Check) -> Vec<String> {
    let mut complaints = Vec::new();
    let folder = binary::root().join("host/src");
    let mut sources = 0;
    visit(&folder, &mut |file| {
        sources += 1;
        check(&read(&folder, file), &mut complaints);
    });
    assert!(sources > 20, "found only {sources} files in {}", folder.display());
    complaints
}

fn visit(folder: &Path, each: &mut dyn FnMut(&Path)) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).expect("sources").map(|entry| entry.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path);
        }
    }
}

fn read(folder: &Path, file: &Path) -> Source {
    let inside = file.strip_prefix(folder).expect("below the folder");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    let text = std::fs::read_to_string(file).expect("sources are text");
    let module = first.trim_end_matches(".rs").to_owned();
    Source { file: Path::new("host/src").join(inside), module, lines: text.lines().map(str::to_owned).collect() }
}

impl Source {
    /// Numbered lines that run in production, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.file.to_string_lossy().contains("/tests")
            || self.file.file_stem().is_some_and(|stem| ["tests", "fake", "check"].iter().any(|name| stem == *name));
        let end = self.lines.iter().position(|line| line.starts_with("#[cfg(test)]")).unwrap_or(self.lines.len());
        let lines = if tests { &[] } else { &self.lines[..end] };
        lines.iter().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }

    fn complain(&self, line: usize, what: String) -> String {
        format!("{}:{line}: {what}", self.file.display())
    }
}

fn modules(source: &Source, complaints: &mut Vec<String>) {
    if source.module == "lib" {
        return;
    }
    let Some((_, allowed)) = MODULES.iter().find(|(module, _)| *module == source.module) else {
        complaints.push(source.complain(1, format!("the table does not know the module {}", source.module)));
        return;
    };
    for (line, code) in source.code() {
        let paths = code.match_indices("crate::").map(|(at, word)| &code[at + word.len()..]);
        for path in paths.chain(source.module.eq("main").then(|| code.split("tidemark::").nth(1)).flatten()) {
            let used = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if used.is_empty() {
                complaints.push(source.complain(line, "one `use` for each module: the table reads lines".into()));
                continue;
            }
            let by_name = used == source.module || allowed.contains(&used) || FOR_ALL.contains(&used);
            let http = used == "web" && SPEAK_HTTP.contains(&source.module.as_str());
            if !by_name && !http && !excepted(&source.module, path) {
                complaints.push(source.complain(line, format!("{} uses {used}", source.module)));
            }
        }
    }
}

fn excepted(module: &str, path: &str) -> bool {
    let inside =
        path.strip_prefix("store::").is_some_and(|rest| STORE_INSIDES.iter().any(|name| rest.starts_with(name)));
    !inside && EXCEPTIONS.iter().any(|(who, whom, _)| *who == module && path.starts_with(whom))
}

fn tools(source: &Source, complaints: &mut Vec<String>) {
    for (line, code) in source.code() {
        for (tool, places) in TOOLS {
            let is_here =
                |place: &&str| source.module == **place || source.file.starts_with(format!("host/src/{place}"));
            if code.contains(tool) && !places.iter().any(is_here) {
                complaints.push(source.complain(line, format!("{tool} belongs to {}", places.join(", "))));
            }
        }
        let in_engine = source.module == "engine" && !source.file.ends_with(MEMO);
        for word in NOT_IN_ENGINE.iter().filter(|word| in_engine && code.contains(**word)) {
            complaints.push(source.complain(line, format!("{word} has no place in the engine")));
        }
        if code.contains("unsafe ") && !code.contains("unsafe_code") && !source.file.starts_with("host/src/engine") {
            complaints.push(source.complain(line, "unsafe outside the engine".into()));
        }
    }
}

fn length(source: &Source, complaints: &mut Vec<String>) {
    if source.lines.len() > FILE_LINES_MAX {
        complaints.push(source.complain(1, format!("{} lines: is there a seam?", source.lines.len())));
    }
    if !source.lines.first().is_some_and(|line| line.starts_with("//!"))
        && !source.file.ends_with("main.rs")
        && !is_test(source)
    {
        complaints.push(source.complain(1, "no header that says what it does and what it does not know".into()));
    }
}

fn is_test(source: &Source) -> bool {
    source.code().next().is_none()
}

/// The checks themselves: each of these lines must be found.
fn sees_a_breach() -> Vec<String> {
    let breaches: &[(&str, &str, Check)] = &[
        ("engine", "use crate::store::Seq;", modules),
        ("store", "let x = crate::catalog::load();", modules),
        ("serve", "use crate::store::memory::Memory;", modules),
        ("serve", "use crate::catalog::compile;", modules),
        ("ingest", "use crate::{engine, store};", modules),
        ("unheard_of", "", modules),
        ("engine", "    thing.lock().await;", tools),
        ("runtime", "let now = std::time::SystemTime::now();", tools),
        ("store", "use wasmtime::Engine;", tools),
        ("store", "use tokio::runtime::Runtime;", tools),
        ("store", "", length),
    ];
    let mut missed = Vec::new();
    for (module, line, check) in breaches {
        let file = PathBuf::from(format!("host/src/{module}/mod.rs"));
        let source = Source { file, module: (*module).into(), lines: vec![(*line).into()] };
        let mut complaints = Vec::new();
        check(&source, &mut complaints);
        if complaints.is_empty() {
            missed.push(format!("{module}: {line:?} went unseen"));
        }
    }
    missed
}
