//! `cases.toml`: examples of what a plugin answers. The SDK's README describes the format and its native tests read the
//! same file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::extension::{OutputColumn, TextColumn, Verdict};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "C: DeserializeOwned")]
pub struct CaseFile<C> {
    #[serde(default)]
    pub settings: Settings,
    #[serde(rename = "case", default)]
    pub cases: Vec<C>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub input: Vec<String>,
    pub output: Vec<String>,
    pub config: serde_json::Map<String, Value>,
    /// Granted names and where the files are, from the case file.
    pub files: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnricherCase {
    pub name: String,
    #[serde(rename = "in", default)]
    pub input: BTreeMap<String, Value>,
    #[serde(rename = "out", default)]
    pub output: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorCase {
    pub name: String,
    pub config: Option<serde_json::Map<String, Value>>,
    #[serde(default = "one_minute")]
    pub step_ms: i64,
    values: Option<Vec<f64>>,
    points: Option<Vec<(i64, f64)>>,
    #[serde(default)]
    none: bool,
    anomalous: Option<bool>,
    expected: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    #[serde(default = "close")]
    tolerance: f64,
}

fn one_minute() -> i64 {
    60_000
}

fn close() -> f64 {
    1e-9
}

impl<C: DeserializeOwned> CaseFile<C> {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: Self = toml::from_str(&text).with_context(|| format!("{} is not as it should be", path.display()))?;
        if file.cases.is_empty() {
            bail!("{} holds no [[case]]", path.display());
        }
        Ok(file)
    }
}

impl Settings {
    pub fn config(&self) -> String {
        Value::Object(self.config.clone()).to_string()
    }

    pub fn files(&self, case_file: &Path) -> Vec<(String, PathBuf)> {
        let folder = case_file.parent().unwrap_or(Path::new("."));
        self.files.iter().map(|(name, path)| (name.clone(), folder.join(path))).collect()
    }
}

impl EnricherCase {
    /// A name that the settings do not have is a slip of the pen.
    pub fn check(&self, settings: &Settings) -> Result<(), String> {
        let stray = |kind: &str, named: &BTreeMap<String, Value>, declared: &[String]| {
            named
                .keys()
                .find(|name| !declared.contains(name))
                .map(|name| format!("the settings have no {kind} `{name}`"))
        };
        let found = stray("input", &self.input, &settings.input);
        found.or_else(|| stray("output", &self.output, &settings.output)).map_or(Ok(()), Err)
    }

    /// What differs, a line each.
    pub fn compare(&self, settings: &Settings, answer: &[OutputColumn], row: usize) -> Vec<String> {
        let pairs = settings.output.iter().zip(answer);
        let differences = pairs.filter_map(|(name, column)| {
            let (expected, got) = (self.output.get(name).map_or(Value::Null, expected), value(column, row));
            (expected != got).then(|| format!("{name}: expected {}, got {}", shown(&expected), shown(&got)))
        });
        differences.collect()
    }
}

/// One column for each input, one row for each case.
pub fn columns(settings: &Settings, cases: &[&EnricherCase]) -> Vec<TextColumn> {
    let column = |name: &String| {
        let mut column = TextColumn::default();
        for (row, case) in cases.iter().enumerate() {
            match case.input.get(name) {
                Some(value) => column.bytes.extend(text(value).as_bytes()),
                None => column.nulls.push(row as u32),
            }
            column.ends.push(column.bytes.len() as u32);
        }
        column
    };
    settings.input.iter().map(column).collect()
}

/// A number or boolean comes as its JSON text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Numbers as floats; all else as the text it would be.
fn expected(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        other => Value::String(text(other)),
    }
}

fn value(column: &OutputColumn, row: usize) -> Value {
    match column {
        OutputColumn::Number(numbers) => Value::from(numbers[row]), // NaN is null
        OutputColumn::Text(column) if column.nulls.contains(&(row as u32)) => Value::Null,
        OutputColumn::Text(column) => {
            let begin = if row == 0 { 0 } else { column.ends[row - 1] as usize };
            String::from_utf8_lossy(&column.bytes[begin..column.ends[row] as usize]).into()
        }
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "no value".into() } else { value.to_string() }
}

impl DetectorCase {
    /// The series; the last point is judged.
    pub fn points(&self) -> Result<Vec<(i64, f64)>, String> {
        let points: Vec<(i64, f64)> = match (&self.values, &self.points) {
            (Some(values), None) => (0..).map(|step: i64| step * self.step_ms).zip(values.iter().copied()).collect(),
            (None, Some(points)) => points.clone(),
            _ => return Err("a case has either `values` or `points`".into()),
        };
        let points: Vec<_> = points.into_iter().filter(|(_, value)| !value.is_nan()).collect();
        if points.is_empty() { Err("there is no point to judge".into()) } else { Ok(points) }
    }

    /// What differs, a line each.
    pub fn compare(&self, verdict: Option<&Verdict>) -> Vec<String> {
        let Some(verdict) = verdict else {
            return if self.none { Vec::new() } else { vec!["expected a verdict, got none".into()] };
        };
        if self.none {
            return vec![format!("expected no verdict, got {verdict:?}")];
        }
        let anomalous = self.anomalous.filter(|&expected| expected != verdict.anomalous);
        let anomalous = anomalous.map(|expected| format!("anomalous: expected {expected}, got {}", verdict.anomalous));
        let numbers = [
            ("expected", self.expected, verdict.expected),
            ("lower", self.lower, verdict.lower),
            ("upper", self.upper, verdict.upper),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, expected, got)| {
            let expected = expected.filter(|expected| (expected - got).abs() > self.tolerance)?;
            Some(format!("{name}: expected {expected}, got {got}"))
        });
        anomalous.into_iter().chain(numbers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enricher(toml: &str) -> CaseFile<EnricherCase> {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn an_absent_input_is_null_and_other_kinds_are_their_json_text() {
        let file = enricher(
            r#"
            settings = { input = ["a", "b"], output = [] }
            [[case]]
            name = "one"
            in = { a = "x", b = 1.5 }
            [[case]]
            name = "two"
            in = { b = true }
            "#,
        );
        let columns = columns(&file.settings, &file.cases.iter().collect::<Vec<_>>());
        assert_eq!(columns[0], TextColumn { bytes: b"x".to_vec(), ends: vec![1, 1], nulls: vec![1] });
        assert_eq!(columns[1], TextColumn { bytes: b"1.5true".to_vec(), ends: vec![3, 7], nulls: vec![] });
    }

    #[test]
    fn outputs_compare_as_what_they_are() {
        let file = enricher(
            r#"
            settings = { input = [], output = ["t", "n"] }
            [[case]]
            name = "one"
            out = { t = "DE", n = 2 }
            [[case]]
            name = "none"
            "#,
        );
        let answer = [
            OutputColumn::Text(TextColumn { bytes: b"DEX".to_vec(), ends: vec![2, 3], nulls: vec![] }),
            OutputColumn::Number(vec![2.0, f64::NAN]),
        ];
        assert_eq!(file.cases[0].compare(&file.settings, &answer, 0), [""; 0]);
        assert_eq!(file.cases[1].compare(&file.settings, &answer, 1), ["t: expected no value, got \"X\""]);
        assert_eq!(
            file.cases[0].compare(&file.settings, &answer, 1),
            ["t: expected \"DE\", got \"X\"", "n: expected 2.0, got no value"]
        );
    }

    #[test]
    fn a_verdict_is_compared_within_its_tolerance() {
        let case: DetectorCase = toml::from_str(
            "name = 'x'\nvalues = [1, nan, 3]\nanomalous = true\nexpected = 1.0\nlower = 0.5\ntolerance = 0.1",
        )
        .unwrap();
        assert_eq!(case.points(), Ok(vec![(0, 1.0), (120_000, 3.0)]));
        let mut verdict = Verdict { expected: 1.05, lower: 0.5, upper: 9.0, score: 0.0, anomalous: true };
        assert_eq!(case.compare(Some(&verdict)), [""; 0]);
        (verdict.lower, verdict.anomalous) = (0.7, false);
        assert_eq!(
            case.compare(Some(&verdict)),
            ["anomalous: expected true, got false", "lower: expected 0.5, got 0.7"]
        );
        assert_eq!(case.compare(None), ["expected a verdict, got none"]);
    }
}
