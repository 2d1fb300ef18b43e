//! What a reload changed, metric by metric.

use super::definitions::{Definitions, Difference, MetricKind, RuleKind};

/// Changed: the same name, and anything about it differs, its anomaly rules included.
pub fn difference(old: &Definitions, new: &Definitions) -> Difference {
    let mut difference = Difference::default();
    for (id, metric) in new.metrics.iter().enumerate() {
        let before = old.metrics.iter().position(|candidate| candidate.name == metric.name);
        let list = match before {
            None => &mut difference.added,
            Some(before) if describe(old, before) == describe(new, id) => &mut difference.unchanged,
            Some(_) => &mut difference.changed,
        };
        list.push(metric.name.clone());
    }
    let kept = |name: &str| new.metrics.iter().any(|metric| metric.name == name);
    difference.removed =
        old.metrics.iter().filter(|metric| !kept(&metric.name)).map(|metric| metric.name.clone()).collect();
    difference
}

/// Everything that is said about a metric, independent of where in the file it stands.
fn describe(definitions: &Definitions, id: usize) -> String {
    let metric = &definitions.metrics[id];
    let kind = match &metric.kind {
        MetricKind::Aggregate { plan_metric, window_ms, per_ms, finish } => {
            let planned = &definitions.plan.metrics[*plan_metric];
            format!("{} {window_ms} {per_ms:?} {finish:?} {}", planned.fingerprint, planned.limit)
        }
        MetricKind::Composite { combine } => {
            let mut parts = Vec::new();
            combine.leaves(&mut |part| parts.push(definitions.metrics[*part].name.as_str()));
            format!("{:?} {parts:?}", shape(combine))
        }
    };
    let dimensions: Vec<_> = definitions.dimensions.iter().filter(|d| metric.dimensions.contains(&d.name)).collect();
    let rules = definitions.rules.iter().filter(|rule| rule.metric == id).map(|rule| {
        let kind = match &rule.kind {
            RuleKind::Zscore { threshold, baseline_ms } => format!("zscore {threshold} {baseline_ms}"),
            RuleKind::Threshold { above, below } => format!("threshold {above:?} {below:?}"),
            // Equal requests over unchanged files give the same instance.
            RuleKind::Plugin { plugin, detector } => format!("{plugin} {:p}", std::sync::Arc::as_ptr(detector)),
        };
        format!("{} {:?} {kind}", rule.name, rule.by)
    });
    let rules: Vec<_> = rules.collect();
    let super::definitions::MetricDefinition { title, expression, unit, better, .. } = metric;
    format!("{title:?} {expression:?} {unit:?} {better:?} {kind} {:?} {dimensions:?} {rules:?}", metric.dimensions)
}

/// The arithmetic without its leaves.
fn shape(combine: &crate::engine::arith::Arith<usize>) -> String {
    use crate::engine::arith::Arith;
    match combine {
        Arith::Leaf(_) => "_".to_owned(),
        Arith::Literal(value) => format!("{value:?}"),
        Arith::Negate(inner) => format!("(- {})", shape(inner)),
        Arith::Binary(operator, left, right) => format!("({operator:?} {} {})", shape(left), shape(right)),
    }
}
