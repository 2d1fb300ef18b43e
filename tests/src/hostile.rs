//! Plugins that misbehave, in the real sandbox: each costs its own output, is counted and named, and is not called again
//! after five failures in a row. The components are those of `hostile/`, which `scripts/plugins.sh hostile` builds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libtest_mimic::Trial;
use tempfile::TempDir;
use tidemark::engine::extension::{
    EnricherRequest, Fault, LoadedEnricher, OutputColumn, PluginError, Plugins, TextColumn,
};
use tidemark::plugin::{FailureKind, Limits, PluginStatus, Registry, State};

use crate::trial::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = ENRICHER_FAILURES
        .iter()
        .map(|&(act, kind, says)| test(&format!("enricher {act}"), move || enricher_fails(act, kind, says)))
        .collect();
    trials.extend(
        DETECTOR_FAILURES
            .iter()
            .map(|&(act, kind, says)| test(&format!("detector {act}"), move || detector_fails(act, kind, says))),
    );
    trials.extend(REFUSED_AT_LOAD.iter().map(|&(act, fault, says)| {
        test(&format!("enricher refused: {act}"), move || enricher_is_refused(act, fault, says))
    }));
    trials.extend(
        REFUSED_FILES.iter().map(|&(name, make, says)| {
            test(&format!("file refused: {name}"), move || file_is_refused(name, make, says))
        }),
    );
    trials.extend([
        test("log flood and giant lines do no harm", || harmless(&["log_flood", "log_control", "numbers"])),
        test("long rows do not drive a plugin into its limits", long_rows),
        test("no file but the granted ones", reads_no_other_file),
        test("stateful: never remembered, sees no dry run", stateful),
        test("equal requests share an instance", equal_requests_share),
        test("the wrong kind", the_wrong_kind),
        test("a detector that asks for too much", detector_asks_for_too_much),
    ]);
    trials
}

fn test(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    trial(format!("hostile::{name}"), run)
}

/// What `hostile_enricher` does, how it is counted, and what the operator reads.
const ENRICHER_FAILURES: &[(&str, FailureKind, &str)] = &[
    ("loop", FailureKind::Deadline, "longer than its deadline of 50 ms"),
    ("memory", FailureKind::Memory, "more memory than"),
    ("panic", FailureKind::Trap, "trapped"),
    ("trap", FailureKind::Trap, "unreachable"),
    ("recursion", FailureKind::Trap, "trapped"),
    ("columns_none", FailureKind::Shape, "answered 0 columns, 2 outputs were asked for"),
    ("columns_few", FailureKind::Shape, "answered 1 columns"),
    ("columns_many", FailureKind::Shape, "answered 3 columns"),
    ("rows_few", FailureKind::Shape, "answered `a` with 2 rows instead of 3"),
    ("rows_many", FailureKind::Shape, "with 4 rows instead of 3"),
    ("number_rows_few", FailureKind::Shape, "with 2 rows instead of 3"),
    ("infinite", FailureKind::Shape, "infinite number in row 0"),
    ("giant", FailureKind::Memory, "more memory than"),
    ("invalid_utf8", FailureKind::Shape, "not UTF-8"),
    ("split_utf8", FailureKind::Shape, "inside a character"),
    ("ends_descending", FailureKind::Shape, "before its begin"),
    ("ends_past", FailureKind::Shape, "row 0 ending at byte"),
    ("ends_short", FailureKind::Shape, "3 bytes after the last row"),
    ("nulls_past", FailureKind::Shape, "null rows"),
    ("nulls_descending", FailureKind::Shape, "null rows"),
    ("nulls_many", FailureKind::Output, "output ceiling"),
    ("null_with_text", FailureKind::Shape, "which it says is null"),
    ("log_giant", FailureKind::Output, "output ceiling"),
    ("unheard_of", FailureKind::Trap, "trapped"),
];

const DETECTOR_FAILURES: &[(&str, FailureKind, &str)] = &[
    ("loop", FailureKind::Deadline, "longer than its deadline"),
    ("memory", FailureKind::Memory, "more memory than"),
    ("nan", FailureKind::Shape, "not finite"),
    ("infinite", FailureKind::Shape, "not finite"),
    ("band_reversed", FailureKind::Shape, "lower end 1 is above"),
    ("panic", FailureKind::Trap, "trapped"),
];

/// Found when the definitions are read.
const REFUSED_AT_LOAD: &[(&str, Fault, &str)] = &[
    ("configure_error", Fault::Config, "rejects its settings: configured to refuse"),
    ("configure_giant_error", Fault::Plugin, "output ceiling"),
    ("configure_loop", Fault::Plugin, "longer than its deadline of 50 ms"),
    ("configure_memory", Fault::Plugin, "more memory than"),
    ("configure_panic", Fault::Plugin, "trapped"),
    ("configure_recursion", Fault::Plugin, "trapped"),
    ("columns_few", Fault::Output, "dry run of 0 rows: it answered 1 columns"),
    ("rows_many", Fault::Output, "dry run"),
    ("panic", Fault::Plugin, "dry run"),
    ("loop", Fault::Plugin, "dry run"),
];

/// A file, how it comes to be from a good component, and what is said.
type Make = fn(Vec<u8>) -> Vec<u8>;
const REFUSED_FILES: &[(&str, Make, &str)] = &[
    ("empty", |_| Vec::new(), "broken.wasm is empty"),
    ("text", |_| b"#!/bin/sh".to_vec(), "is not WebAssembly"),
    ("a core module", |_| b"\0asm\x01\0\0\0".to_vec(), "is a core WebAssembly module"),
    ("cut", |good| good[..good.len() / 2].to_vec(), "not a valid WebAssembly component"),
    ("an empty component", |good| good[..8].to_vec(), "is a component but not a plugin"),
    (
        "overwritten inside",
        |mut good| {
            let middle = good.len() / 2;
            good[middle..middle + 64].fill(0xff);
            good
        },
        "broken.wasm",
    ),
    (
        "too large",
        |mut good| {
            good.resize((1 << 20) + 1, 0);
            good
        },
        "larger than 1048576 bytes",
    ),
    ("a stranger", |_| component("hostile_stranger"), "is a component but not a plugin"),
];

/// A plugin folder, and a host's view of it.
struct Host {
    folder: TempDir,
    registry: Registry,
}

impl Host {
    fn with(plugins: &[&str]) -> Self {
        Self::within(20_000, plugins)
    }

    /// What loops is given a short deadline; all else a long one, so that a busy machine does not change the verdict.
    fn for_act(act: &str, plugins: &[&str]) -> Self {
        Self::within(if act.ends_with("loop") { 50 } else { 20_000 }, plugins)
    }

    fn within(deadline_ms: u32, plugins: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for plugin in plugins {
            std::fs::write(folder.path().join(format!("{plugin}.wasm")), component(plugin)).expect("written");
        }
        let limits = Limits {
            deadline_ms,
            configure_deadline_ms: deadline_ms,
            component_bytes_max: 1 << 20,
            memory_bytes_max: 32 << 20,
            ..Limits::default()
        };
        let registry = Registry::new(folder.path().to_owned(), limits, 2).expect("a registry");
        Self { folder, registry }
    }

    fn enricher(&self, config: &str) -> Result<LoadedEnricher, PluginError> {
        self.registry.enricher(&EnricherRequest {
            plugin: "hostile_enricher".into(),
            input: vec!["text".into()],
            output: vec!["a".into(), "b".into()],
            files: Vec::new(),
            config: config.into(),
        })
    }

    fn status(&self) -> PluginStatus {
        let mut all = self.registry.status();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Another file with the same behaviour: a custom section is appended.
    fn change(&self, plugin: &str) {
        let path = self.folder.path().join(format!("{plugin}.wasm"));
        let mut bytes = std::fs::read(&path).expect("read");
        bytes.extend(b"\0\x05\x04note");
        std::fs::write(path, bytes).expect("written");
    }
}

fn component(name: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/hostile/{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; `scripts/plugins.sh hostile` builds it", path.display());
    })
}

fn column(rows: &[&str]) -> TextColumn {
    let mut column = TextColumn::default();
    for row in rows {
        column.bytes.extend(row.as_bytes());
        column.ends.push(column.bytes.len() as u32);
    }
    column
}

/// The plugin misbehaves in a batch that holds the row `poison`.
fn enricher_fails(act: &'static str, kind: FailureKind, says: &str) -> Result<()> {
    let host = Host::for_act(act, &["hostile_enricher"]);
    let config = format!(r#"{{"do":"{act}","on":"poison"}}"#);
    let loaded = host.enricher(&config).map_err(refusal)?;
    let (good, poison) = (column(&["x", "yy", ""]), column(&["x", "poison", "z"]));
    let echo = Some(vec![OutputColumn::Text(good.clone()); 2]);
    let enrich = |shard, rows: &TextColumn| loaded.enricher.enrich(shard, 3, std::slice::from_ref(rows));

    let began = Instant::now();
    for failures in 1..=4 {
        assert_eq!(enrich(0, &poison), None);
        let status = host.status();
        assert_eq!((status.traps, status.state), (failures, State::Live));
        assert_contains(status.last_error.as_deref().unwrap_or_default(), says);
        assert_eq!(host.registry.failures(), [("hostile_enricher".to_owned(), kind, failures)]);
        assert_eq!(enrich(0, &good), echo, "a fresh instance takes its place");
        assert_eq!(enrich(1, &good), echo, "another shard's is not touched");
    }
    for _ in 0..5 {
        assert_eq!(host.status().state, State::Live);
        assert_eq!(enrich(1, &poison), None);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "nine failures took {:?}", began.elapsed());
    assert_eq!(enrich(0, &good), None, "it is not called any more");
    let status = host.status();
    assert_eq!((status.state, status.traps, status.calls, status.rows), (State::Quarantined, 9, 17, 51));
    assert!(peak_memory_bytes() < 1 << 30, "the process reached {} bytes", peak_memory_bytes());

    let again = host.enricher(&config).map_err(refusal)?;
    assert_eq!(again.enricher.enrich(0, 3, std::slice::from_ref(&good)), None, "unchanged, it stays where it is");
    host.change("hostile_enricher");
    let changed = host.enricher(&config).map_err(refusal)?;
    host.registry.retain(std::slice::from_ref(&changed.digest));
    assert_ne!(changed.digest, loaded.digest);
    assert_eq!(changed.enricher.enrich(0, 3, std::slice::from_ref(&good)), echo, "changed, it has another chance");
    assert_eq!((host.status().state, host.status().traps), (State::Live, 0));
    Ok(())
}

/// The plugin misbehaves on a judged point above 100.
fn detector_fails(act: &'static str, kind: FailureKind, says: &str) -> Result<()> {
    let host = Host::for_act(act, &["hostile_detector"]);
    let config = format!(r#"{{"do":"{act}","above":100}}"#);
    let loaded = host.registry.detector("hostile_detector", &config).map_err(refusal)?;
    assert_eq!(loaded.detector.lookback_ms(), 3_600_000);
    let judge = |value| loaded.detector.judge(60_000, &[(0, 1.0), (60_000, value)]);
    for failures in 1..=4 {
        assert_eq!(judge(101.0), None);
        let status = host.status();
        assert_eq!((status.traps, status.state), (failures, State::Live));
        assert_contains(status.last_error.as_deref().unwrap_or_default(), says);
        assert_eq!(host.registry.failures(), [("hostile_detector".to_owned(), kind, failures)]);
        assert_eq!(judge(3.0).map(|verdict| (verdict.score, verdict.anomalous)), Some((3.0, true)));
    }
    (0..5).for_each(|_| assert_eq!(judge(101.0), None));
    assert_eq!(judge(3.0), None, "it is not called any more");
    assert_eq!((host.status().state, host.status().calls), (State::Quarantined, 13));
    Ok(())
}

fn enricher_is_refused(act: &str, fault: Fault, says: &str) -> Result<()> {
    let host = Host::for_act(act, &["hostile_enricher"]);
    let error = refused(host.enricher(&format!(r#"{{"do":"{act}"}}"#)))?;
    assert_contains(&error.message, says);
    assert_eq!(error.fault, fault, "{error:?}");
    assert!(error.message.len() < 8 << 10, "{} bytes of message", error.message.len());
    assert_eq!(host.registry.status(), [], "what was refused is not in force");
    Ok(())
}

fn file_is_refused(name: &str, make: Make, says: &str) -> Result<()> {
    let host = Host::with(&[]);
    std::fs::write(host.folder.path().join("broken.wasm"), make(component("hostile_enricher")))?;
    let error = refused(host.registry.detector("broken", "{}"))?;
    assert_contains(&error.message, says);
    assert_eq!(error.fault, Fault::Plugin, "{name}");
    Ok(())
}

/// The answers are as good as any.
fn harmless(acts: &[&str]) -> Result<()> {
    let host = Host::with(&["hostile_enricher"]);
    for act in acts {
        let loaded = host.enricher(&format!(r#"{{"do":"{act}","on":"now"}}"#)).map_err(refusal)?;
        let answer = loaded.enricher.enrich(0, 1, &[column(&["now"])]);
        assert!(answer.is_some(), "{act}: {:?}", host.registry.status());
    }
    Ok(())
}

/// More input than an instance has memory, from people who send long fields.
fn long_rows() -> Result<()> {
    let host = Host::with(&["hostile_enricher"]);
    let loaded = host.enricher("{}").map_err(refusal)?;
    let row = "x".repeat(60_000);
    let rows = column(&vec![row.as_str(); 1_024]);
    let answer = loaded.enricher.enrich(0, 1_024, std::slice::from_ref(&rows));
    assert!(answer == Some(vec![OutputColumn::Text(rows); 2]), "{:?}", host.status());
    Ok(())
}

fn reads_no_other_file() -> Result<()> {
    let host = Host::with(&["hostile_enricher"]);
    std::fs::write(host.folder.path().join("country.mmdb"), "not granted")?;
    let loaded = host.enricher(r#"{"do":"read_other_file","on":"now"}"#).map_err(refusal)?;
    let answer = loaded.enricher.enrich(0, 1, &[column(&["now"])]).context("no answer")?;
    let OutputColumn::Text(said) = &answer[0] else { bail!("not text") };
    let said = String::from_utf8(said.bytes.clone())?;
    assert_eq!(said.matches("is not among the files granted").count(), 5, "{said}");
    assert!(!said.contains("Ok("), "{said}");
    Ok(())
}

fn stateful() -> Result<()> {
    let host = Host::with(&["hostile_counter"]);
    let request = EnricherRequest {
        plugin: "hostile_counter".into(),
        input: vec!["text".into()],
        output: vec!["n".into()],
        files: Vec::new(),
        config: "{}".into(),
    };
    let loaded = host.registry.enricher(&request).map_err(refusal)?;
    assert!(loaded.memo.is_none());
    let count = |shard, rows: &[&str]| loaded.enricher.enrich(shard, rows.len() as u32, &[column(rows)]);
    assert_eq!(count(0, &["a", "a"]), Some(vec![OutputColumn::Number(vec![1.0, 2.0])]));
    assert_eq!(count(0, &["a"]), Some(vec![OutputColumn::Number(vec![3.0])]));
    assert_eq!(count(1, &["a"]), Some(vec![OutputColumn::Number(vec![1.0])]));
    Ok(())
}

fn equal_requests_share() -> Result<()> {
    let host = Host::with(&["hostile_enricher"]);
    let load = |config: &str| host.enricher(config).map_err(refusal);
    let (first, second, other) = (load("{}")?, load("{}")?, load(r#"{"do":"good"}"#)?);
    assert!(Arc::ptr_eq(&first.enricher, &second.enricher));
    assert!(Arc::ptr_eq(first.memo.as_ref().context("no memo")?, second.memo.as_ref().context("no memo")?));
    assert_eq!(first.digest, second.digest);
    assert_ne!(first.digest, other.digest);
    assert_eq!(host.registry.status().len(), 2);
    host.registry.retain(std::slice::from_ref(&other.digest));
    assert_eq!(host.status().digest, other.digest);
    Ok(())
}

fn the_wrong_kind() -> Result<()> {
    let host = Host::with(&["hostile_enricher", "hostile_detector"]);
    let error = refused(host.registry.detector("hostile_enricher", "{}"))?;
    assert_eq!(error.message, "hostile_enricher is an enricher, an anomaly rule needs a detector");
    let error = refused(host.registry.detector("hostile_detectr", "{}"))?;
    assert_eq!(error.help.as_deref(), Some("did you mean `hostile_detector`?"));
    for name in ["../hostile_detector", "/etc/passwd", "", "."] {
        assert_contains(&refused(host.registry.detector(name, "{}"))?.message, "is not the name of a plugin");
    }
    Ok(())
}

fn detector_asks_for_too_much() -> Result<()> {
    let host = Host::with(&["hostile_detector"]);
    let error = refused(host.registry.detector("hostile_detector", r#"{"do":"history_forever"}"#))?;
    assert_contains(&error.message, "more than 31 days");
    assert_eq!(error.fault, Fault::Config);
    Ok(())
}

fn refused<T>(loaded: Result<T, PluginError>) -> Result<PluginError> {
    loaded.err().context("it was accepted")
}

#[track_caller]
fn assert_contains(text: &str, part: &str) {
    assert!(text.contains(part), "`{part}` is not in: {text}");
}

/// The most that this process ever held.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.and_then(|kib| kib.parse::<u64>().ok()).expect("the kernel says it") << 10
}

fn refusal(error: PluginError) -> anyhow::Error {
    anyhow::Error::msg(error.message)
}
