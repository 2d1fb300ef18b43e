//! Valid definitions to the plan the engine runs and the definitions everyone else reads.

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::canonical::{Meaning, identity, predicate_fields, slot_fields};
use super::definitions::{
    Definitions, DimensionDefinition, MetricDefinition, MetricKind, Notify, PluginUse, ValueShape,
};
use super::enrichment::Enrich;
use super::expression::{Fields, Funnel, Leaf};
use super::metrics::Shape;
use super::rules;
use super::spec::{EventSpec, HEADLINE_DEFAULT, MetricSpec, SKETCH_COMBINATIONS_DEFAULT, Spec};
use crate::engine::arith::Arith;
use crate::engine::plan::{
    Dimension, DimensionId, Enrichment, EnrichmentOutput, EventPlan, FieldId, FilterId, Fingerprint, GroupId, Metric,
    Plan, Predicate, Slot,
};

/// All parts without an error; `shapes` has one for each metric.
pub struct Parts<'a> {
    pub text: &'a str,
    pub spec: Spec,
    pub shapes: Vec<Shape>,
    pub fields: Fields,
    pub enrichments: Vec<Enrich>,
    pub rules: Vec<rules::Loaded>,
    pub notify: Vec<Notify>,
}

pub fn compile(parts: Parts<'_>) -> Definitions {
    let Parts { text, spec, shapes, fields, enrichments, rules, notify } = parts;
    let mut compiler = Compiler { fields, filters: Vec::new(), groups: Vec::new(), metrics: Vec::new() };
    let event = compiler.event(&spec.event);
    let dimensions = compiler.dimensions(&spec);
    let metrics: Vec<_> = spec
        .metrics
        .iter()
        .zip(&shapes)
        .map(|(metric, shape)| compiler.metric(metric, shape, &spec, &dimensions, &enrichments))
        .collect();
    let plugin_uses = plugin_uses(&enrichments, &rules);
    let digest = digest(text, &plugin_uses);
    let planned = compiler.enrichments(enrichments);
    let Compiler { fields, filters, groups, metrics: plan_metrics } = compiler;
    let plan =
        Plan { event, fields: fields.list, enrichments: planned, filters, dimensions, groups, metrics: plan_metrics };
    Definitions {
        digest,
        text: text.into(),
        plan: Arc::new(plan),
        headline: headline(&spec, &shapes).into_iter().map(|id| spec.metrics[id].name.value.clone()).collect(),
        metrics,
        dimensions: spec
            .dimensions
            .iter()
            .map(|d| DimensionDefinition { name: d.name.clone(), field: d.path.to_string(), limit: d.limit })
            .collect(),
        rules: rules.into_iter().map(|loaded| loaded.rule).collect(),
        notify,
        plugin_uses,
    }
}

/// Reads, judges and enriches events as the definitions say, and counts nothing. All outputs are told, and what a client is known
/// by; a plugin that remembers what it was asked is left alone.
pub fn look(event: &EventSpec, fields: Fields, mut enrichments: Vec<Enrich>, condition: Option<Predicate>) -> Plan {
    let mut compiler = Compiler { fields, filters: Vec::new(), groups: Vec::new(), metrics: Vec::new() };
    let event = compiler.event(event);
    if let Some(condition) = &condition {
        compiler.use_filter(condition);
    }
    enrichments.retain(|enrich| enrich.loaded.memo.is_some());
    let outputs = enrichments.iter().flat_map(|enrich| enrich.output.iter().map(|path| path.0.clone()));
    for path in outputs.chain([vec!["ip".to_owned()], vec!["user_agent".to_owned()]]) {
        let field = compiler.fields.id(&path);
        compiler.fields.list[field].codes = true;
    }
    let enrichments = compiler.enrichments(enrichments);
    let filters = condition.into_iter().collect();
    let (dimensions, groups, metrics) = (Vec::new(), Vec::new(), Vec::new());
    Plan { event, fields: compiler.fields.list, enrichments, filters, dimensions, groups, metrics }
}

/// As said, or the first few that are numbers.
fn headline(spec: &Spec, shapes: &[Shape]) -> Vec<usize> {
    match &spec.headline {
        Some(said) => said.iter().map(|at| at.value).collect(),
        None => (0..shapes.len()).filter(|id| !shapes[*id].expression.is_list()).take(HEADLINE_DEFAULT).collect(),
    }
}

fn plugin_uses(enrichments: &[Enrich], rules: &[rules::Loaded]) -> Vec<PluginUse> {
    let enrichments = enrichments.iter().map(|enrich| PluginUse {
        table: format!("enrich.{}", enrich.name),
        plugin: enrich.plugin.clone(),
        digest: enrich.loaded.digest.clone(),
    });
    let rules = rules.iter().filter_map(|loaded| {
        let (table, plugin) = (format!("anomalies.{}", loaded.rule.name), loaded.rule.kind.label().to_owned());
        Some(PluginUse { table, plugin, digest: loaded.digest.clone()? })
    });
    enrichments.chain(rules).collect()
}

fn digest(text: &str, plugins: &[PluginUse]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for plugin in plugins {
        bytes.push(0);
        bytes.extend_from_slice(plugin.digest.as_bytes());
    }
    format!("{:032x}", xxh3_128(&bytes))
}

struct Compiler {
    fields: Fields,
    filters: Vec<Predicate>,
    groups: Vec<Vec<DimensionId>>,
    metrics: Vec<Metric>,
}

impl Compiler {
    fn event(&mut self, event: &EventSpec) -> EventPlan {
        let time = event.time.as_ref().map(|path| self.fields.id(&path.0));
        let key = event.key.as_ref().map(|path| self.fields.id(&path.0));
        let id = event.id.as_ref().map(|path| self.fields.id(&path.0));
        let require = event.require.iter().map(|path| self.fields.id(&path.0)).collect();
        if let Some(key) = key {
            self.fields.list[key].scalar = true;
        }
        if let Some(id) = id {
            self.fields.list[id].scalar = true;
            self.fields.list[id].hash = true;
        }
        let EventSpec { dedupe_ms, lateness_ms, ahead_ms, .. } = *event;
        EventPlan { time, key, id, require, dedupe_ms, lateness_ms, ahead_ms }
    }

    fn dimensions(&mut self, spec: &Spec) -> Vec<Dimension> {
        let mut list = Vec::new();
        for dimension in &spec.dimensions {
            let field = self.fields.id(&dimension.path.0);
            self.fields.list[field].codes = true;
            self.fields.list[field].scalar = true;
            list.push(Dimension { name: dimension.name.clone(), field, limit: dimension.limit });
        }
        list
    }

    fn metric(
        &mut self,
        metric: &MetricSpec,
        shape: &Shape,
        spec: &Spec,
        dimensions: &[Dimension],
        enrichments: &[Enrich],
    ) -> MetricDefinition {
        let mut value_shape = ValueShape::Number;
        let kind = if shape.is_composite() {
            // Slots cannot occur here: the expression reader refuses a mixture.
            let combine = map(&shape.expression.value, &mut |leaf| match leaf {
                Leaf::Metric(id) => *id,
                Leaf::Slot(_) => 0,
            });
            MetricKind::Composite { combine }
        } else {
            let (plan_metric, finish) = self.aggregate(metric, shape, dimensions, enrichments);
            if let Some(Slot::Top { n, .. }) =
                self.metrics[plan_metric].slots.first().filter(|_| shape.expression.is_list())
            {
                value_shape = ValueShape::Top { n: *n };
            }
            if let Some(funnel) = &shape.expression.funnel {
                let later = self.funnel(plan_metric, shape, funnel);
                let (steps, span_ms) = (funnel.texts.clone(), funnel.span_ms);
                value_shape = ValueShape::Funnel { steps, span_ms, later };
            }
            MetricKind::Aggregate { plan_metric, window_ms: metric.window_ms, per_ms: metric.per_ms, finish }
        };
        MetricDefinition {
            name: metric.name.value.clone(),
            title: metric.title.clone(),
            expression: metric.expression.as_ref().map_or_else(String::new, |at| at.value.clone()),
            unit: metric.unit.clone(),
            better: metric.better,
            backfill: metric.backfill,
            kind,
            dimensions: shape.dimensions.iter().map(|id| spec.dimensions[*id].name.clone()).collect(),
            estimate: shape.estimate,
            zero_fill: shape.zero_fill,
            shape: value_shape,
        }
    }

    fn aggregate(
        &mut self,
        metric: &MetricSpec,
        shape: &Shape,
        dimensions: &[Dimension],
        enrichments: &[Enrich],
    ) -> (usize, Arith<usize>) {
        let mut slots: Vec<Slot> = Vec::new();
        let finish = map(&shape.expression.value, &mut |leaf| match leaf {
            Leaf::Slot(slot) => place(&mut slots, slot.clone()),
            Leaf::Metric(_) => 0,
        });
        let funnel = shape.expression.funnel.as_ref();
        let filter = shape.expression.filter.as_ref();
        let by: Vec<_> = shape.dimensions.iter().map(|id| &dimensions[*id]).collect();
        let meaning =
            Meaning { name: &metric.name.value, slots: &slots, finish: &finish, filter, dimensions: &by, funnel };
        let (fingerprint, lineage) = identity(&meaning, &self.fields.list, enrichments);
        for slot in &slots {
            self.use_slot(slot);
        }
        // Of a funnel only the first steps are counted here.
        let first_step = funnel.and_then(|funnel| funnel.steps.first());
        let filter = match (filter, first_step) {
            (Some(filter), Some(step)) => Some(Predicate::And(vec![filter.clone(), step.clone()])),
            (filter, step) => filter.or(step).cloned(),
        };
        if let Some(filter) = &filter {
            self.use_filter(filter);
        }
        let default =
            if shape.estimate { metric.default_limit.min(SKETCH_COMBINATIONS_DEFAULT) } else { metric.default_limit };
        let filter: Option<FilterId> = filter.map(|filter| place(&mut self.filters, filter));
        let group: GroupId = place(&mut self.groups, shape.dimensions.clone());
        self.metrics.push(Metric {
            name: metric.name.value.clone(),
            fingerprint,
            lineage,
            filter,
            group,
            slots,
            limit: metric.limit.unwrap_or(default),
        });
        (self.metrics.len() - 1, finish)
    }

    /// The steps from the second on, by minute alone: they match by key, whatever their dimensions. Its index.
    fn funnel(&mut self, first: usize, shape: &Shape, funnel: &Funnel) -> usize {
        let later: Vec<Predicate> = funnel.steps.iter().skip(1).cloned().collect();
        let filters: Vec<FilterId> = later.iter().map(|step| place(&mut self.filters, step.clone())).collect();
        let any = Predicate::Or(later);
        self.use_filter(&any);
        let any = match &shape.expression.filter {
            Some(filter) => Predicate::And(vec![filter.clone(), any]),
            None => any,
        };
        let Metric { name, fingerprint, lineage, slots, .. } = &self.metrics[first];
        let key = if let Some(Slot::FunnelFirst { key }) = slots.first() { *key } else { 0 };
        let metric = Metric {
            // No metric of a file is called so.
            name: format!("{name}:later"),
            fingerprint: later_of(*fingerprint),
            lineage: later_of(*lineage),
            filter: Some(place(&mut self.filters, any)),
            group: place(&mut self.groups, Vec::new()),
            slots: vec![Slot::FunnelLater { key, steps: filters }],
            limit: 1,
        };
        self.metrics.push(metric);
        self.metrics.len() - 1
    }

    fn use_slot(&mut self, slot: &Slot) {
        let list = &mut self.fields.list;
        match slot {
            Slot::CountPresent(field) | Slot::Top { field, .. } => list[*field].codes = true,
            Slot::Uniq(field) | Slot::FunnelFirst { key: field } | Slot::FunnelLater { key: field, .. } => {
                list[*field].hash = true;
                list[*field].scalar = true;
            }
            numeric => slot_fields(numeric, &mut |field: FieldId| list[field].number = true),
        }
    }

    fn use_filter(&mut self, filter: &Predicate) {
        match filter {
            Predicate::Constant(_) => {}
            Predicate::And(inner) | Predicate::Or(inner) => inner.iter().for_each(|inner| self.use_filter(inner)),
            Predicate::Not(inner) => self.use_filter(inner),
            Predicate::Value { field, .. } | Predicate::IsNull { field } => self.fields.list[*field].codes = true,
            number => predicate_fields(number, &mut |field| self.fields.list[field].number = true),
        }
    }

    /// Those whose outputs something reads. Backwards, since an enrichment may be read by a later one only.
    fn enrichments(&mut self, loaded: Vec<Enrich>) -> Vec<Enrichment> {
        let mut planned = Vec::new();
        for enrich in loaded.into_iter().rev() {
            let fields = &mut self.fields;
            let outputs: Vec<_> = enrich
                .output
                .iter()
                .map(|path| {
                    let field = fields.find(&path.0)?;
                    let role = &fields.list[field];
                    let read = role.codes || role.number || role.hash || role.enrichment_input;
                    read.then_some(EnrichmentOutput { field, replace: enrich.replace })
                })
                .collect();
            if outputs.iter().all(Option::is_none) {
                continue;
            }
            let inputs: Vec<_> = enrich.input.iter().map(|path| fields.id(&path.0)).collect();
            for input in &inputs {
                fields.list[*input].enrichment_input = true;
                fields.list[*input].scalar = true;
            }
            planned.push(Enrichment {
                name: enrich.name,
                inputs,
                outputs,
                enricher: enrich.loaded.enricher,
                memo: enrich.loaded.memo,
            });
        }
        planned.reverse();
        planned
    }
}

/// Identity of the later steps of a funnel.
fn later_of(first: Fingerprint) -> Fingerprint {
    Fingerprint(xxh3_64(format!("later steps of {first}").as_bytes()))
}

/// The index of an equal element, or of the new one.
fn place<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|existing| *existing == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn map<A, B>(arith: &Arith<A>, leaf: &mut impl FnMut(&A) -> B) -> Arith<B> {
    match arith {
        Arith::Leaf(at) => Arith::Leaf(leaf(at)),
        Arith::Literal(value) => Arith::Literal(*value),
        Arith::Negate(inner) => Arith::Negate(Box::new(map(inner, leaf))),
        Arith::Binary(operator, left, right) => {
            let left = Box::new(map(left, leaf));
            Arith::Binary(*operator, left, Box::new(map(right, leaf)))
        }
    }
}
