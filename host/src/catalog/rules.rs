//! Anomaly rules: `[anomalies]` checked against the metrics they judge, detectors loaded.

use std::collections::{HashMap, HashSet};

use super::definitions::{AnomalyRule, RuleKind};
use super::diagnostic::{Problems, Span};
use super::enrichment::{check_plugin, plugin_problem};
use super::file::{AnomalyTable, File};
use super::metrics::Shape;
use super::read::{At, Entry, Given, check_name, period_text};
use super::spec::{Spec, bounded, by, find_metric, named};
use crate::engine::extension::{Fault, Plugins};
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Millis};

const BUILT_IN: [&str; 3] = ["zscore", "threshold", "absent"];
const THRESHOLD_DEFAULT: f64 = 2.0;
pub const RULES_MAX: usize = 1_000;

/// A rule and the digest of its plugin.
pub struct Loaded {
    pub rule: AnomalyRule,
    pub digest: Option<String>,
}

pub fn load(
    file: &File,
    spec: &Spec,
    shapes: &[Option<Shape>],
    plugins: &dyn Plugins,
    problems: &mut Problems,
) -> Vec<Loaded> {
    let entries = named(&file.anomalies);
    if let Some(entry) = entries.get(RULES_MAX) {
        problems
            .add(&entry.name.span, format!("{} anomaly rules", entries.len()))
            .expected(format!("at most {RULES_MAX}"));
    }
    entries.iter().take(RULES_MAX).filter_map(|entry| rule(entry, spec, shapes, plugins, problems)).collect()
}

fn rule(
    entry: &Entry<AnomalyTable>,
    spec: &Spec,
    shapes: &[Option<Shape>],
    plugins: &dyn Plugins,
    problems: &mut Problems,
) -> Option<Loaded> {
    let name = &entry.name;
    let table = &entry.value.get()?.value;
    check_name("an anomaly rule", name, problems);
    let metric = match &table.metric {
        Given::Value(metric, _) => find_metric(metric, &spec.metric_ids, problems),
        Given::Broken => None,
        Given::Absent => find_metric_of_rule(name, spec, problems),
    };
    if let Some(id) = metric
        && shapes[id].as_ref().is_some_and(|shape| shape.expression.is_list())
    {
        let span = table.metric.get().map_or(&name.span, |at| &at.span);
        problems
            .add(span, format!("`{}` is a list and no number", spec.metrics[id].name.value))
            .expected("a metric whose value is a number")
            .help("the values of `top` and `funnel` are lists; rules judge numbers");
        return None;
    }
    let by = judged_by(table, metric, spec, shapes, problems);
    let kind = kind(name, table, plugins, problems);
    if let (Some((RuleKind::Absent { for_ms, .. }, _)), Some(metric)) = (&kind, metric) {
        check_silence(table, *for_ms, &spec.metrics[metric].name.value, longest_window(metric, spec, shapes), problems);
    }
    let (kind, digest) = kind?;
    Some(Loaded { rule: AnomalyRule { name: name.value.clone(), metric: metric?, by: by?, kind }, digest })
}

/// A window holds the events of all its minutes: silence is not seen before it is empty.
fn check_silence(table: &AnomalyTable, for_ms: Millis, metric: &str, window_ms: Millis, problems: &mut Problems) {
    if let Some(at) = table.r#for.get().filter(|_| for_ms < window_ms) {
        let window = period_text(window_ms);
        problems
            .add(&at.span, format!("a point of `{metric}` looks back over {window}: it cannot show so short a silence"))
            .expected(format!("at least {window}"))
            .help("or a metric with a shorter window, as `count()`");
    }
}

/// A metric made of metrics looks back as far as the one of its parts that looks back furthest.
fn longest_window(metric: usize, spec: &Spec, shapes: &[Option<Shape>]) -> Millis {
    let (mut left, mut seen, mut longest) = (vec![metric], HashSet::new(), 0);
    while let Some(id) = left.pop() {
        match &shapes[id] {
            Some(shape) if shape.is_composite() => {
                left.extend(shape.expression.parts.iter().map(|part| part.0).filter(|id| seen.insert(*id)));
            }
            _ => longest = longest.max(spec.metrics[id].window_ms),
        }
    }
    longest
}

fn find_metric_of_rule(name: &At<String>, spec: &Spec, problems: &mut Problems) -> Option<usize> {
    let id = spec.metric_ids.get(&name.value).copied();
    if id.is_none() {
        let near = super::diagnostic::nearest(&name.value, spec.metric_ids.keys().map(String::as_str));
        problems
            .add(&name.span, format!("there is no metric `{}`", name.value))
            .expected("the name of a metric, or `metric = \"…\"` in the table")
            .suggest(&name.value, near);
    }
    id
}

fn judged_by(
    table: &AnomalyTable,
    metric: Option<usize>,
    spec: &Spec,
    shapes: &[Option<Shape>],
    problems: &mut Problems,
) -> Option<Vec<String>> {
    if table.by.is_absent() {
        return Some(Vec::new());
    }
    let ids: HashMap<_, _> = spec.dimensions.iter().enumerate().map(|(id, d)| (d.name.as_str(), id)).collect();
    let by = by(&table.by, &ids, problems)?;
    let metric = metric?;
    let shape = shapes[metric].as_ref()?;
    let name = |id: usize| spec.dimensions[id].name.as_str();
    for at in by.iter().filter(|at| !shape.dimensions.contains(&at.value)) {
        problems
            .add(
                &at.span,
                format!("the metric `{}` has no dimension `{}`", spec.metrics[metric].name.value, name(at.value)),
            )
            .expected(super::diagnostic::one_of(shape.dimensions.iter().map(|id| name(*id))));
    }
    Some(by.iter().map(|at| name(at.value).to_owned()).collect())
}

/// What the rule is, and the digest of its plugin if it is one.
fn kind(
    name: &At<String>,
    table: &AnomalyTable,
    plugins: &dyn Plugins,
    problems: &mut Problems,
) -> Option<(RuleKind, Option<String>)> {
    match (&table.rule, &table.plugin) {
        (Given::Broken, _) | (_, Given::Broken) => None,
        (Given::Value(..), Given::Value(_, key)) => {
            problems.add(key, "both a `rule` and a `plugin`").expected("one of the two");
            None
        }
        (Given::Absent, Given::Absent) => {
            problems
                .add(&name.span, format!("`anomalies.{}` has no rule", name.value))
                .expected("`rule = \"zscore\"`, `rule = \"threshold\"`, `rule = \"absent\"` or `plugin = \"…\"`");
            None
        }
        (Given::Value(rule, _), Given::Absent) => built_in(rule, table, problems).map(|kind| (kind, None)),
        (Given::Absent, Given::Value(plugin, _)) => detector(name, plugin, table, plugins, problems),
    }
}

fn refuse(rule: &str, keys: &[(&str, Option<Span>)], has: &str, problems: &mut Problems) {
    for (key, span) in keys {
        if let Some(span) = span {
            problems.add(span, format!("the rule `{rule}` has no `{key}`")).expected(has);
        }
    }
}

fn built_in(rule: &At<String>, table: &AnomalyTable, problems: &mut Problems) -> Option<RuleKind> {
    let config = ("config", table.config.key());
    let lasts = ("for", table.r#for.key());
    let zscore = [("threshold", table.threshold.key()), ("baseline", table.baseline.key())];
    let threshold = [("above", table.above.key()), ("below", table.below.key())];
    let keys = |keys: &[&[(&'static str, Option<Span>)]]| keys.concat();
    match rule.value.as_str() {
        "zscore" => {
            let others = keys(&[&threshold, &[lasts, config]]);
            refuse(&rule.value, &others, "one of `metric`, `by`, `threshold`, `baseline`", problems);
            let beyond = table.threshold.value_or(THRESHOLD_DEFAULT);
            if let (Some(at), false) = (table.threshold.get(), beyond > 0.0) {
                problems
                    .add(&at.span, "`threshold` is out of bounds")
                    .expected("a number of standard deviations above 0");
            }
            let baseline_ms = bounded("baseline", &table.baseline, (HOUR_MS, 7 * DAY_MS), DAY_MS, problems);
            Some(RuleKind::Zscore { threshold: beyond, baseline_ms })
        }
        "threshold" => {
            let others = keys(&[&zscore, &[lasts, config]]);
            refuse(&rule.value, &others, "one of `metric`, `by`, `above`, `below`", problems);
            let (above, below) = (table.above.value(), table.below.value());
            if table.above.is_absent() && table.below.is_absent() {
                problems.add(&rule.span, "a `threshold` without a bound").expected("`above = …`, `below = …` or both");
            }
            if let (Some(above), Some(below), Some(at)) = (above, below, table.below.get())
                && below > above
            {
                problems
                    .add(&at.span, "`below` is greater than `above`: every value would be an anomaly")
                    .expected(format!("at most {above}"));
            }
            Some(RuleKind::Threshold { above, below })
        }
        "absent" => {
            let others = keys(&[&zscore[..1], &threshold, &[config]]);
            refuse(&rule.value, &others, "one of `metric`, `by`, `for`, `baseline`", problems);
            if table.r#for.is_absent() {
                problems
                    .add(&rule.span, "`absent` without a time")
                    .expected("`for = \"5m\"`: so long without an event");
            }
            let for_ms = bounded("for", &table.r#for, (MINUTE_MS, DAY_MS), MINUTE_MS, problems);
            if let Some(at) = table.r#for.get().filter(|_| for_ms % MINUTE_MS != 0) {
                problems.add(&at.span, "silence is seen by the minute").expected("whole minutes from 1m to 24h");
            }
            let baseline_ms = bounded("baseline", &table.baseline, (HOUR_MS, 7 * DAY_MS), DAY_MS, problems);
            table.r#for.get().map(|_| RuleKind::Absent { for_ms, baseline_ms })
        }
        other => {
            problems
                .add(&rule.span, format!("there is no rule `{other}`"))
                .expected(super::diagnostic::one_of(BUILT_IN))
                .suggest(other, BUILT_IN);
            None
        }
    }
}

fn detector(
    name: &At<String>,
    plugin: &At<String>,
    table: &AnomalyTable,
    plugins: &dyn Plugins,
    problems: &mut Problems,
) -> Option<(RuleKind, Option<String>)> {
    let keys = [
        ("threshold", table.threshold.key()),
        ("baseline", table.baseline.key()),
        ("above", table.above.key()),
        ("below", table.below.key()),
        ("for", table.r#for.key()),
    ];
    for (key, span) in &keys {
        if let Some(span) = span {
            problems
                .add(span, format!("a rule of a plugin has no `{key}`"))
                .expected("one of `metric`, `by`, `config`")
                .help(format!("settings of the plugin go into `config = {{ {key} = … }}`"));
        }
    }
    if !check_plugin(&plugin.value, &plugin.span, problems) || matches!(table.config, Given::Broken) {
        return None;
    }
    let config = table.config.get().map_or("{}", |at| &at.value.0);
    match plugins.detector(&plugin.value, config) {
        Ok(loaded) => {
            let kind = RuleKind::Plugin { plugin: plugin.value.clone(), detector: loaded.detector };
            Some((kind, Some(loaded.digest)))
        }
        Err(error) => {
            let config = table.config.get().map(|at| &at.span);
            let span = match error.fault {
                Fault::Config => config.unwrap_or(&name.span),
                Fault::Plugin | Fault::Input | Fault::Output | Fault::Files => &plugin.span,
            };
            plugin_problem(span, error, problems);
            None
        }
    }
}
