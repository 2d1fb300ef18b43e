//! `cases.toml`: examples of what a plugin answers, as data. The host's `tidemark plugin test` reads the same file; the
//! README describes it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Value, enrich_one, grant_file, settings};
use crate::detector::{Detector, Point, Verdict, Window};
use crate::enricher::Enricher;
use crate::settings::Config;

type Json = serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile<C> {
    #[serde(default)]
    settings: SettingsTable,
    case: Vec<C>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SettingsTable {
    input: Vec<String>,
    output: Vec<String>,
    config: serde_json::Map<String, Json>,
    files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnricherCase {
    name: String,
    #[serde(default)]
    r#in: BTreeMap<String, Json>,
    #[serde(default)]
    out: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DetectorCase {
    name: String,
    config: Option<serde_json::Map<String, Json>>,
    #[serde(default = "one_minute")]
    step_ms: u64,
    values: Option<Vec<f64>>,
    points: Option<Vec<(i64, f64)>>,
    #[serde(default)]
    none: bool,
    anomalous: Option<bool>,
    expected: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    #[serde(default = "default_tolerance")]
    tolerance: f64,
}

fn one_minute() -> u64 {
    60_000
}

fn default_tolerance() -> f64 {
    1e-9
}

/// Runs the cases of an enricher; panics with all that differ.
pub fn enricher_cases<T: Enricher>(path: impl AsRef<Path>) {
    let file: CaseFile<EnricherCase> = load(path.as_ref());
    let table = &file.settings;
    let names = |names: &[String]| names.iter().map(String::clone).collect::<Vec<_>>();
    let (input, output) = (names(&table.input), names(&table.output));
    let mut settings = settings(&[], &[], &to_json(&table.config));
    (settings.input, settings.output) = (input, output);
    report(path.as_ref(), &file.case, |case| {
        let stray = case.r#in.keys().find(|k| !table.input.contains(k)).map(|k| format!("in: no input \"{k}\""));
        let stray = stray
            .or_else(|| case.out.keys().find(|k| !table.output.contains(k)).map(|k| format!("out: no output \"{k}\"")));
        if let Some(stray) = stray {
            return Err((case.name.clone(), stray));
        }
        let texts: Vec<Option<String>> = table.input.iter().map(|name| case.r#in.get(name).map(as_text)).collect();
        let row: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let expected: Vec<Value> = table.output.iter().map(|name| as_value(case.out.get(name))).collect();
        let got = enrich_one::<T>(&settings, &row).map_err(|error| (case.name.clone(), error))?;
        same(&case.name, &expected, &got)
    });
}

/// Runs the cases of a detector; panics with all that differ.
pub fn detector_cases<T: Detector>(path: impl AsRef<Path>) {
    let file: CaseFile<DetectorCase> = load(path.as_ref());
    report(path.as_ref(), &file.case, |case| {
        let config = Config::new(to_json(case.config.as_ref().unwrap_or(&file.settings.config)));
        let mut detector = T::new(&config).map_err(|error| (case.name.clone(), error))?;
        let verdict = detector.judge(&window(case)?);
        match verdict {
            None => same(&case.name, &case.none, &true),
            Some(_) if case.none => Err((case.name.clone(), format!("expected no verdict\n     got {verdict:?}"))),
            Some(verdict) => same_verdict(case, &verdict),
        }
    });
}

fn window(case: &DetectorCase) -> Result<Window, Failure> {
    let step_ms = case.step_ms as i64;
    let mut past: Vec<Point> = match (&case.values, &case.points) {
        (Some(values), None) => {
            let at = |(i, value): (usize, &f64)| Point { t: i as i64 * step_ms, value: *value };
            values.iter().enumerate().map(at).filter(|point| !point.value.is_nan()).collect()
        }
        (None, Some(points)) => points.iter().map(|(t, value)| Point { t: *t, value: *value }).collect(),
        _ => return Err((case.name.clone(), "give either values or points".to_owned())),
    };
    let last = past.pop().ok_or_else(|| (case.name.clone(), "no point to judge".to_owned()))?;
    Ok(Window { step_ms: case.step_ms, past, last })
}

/// A case's name and what is wrong.
type Failure = (String, String);

fn same<V: PartialEq + Debug>(name: &str, expected: &V, got: &V) -> Result<(), Failure> {
    if expected == got {
        return Ok(());
    }
    Err((name.to_owned(), format!("expected {expected:?}\n     got {got:?}")))
}

fn same_verdict(case: &DetectorCase, got: &Verdict) -> Result<(), Failure> {
    let near = |wanted: Option<f64>, got: f64| wanted.is_none_or(|wanted| (wanted - got).abs() <= case.tolerance);
    let good = case.anomalous.is_none_or(|anomalous| anomalous == got.anomalous)
        && near(case.expected, got.expected)
        && near(case.lower, got.lower)
        && near(case.upper, got.upper);
    if good { Ok(()) } else { Err((case.name.clone(), format!("got {got:?}"))) }
}

fn report<C>(path: &Path, cases: &[C], run: impl Fn(&C) -> Result<(), Failure>) {
    assert!(!cases.is_empty(), "{}: no cases", path.display());
    let failures: Vec<String> =
        cases.iter().filter_map(|case| run(case).err()).map(|(name, what)| format!("{name}:\n{what}")).collect();
    assert!(
        failures.is_empty(),
        "{}: {} of {} cases differ\n{}",
        path.display(),
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

fn load<C: DeserializeOwned>(path: &Path) -> CaseFile<C> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: CaseFile<C> = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let folder = path.parent().unwrap_or(Path::new("."));
    for (name, file) in &file.settings.files {
        grant_file(name, folder.join(file));
    }
    file
}

fn to_json(config: &serde_json::Map<String, Json>) -> String {
    serde_json::to_string(config).expect("a map of JSON values")
}

/// A number or boolean comes as its JSON text.
fn as_text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn as_value(value: Option<&Json>) -> Value {
    match value {
        None => Value::Null,
        Some(Json::Number(number)) => Value::Number(number.as_f64().expect("TOML numbers fit")),
        Some(other) => Value::Text(as_text(other)),
    }
}
