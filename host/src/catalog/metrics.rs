//! Metrics from their expressions: what each computes, and what those made of others inherit. Knows no plan.

use super::diagnostic::{Problems, one_of};
use super::expression::{self, Expression, Fields, Scope};
use super::literal::Literal;
use super::spec::{DIMENSIONS_PER_METRIC_MAX, MetricSpec, Spec};
use std::collections::HashMap;

/// Metrics that one value may be computed from: `b = "a + a"`, `c = "b + b"` and so on grow fast.
pub const METRIC_READS_MAX: usize = 1_000;

/// A metric whose expression is read.
pub struct Shape {
    pub expression: Expression,
    /// Indexes of the dimensions it can be asked by.
    pub dimensions: Vec<usize>,
    pub estimate: bool,
    pub zero_fill: bool,
    /// Metrics that are read for one value, each as often as it is named.
    reads: usize,
}

impl Shape {
    pub fn is_composite(&self) -> bool {
        !self.expression.parts.is_empty()
    }
}

/// One for each metric of the file; `None` for those with an error, and those made of them.
pub fn shapes(
    text: &str,
    spec: &Spec,
    aliases: &HashMap<String, Vec<String>>,
    fields: &mut Fields,
    problems: &mut Problems,
) -> Vec<Option<Shape>> {
    let mut expressions: Vec<Option<Expression>> = Vec::new();
    for metric in &spec.metrics {
        let key = spec.event.key.as_ref().map(|path| path.0.as_slice());
        let mut scope = Scope { metrics: &spec.metric_ids, aliases, fields, key };
        expressions.push(metric.expression.as_ref().and_then(|at| {
            let literal = Literal::new(text, &at.span, &at.value);
            expression::read(&literal, &mut scope, problems)
        }));
    }
    refuse_circles(spec, &mut expressions, problems);
    let mut linker = Linker { spec, expressions, shapes: spec.metrics.iter().map(|_| None).collect() };
    for id in 0..spec.metrics.len() {
        linker.link(id, problems);
    }
    linker.shapes
}

/// A card shows a number.
pub fn check_headline(spec: &Spec, shapes: &[Option<Shape>], problems: &mut Problems) {
    for at in spec.headline.iter().flatten() {
        if shapes[at.value].as_ref().is_some_and(|shape| shape.expression.is_list()) {
            let name = &spec.metrics[at.value].name.value;
            problems
                .add(&at.span, format!("`{name}` is a list and no number"))
                .expected("metrics whose value is a number")
                .help("the page shows it as a chart of its own");
        }
    }
}

/// Takes metrics that are made of themselves out, after having said so.
fn refuse_circles(spec: &Spec, expressions: &mut [Option<Expression>], problems: &mut Problems) {
    // 0: not seen, 1: on the way, 2: done.
    let mut state = vec![0u8; expressions.len()];
    for start in 0..expressions.len() {
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((id, next)) = way.pop() {
            state[id] = state[id].max(1);
            let part = expressions[id].as_ref().and_then(|expression| expression.parts.get(next));
            let Some((part, span)) = part else {
                state[id] = 2;
                continue;
            };
            way.push((id, next + 1));
            match state[*part] {
                0 => way.push((*part, 0)),
                1 => {
                    let from = way.iter().position(|(on_way, _)| on_way == part).unwrap_or(0);
                    let circle = way[from..].iter().map(|(id, _)| *id).chain([*part]);
                    let names: Vec<_> = circle.map(|id| format!("`{}`", spec.metrics[id].name.value)).collect();
                    let message = if names.len() == 2 {
                        "a metric made of itself".to_owned()
                    } else {
                        format!("metrics made of each other: {}", names.join(" → "))
                    };
                    problems.add(span, message).expected("metrics that are not made of this one");
                    expressions[id] = None;
                    state[id] = 2;
                    way.pop();
                }
                _ => {}
            }
        }
    }
}

struct Linker<'a> {
    spec: &'a Spec,
    expressions: Vec<Option<Expression>>,
    shapes: Vec<Option<Shape>>,
}

impl Linker<'_> {
    /// Its parts first. Depth is bounded by the number of metrics; there are no circles any more.
    fn link(&mut self, id: usize, problems: &mut Problems) {
        let mut open = vec![id];
        while let Some(id) = open.last().copied() {
            let Some(expression) = &self.expressions[id] else {
                open.pop();
                continue;
            };
            let waiting: Vec<_> = expression
                .parts
                .iter()
                .map(|(part, _)| *part)
                .filter(|part| self.expressions[*part].is_some())
                .collect();
            if !waiting.is_empty() {
                open.extend(waiting);
                continue;
            }
            open.pop();
            if let Some(expression) = self.expressions[id].take() {
                let metric = &self.spec.metrics[id];
                self.shapes[id] = if expression.parts.is_empty() {
                    self.aggregate(metric, expression, problems)
                } else {
                    self.composite(metric, expression, problems)
                };
            }
        }
    }

    fn aggregate(&self, metric: &MetricSpec, expression: Expression, problems: &mut Problems) -> Option<Shape> {
        let own = metric.by.as_ref().map(|by| by.iter().map(|at| at.value).collect());
        let dimensions: Vec<usize> = own.unwrap_or_else(|| metric.default_by.clone());
        if dimensions.len() > DIMENSIONS_PER_METRIC_MAX {
            problems
                .add(&metric.name.span, format!("`{}` has {} dimensions", metric.name.value, dimensions.len()))
                .expected(format!("at most {DIMENSIONS_PER_METRIC_MAX}"))
                .help("choose with `by`, here or in `[defaults]`");
            return None;
        }
        if let (true, Some((_, span))) = (expression.is_list(), metric.of_its_own.iter().find(|(key, _)| *key == "per"))
        {
            problems.add(span, "a list is no rate").expected("no `per` beside `top` or `funnel`");
        }
        let mut estimate = false;
        expression.value.leaves(&mut |leaf| {
            estimate |= matches!(leaf, expression::Leaf::Slot(slot) if slot.kind().is_sketch());
        });
        let zero_fill = !expression.null_without_data;
        Some(Shape { expression, dimensions, estimate, zero_fill, reads: 1 })
    }

    fn composite(&self, metric: &MetricSpec, expression: Expression, problems: &mut Problems) -> Option<Shape> {
        for (key, span) in &metric.of_its_own {
            problems
                .add(span, format!("a metric made of metrics has no `{key}`"))
                .expected("`value`, `by`, `unit`, `title`, `better`")
                .help("its parts keep their own");
        }
        for (part, span) in &expression.parts {
            if self.shapes[*part].as_ref().is_some_and(|part| part.expression.is_list()) {
                let name = &self.spec.metrics[*part].name.value;
                problems
                    .add(span, format!("`{name}` is a list and no number"))
                    .expected("metrics whose value is a number")
                    .help("the values of `top` and `funnel` are lists; they cannot be computed with");
            }
        }
        let parts: Option<Vec<&Shape>> = expression.parts.iter().map(|(part, _)| self.shapes[*part].as_ref()).collect();
        let parts = parts?;
        let reads = parts.iter().fold(0usize, |reads, part| reads.saturating_add(part.reads));
        if reads > METRIC_READS_MAX {
            problems
                .add(
                    &metric.name.span,
                    format!("`{}` is made of {reads} metrics, those of its parts counted", metric.name.value),
                )
                .expected("at most 1,000");
            return None;
        }
        let shared: Vec<usize> = parts[0]
            .dimensions
            .iter()
            .copied()
            .filter(|id| parts.iter().all(|part| part.dimensions.contains(id)))
            .collect();
        let names = |ids: &[usize]| one_of(ids.iter().map(|id| self.spec.dimensions[*id].name.as_str()));
        let dimensions = match &metric.by {
            None => shared,
            Some(by) => {
                for at in by.iter().filter(|at| !shared.contains(&at.value)) {
                    let name = &self.spec.dimensions[at.value].name;
                    problems
                        .add(&at.span, format!("not all parts of `{}` have the dimension `{name}`", metric.name.value))
                        .expected(names(&shared));
                }
                by.iter().map(|at| at.value).collect()
            }
        };
        let (estimate, zero_fill) = (parts.iter().any(|part| part.estimate), parts.iter().all(|part| part.zero_fill));
        Some(Shape { expression, dimensions, estimate, zero_fill, reads })
    }
}
