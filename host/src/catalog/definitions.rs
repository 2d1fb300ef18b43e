//! Compiled definitions: what everyone downstream of the catalog reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::arith::Arith;
use crate::engine::extension::Detector;
use crate::engine::plan::{Fingerprint, Plan};
use crate::time::Millis;

pub struct Definitions {
    /// Digest of the file and of every plugin and granted file, hexadecimal.
    pub digest: String,
    /// The file.
    pub text: Arc<str>,
    pub plan: Arc<Plan>,
    /// In the order of the file. A metric's index here is its identity in `Composite`.
    pub metrics: Vec<MetricDefinition>,
    /// In the order of the file; `DimensionId` of the plan is the index here.
    pub dimensions: Vec<DimensionDefinition>,
    /// Names of metrics.
    pub headline: Vec<String>,
    pub rules: Vec<AnomalyRule>,
    /// Who is told of anomalies, in the order of the file.
    pub notify: Vec<Notify>,
    pub plugin_uses: Vec<PluginUse>,
}

impl Definitions {
    /// Lineages of the metrics that are marked to be filled backwards where they are new; of a funnel both.
    pub fn backfilled(&self) -> BTreeSet<Fingerprint> {
        self.metrics.iter().filter(|metric| metric.backfill).flat_map(|metric| self.lineages_of(metric)).collect()
    }

    /// Of everything that an aggregate is kept in.
    pub fn lineages_of(&self, metric: &MetricDefinition) -> Vec<Fingerprint> {
        let MetricKind::Aggregate { plan_metric, .. } = metric.kind else { return Vec::new() };
        let later = match metric.shape {
            ValueShape::Funnel { later, .. } => Some(later),
            _ => None,
        };
        let kept = std::iter::once(plan_metric).chain(later);
        kept.filter_map(|at| self.plan.metrics.get(at)).map(|metric| metric.lineage).collect()
    }
}

/// A plugin that the definitions use, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginUse {
    /// `enrich.device`, `anomalies.active_users`, …
    pub table: String,
    pub plugin: String,
    /// As its `LoadedEnricher` or `LoadedDetector` says.
    pub digest: String,
}

#[derive(Clone, Debug)]
pub struct MetricDefinition {
    pub name: String,
    pub title: String,
    /// The expression as typed.
    pub expression: String,
    pub unit: Option<String>,
    pub better: Option<Better>,
    /// Where it is new it is counted backwards from the log too. Never of a composite: its parts say it.
    pub backfill: bool,
    pub kind: MetricKind,
    /// Names of the dimensions it can be asked by, in order.
    pub dimensions: Vec<String>,
    /// Contains an estimate (`uniq`, `quantile`), or is one with many values (`top`, `funnel`).
    pub estimate: bool,
    /// No data counts as 0: all its aggregates are `count`, `sum` or `uniq`.
    pub zero_fill: bool,
    pub shape: ValueShape,
}

/// What a point's value is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ValueShape {
    #[default]
    Number,
    /// `[["value",count],…]`, at most `n`.
    Top { n: u32 },
    /// `[n1,n2,…]`, one for each step.
    Funnel {
        /// The conditions as typed.
        steps: Vec<String>,
        span_ms: Millis,
        /// The plan's metric that keeps the steps from the second on, by minute alone.
        later: usize,
    },
}

impl ValueShape {
    pub fn is_list(&self) -> bool {
        *self != Self::Number
    }
}

#[derive(Clone, Debug)]
pub enum MetricKind {
    Aggregate {
        /// Index into the plan's metrics.
        plan_metric: usize,
        window_ms: Millis,
        per_ms: Option<Millis>,
        /// From the metric's slots to its value. A mean is its sum divided by its count: null without events.
        finish: Arith<usize>,
    },
    /// Combines metrics by their index in `Definitions::metrics`; those come before it in dependency order, not in the list.
    Composite { combine: Arith<usize> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Up,
    Down,
}

#[derive(Clone, Debug)]
pub struct DimensionDefinition {
    pub name: String,
    /// The dotted path as typed, or the name itself.
    pub field: String,
    pub limit: Option<u32>,
}

#[derive(Clone)]
pub struct AnomalyRule {
    /// Key of its table.
    pub name: String,
    /// Index into `Definitions::metrics`.
    pub metric: usize,
    /// Judged series: by these dimensions; empty: the total.
    pub by: Vec<String>,
    pub kind: RuleKind,
}

#[derive(Clone)]
pub enum RuleKind {
    /// Beyond `threshold` sample standard deviations of the closed points of the `baseline_ms` before.
    Zscore {
        threshold: f64,
        baseline_ms: Millis,
    },
    Threshold {
        above: Option<f64>,
        below: Option<f64>,
    },
    /// No event for `for_ms`, in a series that had some in the `baseline_ms` before.
    Absent {
        for_ms: Millis,
        baseline_ms: Millis,
    },
    Plugin {
        plugin: String,
        detector: Arc<dyn Detector>,
    },
}

impl RuleKind {
    /// As answers show it.
    pub fn label(&self) -> &str {
        match self {
            Self::Zscore { .. } => "zscore",
            Self::Threshold { .. } => "threshold",
            Self::Absent { .. } => "absent",
            Self::Plugin { plugin, .. } => plugin,
        }
    }

    /// It judges by where there was an event, not by values.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// How much of a series before a point it takes to judge the point.
    pub fn lookback_ms(&self) -> Millis {
        match self {
            Self::Zscore { baseline_ms, .. } => *baseline_ms,
            Self::Threshold { .. } => 0,
            Self::Absent { for_ms, baseline_ms } => for_ms + baseline_ms,
            Self::Plugin { detector, .. } => detector.lookback_ms(),
        }
    }
}

/// Somebody who is told of anomalies.
#[derive(Clone, PartialEq, Eq)]
pub struct Notify {
    /// Key of its table.
    pub name: String,
    pub kind: TargetKind,
    /// http or https. May hold a secret: never to be shown whole.
    pub url: url::Url,
    /// Indexes into `Definitions::metrics`; `None`: all that are judged.
    pub when: Option<Vec<usize>>,
    /// Only what lasts so long.
    pub for_ms: Millis,
    /// What still lasts is told again after this time. An Alertmanager sees to that itself.
    pub repeat_ms: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    Webhook,
    Alertmanager,
    Slack,
}

impl TargetKind {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Alertmanager => "alertmanager",
            Self::Slack => "slack",
        }
    }
}

impl Notify {
    /// Whether it is told of anomalies of this metric.
    pub fn wants(&self, metric: usize) -> bool {
        self.when.as_ref().is_none_or(|when| when.contains(&metric))
    }

    /// The address without what may be secret in it.
    pub fn server(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// What an applied reload changed, by metric name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: Vec<String>,
}

/// The last attempt to apply definitions.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Applied {
        at: Millis,
        #[serde(flatten)]
        difference: Difference,
    },
    Rejected {
        at: Millis,
        diagnostics: Vec<super::diagnostic::Diagnostic>,
    },
}

/// A metric's fingerprint and those before it, newest first, with the time each was followed by the next.
pub type Lineage = Vec<(Fingerprint, Option<Millis>)>;

/// Definitions in force, and how they came to be.
#[derive(Clone)]
pub struct Active {
    pub revision: u64,
    pub applied_at: Millis,
    pub definitions: Arc<Definitions>,
    pub last: Arc<Outcome>,
    /// For each of the plan's metrics: its fingerprint first, then those of its predecessors (same lineage), newest first,
    /// with the time each was followed by the next.
    pub lineages: Arc<Vec<Lineage>>,
}
