//! What a reload changed, metric by metric.

use super::definitions::{AnomalyRule, Definitions, Difference, MetricDefinition, MetricKind, RuleKind};

/// Changed: the same name, and anything about it differs, its parts and anomaly rules included.
pub fn difference(old: &Definitions, new: &Definitions) -> Difference {
    let before = |name: &str| old.metrics.iter().position(|metric| metric.name == name);
    let mut same: Vec<bool> = (0..new.metrics.len())
        .map(|id| before(&new.metrics[id].name).is_some_and(|before| describe(old, before) == describe(new, id)))
        .collect();
    // A change goes on to what is made of the metric, and to what is made of that.
    while let Some(id) =
        (0..same.len()).find(|id| same[*id] && parts(&new.metrics[*id]).iter().any(|part| !same[*part]))
    {
        same[id] = false;
    }
    let mut difference = Difference::default();
    for (metric, same) in new.metrics.iter().zip(same) {
        let list = match before(&metric.name) {
            None => &mut difference.added,
            Some(_) if same => &mut difference.unchanged,
            Some(_) => &mut difference.changed,
        };
        list.push(metric.name.clone());
    }
    let kept = |name: &str| new.metrics.iter().any(|metric| metric.name == name);
    let removed = old.metrics.iter().filter(|metric| !kept(&metric.name));
    difference.removed = removed.map(|metric| metric.name.clone()).collect();
    difference
}

fn parts(metric: &MetricDefinition) -> Vec<usize> {
    let mut parts = Vec::new();
    if let MetricKind::Composite { combine } = &metric.kind {
        combine.leaves(&mut |part| parts.push(*part));
    }
    parts
}

/// Everything that is said about a metric, independent of where in the file it stands.
fn describe(definitions: &Definitions, id: usize) -> String {
    let metric = &definitions.metrics[id];
    let kind = match &metric.kind {
        MetricKind::Aggregate { plan_metric, window_ms, per_ms, .. } => {
            let planned = &definitions.plan.metrics[*plan_metric];
            format!("{} {window_ms} {per_ms:?} {}", planned.fingerprint, planned.limit)
        }
        // The expression says the rest.
        MetricKind::Composite { .. } => "composite".to_owned(),
    };
    let MetricDefinition { title, expression, unit, better, backfill, dimensions, .. } = metric;
    let declared: Vec<_> = definitions.dimensions.iter().filter(|d| dimensions.contains(&d.name)).collect();
    let rules: Vec<_> = definitions
        .rules
        .iter()
        .filter(|rule| rule.metric == id)
        .map(|rule| describe_rule(definitions, rule))
        .collect();
    format!("{title:?} {expression:?} {unit:?} {better:?} {backfill} {kind} {dimensions:?} {declared:?} {rules:?}")
}

fn describe_rule(definitions: &Definitions, rule: &AnomalyRule) -> String {
    let kind = match &rule.kind {
        RuleKind::Zscore { threshold, baseline_ms } => format!("zscore {threshold} {baseline_ms}"),
        RuleKind::Threshold { above, below } => format!("threshold {above:?} {below:?}"),
        RuleKind::Absent { for_ms, baseline_ms } => format!("absent {for_ms} {baseline_ms}"),
        RuleKind::Plugin { plugin, .. } => {
            let key = format!("anomalies.{}", rule.name);
            let found = definitions.plugin_uses.iter().find(|used| used.table == key);
            format!("{plugin} {:?}", found.map(|used| &used.digest))
        }
    };
    format!("{} {:?} {kind}", rule.name, rule.by)
}
