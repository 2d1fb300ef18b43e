//! A question bound to the definitions in force: which states to read, and how they become values.
//!
//! A composite metric is taken apart into the aggregates it is made of (its leaves); each keeps its own window, `where` and
//! `per`, is read for the asked series, and the leaves' values are combined last. Does not know where states come from.

use std::collections::HashMap;

use crate::catalog::definitions::{Active, Definitions, MetricDefinition, MetricKind, ValueShape};
use crate::engine::arith::Arith;
use crate::engine::plan::{Fingerprint, Metric, Slot, StateKind};
use crate::time::Millis;
use crate::web::{ApiError, suggestion};

/// What is asked, without a time range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    pub metric: String,
    pub by: Vec<String>,
    /// Dimension → values; one of each must hold.
    pub filters: Vec<(String, Vec<String>)>,
}

/// Equal bounds give equal answers over equal states.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Names of the labels, in the order asked for.
    pub by: Vec<String>,
    pub leaves: Vec<Leaf>,
    /// From the leaves' values to the metric's.
    pub combine: Arith<usize>,
    /// An unclosed point can only grow: `count`, `sum`, `uniq` not combined with other metrics.
    pub grows: bool,
}

impl Bound {
    /// So much later events still change a point.
    pub fn lookahead_ms(&self) -> Millis {
        self.leaves.iter().map(Leaf::lookahead_ms).max().unwrap_or(0)
    }
}

/// An aggregate to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Its own and its predecessors'.
    pub fingerprints: Vec<Fingerprint>,
    /// Lineages of all that its values are made from, where it was to be filled backwards.
    pub backfilled: Vec<Fingerprint>,
    pub kinds: Vec<StateKind>,
    pub margins: bool,
    pub dimensions: usize,
    pub by: Vec<usize>,
    pub filters: Vec<(usize, Vec<String>)>,
    pub window_ms: Millis,
    pub per_ms: Option<Millis>,
    pub finish: Arith<usize>,
    /// A closed step without events has a value.
    pub zero_fill: bool,
    /// For each slot how its state becomes a number or a list.
    pub reads: Vec<SlotRead>,
    /// The later steps, where the aggregate is a funnel.
    pub funnel: Option<Funnel>,
}

/// How a slot's state is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlotRead {
    /// It is a number, or a count of distinct values.
    Number,
    Quantile(f64),
    Top(u32),
    Funnel,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Funnel {
    /// Of the later steps: their own and their predecessors'.
    pub later: Vec<Fingerprint>,
    pub span_ms: Millis,
    /// The first one included.
    pub steps: usize,
}

impl Leaf {
    /// Its values are lists, and no numbers.
    pub fn is_list(&self) -> bool {
        self.reads.iter().any(|read| matches!(read, SlotRead::Top(_) | SlotRead::Funnel))
    }

    /// So much later events still change a window's value.
    pub fn lookahead_ms(&self) -> Millis {
        self.funnel.as_ref().map_or(0, |funnel| funnel.span_ms)
    }

    /// Of everything that its values are made from.
    pub fn all_fingerprints(&self) -> Vec<Fingerprint> {
        let later = self.funnel.iter().flat_map(|funnel| &funnel.later);
        self.fingerprints.iter().chain(later).copied().collect()
    }

    /// The value of a window without events.
    pub fn empty_value(&self) -> Option<f64> {
        self.finish.evaluate(&mut |&slot| match self.kinds[slot] {
            StateKind::Count | StateKind::Sum | StateKind::Uniq => Some(0.0),
            _ => None,
        })
    }
}

/// The metric of this name, or an answer that says which was probably meant.
pub fn find_metric<'a>(definitions: &'a Definitions, name: &str) -> Result<(usize, &'a MetricDefinition), ApiError> {
    let found = definitions.metrics.iter().enumerate().find(|(_, metric)| metric.name == name);
    found.ok_or_else(|| {
        let names = definitions.metrics.iter().map(|metric| metric.name.as_str());
        let help = match suggestion(name, names) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => "GET /v1/metrics lists the metrics.".to_owned(),
        };
        ApiError::new(axum::http::StatusCode::NOT_FOUND, "unknown_metric", format!("there is no metric `{name}`"), help)
    })
}

pub fn bind(active: &Active, subject: &Subject) -> Result<Bound, ApiError> {
    let definitions = &active.definitions;
    let (index, metric) = find_metric(definitions, &subject.metric)?;
    let filtered = subject.filters.iter().map(|(name, _)| name);
    for name in subject.by.iter().chain(filtered) {
        check_dimension(definitions, metric, name)?;
    }
    let mut by: Vec<String> = Vec::with_capacity(subject.by.len());
    for name in &subject.by {
        if !by.contains(name) {
            by.push(name.clone());
        }
    }
    let mut binder = Binder { active, by: &by, filters: &subject.filters, leaves: Vec::new(), numbers: HashMap::new() };
    let combine = binder.value_of(index).ok_or_else(|| ApiError::internal("the definitions do not hang together"))?;
    let leaves = binder.leaves;
    let grows = metric.zero_fill && matches!(metric.kind, MetricKind::Aggregate { .. });
    Ok(Bound { by, leaves, combine, grows })
}

fn check_dimension(definitions: &Definitions, metric: &MetricDefinition, name: &str) -> Result<(), ApiError> {
    if metric.dimensions.iter().any(|known| known == name) {
        return Ok(());
    }
    let kept = match metric.dimensions.join("`, `") {
        kept if kept.is_empty() => format!("`{}` has no dimensions.", metric.name),
        kept => format!("`{}` has the dimensions `{kept}`.", metric.name),
    };
    if definitions.dimensions.iter().any(|dimension| dimension.name == name) {
        let message = format!("metric `{}` is not kept by dimension `{name}`", metric.name);
        return Err(ApiError::bad_request("unknown_dimension", message, kept));
    }
    let known = metric.dimensions.iter().chain(definitions.dimensions.iter().map(|dimension| &dimension.name));
    let help = match suggestion(name, known.map(String::as_str)) {
        Some(near) => format!("Did you mean `{near}`? {kept}"),
        None => kept,
    };
    Err(ApiError::bad_request("unknown_dimension", format!("there is no dimension `{name}`"), help))
}

struct Binder<'a> {
    active: &'a Active,
    by: &'a [String],
    filters: &'a [(String, Vec<String>)],
    leaves: Vec<Leaf>,
    /// Metric → its leaf.
    numbers: HashMap<usize, usize>,
}

impl Binder<'_> {
    /// `None`: an index that leads nowhere, which the catalog does not make.
    fn value_of(&mut self, index: usize) -> Option<Arith<usize>> {
        match &self.active.definitions.metrics.get(index)?.kind {
            MetricKind::Composite { combine } => self.substitute(combine),
            MetricKind::Aggregate { .. } => {
                if let Some(number) = self.numbers.get(&index) {
                    return Some(Arith::Leaf(*number));
                }
                let leaf = self.leaf(index)?;
                self.leaves.push(leaf);
                self.numbers.insert(index, self.leaves.len() - 1);
                Some(Arith::Leaf(self.leaves.len() - 1))
            }
        }
    }

    fn substitute(&mut self, value: &Arith<usize>) -> Option<Arith<usize>> {
        Some(match value {
            Arith::Leaf(metric) => self.value_of(*metric)?,
            Arith::Literal(number) => Arith::Literal(*number),
            Arith::Negate(inner) => Arith::Negate(Box::new(self.substitute(inner)?)),
            Arith::Binary(operator, left, right) => {
                let (left, right) = (self.substitute(left)?, self.substitute(right)?);
                Arith::Binary(*operator, Box::new(left), Box::new(right))
            }
        })
    }

    fn leaf(&self, index: usize) -> Option<Leaf> {
        let metric = &self.active.definitions.metrics[index];
        let MetricKind::Aggregate { plan_metric, window_ms, per_ms, ref finish } = metric.kind else { return None };
        let plan_metric_of = self.active.definitions.plan.metrics.get(plan_metric)?;
        let lineage = self.active.lineages.get(plan_metric)?;
        let place = |name: &String| metric.dimensions.iter().position(|known| known == name);
        let filters = self.filters.iter().map(|(name, values)| Some((place(name)?, values.clone())));
        Some(Leaf {
            fingerprints: lineage.iter().map(|(fingerprint, _)| *fingerprint).collect(),
            backfilled: match metric.backfill {
                true => self.active.definitions.lineages_of(metric),
                false => Vec::new(),
            },
            kinds: plan_metric_of.slots.iter().map(|slot| slot.kind()).collect(),
            margins: plan_metric_of.keeps_margins(),
            dimensions: metric.dimensions.len(),
            by: self.by.iter().map(place).collect::<Option<_>>()?,
            filters: filters.collect::<Option<_>>()?,
            window_ms,
            per_ms,
            finish: finish.clone(),
            zero_fill: metric.zero_fill,
            reads: slot_reads(plan_metric_of),
            funnel: self.funnel(metric)?,
        })
    }

    /// `None`: an index that leads nowhere.
    fn funnel(&self, metric: &MetricDefinition) -> Option<Option<Funnel>> {
        let ValueShape::Funnel { steps, span_ms, later } = &metric.shape else { return Some(None) };
        let later = self.active.lineages.get(*later)?.iter().map(|(fingerprint, _)| *fingerprint).collect();
        Some(Some(Funnel { later, span_ms: *span_ms, steps: steps.len() }))
    }
}

pub fn slot_reads(metric: &Metric) -> Vec<SlotRead> {
    let read = |slot: &Slot| match slot {
        Slot::Quantile { q, .. } => SlotRead::Quantile(*q),
        Slot::Top { n, .. } => SlotRead::Top(*n),
        Slot::FunnelFirst { .. } | Slot::FunnelLater { .. } => SlotRead::Funnel,
        _ => SlotRead::Number,
    };
    metric.slots.iter().map(read).collect()
}
