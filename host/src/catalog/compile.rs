//! Valid definitions to the plan the engine runs and the definitions everyone else reads.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::canonical::{Meaning, identity, predicate_fields, slot_fields};
use super::definitions::{Definitions, DimensionDefinition, MetricDefinition, MetricKind, PluginUse};
use super::enrichment::Enrich;
use super::expression::{Fields, Leaf};
use super::metrics::Shape;
use super::rules;
use super::spec::{EventSpec, MetricSpec, SKETCH_COMBINATIONS_DEFAULT, Spec};
use crate::engine::arith::Arith;
use crate::engine::plan::{
    Dimension, DimensionId, Enrichment, EnrichmentOutput, EventPlan, FieldId, FilterId, GroupId, Metric, Plan,
    Predicate, Slot,
};

/// All parts without an error; `shapes` has one for each metric.
pub struct Parts<'a> {
    pub text: &'a str,
    pub spec: Spec,
    pub shapes: Vec<Shape>,
    pub fields: Fields,
    pub enrichments: Vec<Enrich>,
    pub rules: Vec<rules::Loaded>,
}

pub fn compile(parts: Parts<'_>) -> Definitions {
    let Parts { text, spec, shapes, fields, enrichments, rules } = parts;
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
        plan: Arc::new(plan),
        headline: spec.headline.iter().map(|id| spec.metrics[*id].name.value.clone()).collect(),
        metrics,
        dimensions: spec
            .dimensions
            .iter()
            .map(|d| DimensionDefinition { name: d.name.clone(), field: d.path.to_string(), limit: d.limit })
            .collect(),
        rules: rules.into_iter().map(|loaded| loaded.rule).collect(),
        plugin_uses,
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
        let kind = if shape.is_composite() {
            // Slots cannot occur here: the expression reader refuses a mixture.
            let combine = map(&shape.expression.value, &mut |leaf| match leaf {
                Leaf::Metric(id) => *id,
                Leaf::Slot(_) => 0,
            });
            MetricKind::Composite { combine }
        } else {
            let (plan_metric, finish) = self.aggregate(metric, shape, dimensions, enrichments);
            MetricKind::Aggregate { plan_metric, window_ms: metric.window_ms, per_ms: metric.per_ms, finish }
        };
        MetricDefinition {
            name: metric.name.value.clone(),
            title: metric.title.clone(),
            expression: metric.expression.as_ref().map_or_else(String::new, |at| at.value.clone()),
            unit: metric.unit.clone(),
            better: metric.better,
            kind,
            dimensions: shape.dimensions.iter().map(|id| spec.dimensions[*id].name.clone()).collect(),
            estimate: shape.estimate,
            zero_fill: shape.zero_fill,
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
        let filter = shape.expression.filter.as_ref();
        let by: Vec<_> = shape.dimensions.iter().map(|id| &dimensions[*id]).collect();
        let meaning = Meaning { name: &metric.name.value, slots: &slots, finish: &finish, filter, dimensions: &by };
        let (fingerprint, lineage) = identity(&meaning, &self.fields.list, enrichments);
        for slot in &slots {
            self.use_slot(slot);
        }
        if let Some(filter) = filter {
            self.use_filter(filter);
        }
        let default =
            if shape.estimate { metric.default_limit.min(SKETCH_COMBINATIONS_DEFAULT) } else { metric.default_limit };
        let filter: Option<FilterId> = filter.map(|filter| place(&mut self.filters, filter.clone()));
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

    fn use_slot(&mut self, slot: &Slot) {
        let list = &mut self.fields.list;
        match slot {
            Slot::CountPresent(field) => list[*field].codes = true,
            Slot::Uniq(field) => {
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
