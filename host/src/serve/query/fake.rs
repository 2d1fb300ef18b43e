//! A store that holds events and adds them up when asked, and definitions over them: what tests ask against.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::catalog::definitions::*;
use crate::engine::arith::{Arith, Operator};
use crate::engine::plan::*;
use crate::store::*;
use crate::time::{HOUR_MS, MINUTE_MS, Millis, Minute};

#[derive(Clone, Debug)]
pub struct Event {
    pub at: Millis,
    /// Kind, country, device.
    pub text: [&'static str; 3],
    pub amount: Option<f64>,
    pub user: u64,
}

const AMOUNT: usize = 3;
const USER: usize = 4;
pub const DIMENSIONS: [&str; 2] = ["country", "device"];

pub struct World {
    pub active: Active,
    pub events: Mutex<Vec<(Seq, Event)>>,
    pub closed_until: Mutex<Millis>,
    pub reads: Mutex<Vec<ReadRequest>>,
    /// Change numbers begin here.
    pub floor: Mutex<Seq>,
}

/// A metric as tests state it.
pub struct Stated {
    pub name: &'static str,
    pub filter: Option<&'static str>,
    pub slots: Vec<Slot>,
    pub finish: Arith<usize>,
    pub window_ms: Millis,
    pub per_ms: Option<Millis>,
    pub dimensions: Vec<&'static str>,
    pub zero_fill: bool,
}

impl Default for Stated {
    fn default() -> Self {
        Self {
            name: "",
            filter: None,
            slots: vec![Slot::Count],
            finish: Arith::Leaf(0),
            window_ms: MINUTE_MS,
            per_ms: None,
            dimensions: DIMENSIONS.to_vec(),
            zero_fill: true,
        }
    }
}

pub fn divide(left: usize, right: usize) -> Arith<usize> {
    Arith::Binary(Operator::Divide, Box::new(Arith::Leaf(left)), Box::new(Arith::Leaf(right)))
}

pub fn stated() -> Vec<Stated> {
    let amount = || Arith::Leaf(AMOUNT);
    let purchase = Some("purchase");
    vec![
        Stated { name: "events", ..Stated::default() },
        Stated { name: "errors", filter: Some("error"), ..Stated::default() },
        Stated {
            name: "revenue",
            filter: purchase,
            slots: vec![Slot::Sum(amount())],
            window_ms: HOUR_MS,
            ..Stated::default()
        },
        Stated {
            name: "users",
            slots: vec![Slot::Uniq(USER)],
            window_ms: 5 * MINUTE_MS,
            dimensions: vec!["country"],
            ..Stated::default()
        },
        Stated { name: "rate", per_ms: Some(1_000), window_ms: 2 * MINUTE_MS, ..Stated::default() },
        Stated {
            name: "mean",
            slots: vec![Slot::Sum(amount()), Slot::CountNumber(amount())],
            finish: divide(0, 1),
            window_ms: 3 * MINUTE_MS,
            zero_fill: false,
            ..Stated::default()
        },
        Stated { name: "low", slots: vec![Slot::Min(amount())], zero_fill: false, ..Stated::default() },
        Stated {
            name: "high",
            filter: purchase,
            slots: vec![Slot::Max(amount())],
            window_ms: 10 * MINUTE_MS,
            zero_fill: false,
            ..Stated::default()
        },
        Stated {
            name: "mean_order",
            filter: purchase,
            slots: vec![Slot::Sum(amount()), Slot::Count],
            finish: divide(0, 1),
            ..Stated::default()
        },
    ]
}

/// Metrics made of metrics: name, expression over the metrics' indexes, dimensions.
pub fn composites() -> Vec<(&'static str, Arith<usize>, Vec<&'static str>, bool)> {
    let plus = |left, right| Arith::Binary(Operator::Add, Box::new(left), Box::new(right));
    vec![
        ("error_rate", divide(1, 0), DIMENSIONS.to_vec(), true),
        ("revenue_per_user", divide(2, 3), vec!["country"], true),
        ("mean_plus_errors", plus(Arith::Leaf(5), Arith::Leaf(1)), DIMENSIONS.to_vec(), false),
        ("nested", plus(Arith::Leaf(9), Arith::Leaf(4)), DIMENSIONS.to_vec(), true),
    ]
}

impl World {
    pub fn new() -> Self {
        Self::of(stated(), composites())
    }

    pub fn of(stated: Vec<Stated>, composites: Vec<(&'static str, Arith<usize>, Vec<&'static str>, bool)>) -> Self {
        let mut plan = Plan {
            event: EventPlan {
                time: None,
                key: None,
                id: None,
                require: vec![],
                dedupe_ms: 0,
                lateness_ms: 24 * HOUR_MS,
                ahead_ms: 5 * MINUTE_MS,
            },
            fields: vec![],
            enrichments: vec![],
            filters: vec![],
            dimensions: DIMENSIONS
                .iter()
                .zip([1, 2])
                .map(|(name, field)| Dimension { name: (*name).into(), field, limit: None })
                .collect(),
            groups: vec![],
            metrics: vec![],
        };
        let definition = |name: &str, kind, dimensions: &[&str], zero_fill| MetricDefinition {
            name: name.into(),
            title: name.into(),
            expression: name.into(),
            unit: None,
            better: None,
            backfill: false,
            kind,
            dimensions: dimensions.iter().map(|name| (*name).into()).collect(),
            estimate: false,
            zero_fill,
            shape: ValueShape::Number,
        };
        let mut metrics = Vec::new();
        for (number, metric) in stated.into_iter().enumerate() {
            let kind = MetricKind::Aggregate {
                plan_metric: number,
                window_ms: metric.window_ms,
                per_ms: metric.per_ms,
                finish: metric.finish,
            };
            metrics.push(definition(metric.name, kind, &metric.dimensions, metric.zero_fill));
            plan.groups.push(
                metric.dimensions.iter().map(|name| DIMENSIONS.iter().position(|d| d == name).unwrap()).collect(),
            );
            let filter = metric.filter.map(|kind| {
                let test = ValueTest::Text(Compare::Equal, kind.into());
                plan.filters.push(Predicate::Value { field: 0, test });
                plan.filters.len() - 1
            });
            let fingerprint = Fingerprint(number as u64 + 100);
            let (group, name) = (number, metric.name.into());
            let lineage = fingerprint;
            plan.metrics.push(Metric { name, fingerprint, lineage, filter, group, slots: metric.slots, limit: 1_000 });
        }
        for (name, combine, dimensions, zero_fill) in composites {
            metrics.push(definition(name, MetricKind::Composite { combine }, &dimensions, zero_fill));
        }
        let lineages = plan.metrics.iter().map(|metric| vec![(metric.fingerprint, None)]).collect();
        let definitions = Definitions {
            digest: "d1".into(),
            text: "".into(),
            headline: vec!["events".into()],
            rules: vec![],
            notify: vec![],
            plugin_uses: vec![],
            dimensions: DIMENSIONS
                .iter()
                .map(|name| DimensionDefinition { name: (*name).into(), field: (*name).into(), limit: None })
                .collect(),
            metrics,
            plan: Arc::new(plan),
        };
        let active = Active {
            revision: 3,
            applied_at: 1,
            definitions: Arc::new(definitions),
            last: Arc::new(Outcome::Applied { at: 1, difference: Difference::default() }),
            lineages: Arc::new(lineages),
        };
        Self {
            active,
            events: Mutex::default(),
            closed_until: Mutex::default(),
            reads: Mutex::default(),
            floor: Mutex::default(),
        }
    }

    /// All of one change.
    pub fn add(&self, events: impl IntoIterator<Item = Event>) {
        let mut all = self.events.lock().unwrap();
        let seq = all.last().map_or(0, |(seq, _)| *seq).max(*self.floor.lock().unwrap()) + 1;
        all.extend(events.into_iter().map(|event| (seq, event)));
    }

    pub fn close_until(&self, at: Millis) {
        *self.closed_until.lock().unwrap() = at;
    }

    fn matches(&self, metric: &Metric, event: &Event) -> bool {
        metric.filter.is_none_or(|filter| match &self.active.definitions.plan.filters[filter] {
            Predicate::Value { test: ValueTest::Text(Compare::Equal, kind), .. } => event.text[0] == kind,
            _ => unreachable!(),
        })
    }

    fn metric(&self, fingerprint: Fingerprint) -> &Metric {
        self.active.definitions.plan.metrics.iter().find(|metric| metric.fingerprint == fingerprint).unwrap()
    }
}

pub fn empty_column(kind: StateKind, steps: usize) -> StateColumn {
    match kind {
        StateKind::Count => StateColumn::Count(vec![0; steps]),
        StateKind::Sum => StateColumn::Sum(vec![0.0; steps]),
        StateKind::Min => StateColumn::Min(vec![f64::INFINITY; steps]),
        StateKind::Max => StateColumn::Max(vec![f64::NEG_INFINITY; steps]),
        StateKind::Uniq => StateColumn::Uniq(vec![None; steps]),
        StateKind::Quantile | StateKind::Top | StateKind::Funnel => StateColumn::Summary(vec![None; steps]),
    }
}

fn accumulate(slot: &Slot, column: &mut StateColumn, at: usize, event: &Event) {
    let amount = event.amount;
    match (slot, column) {
        (Slot::Count, StateColumn::Count(n)) => n[at] += 1,
        (Slot::CountNumber(_), StateColumn::Count(n)) => n[at] += u64::from(amount.is_some()),
        (Slot::Sum(_), StateColumn::Sum(sum)) => sum[at] += amount.unwrap_or(0.0),
        (Slot::Min(_), StateColumn::Min(least)) => least[at] = least[at].min(amount.unwrap_or(f64::INFINITY)),
        (Slot::Max(_), StateColumn::Max(most)) => most[at] = most[at].max(amount.unwrap_or(f64::NEG_INFINITY)),
        (Slot::Uniq(_), StateColumn::Uniq(sketches)) => {
            let sketch = sketches[at].get_or_insert_default();
            Arc::make_mut(sketch).insert(xxhash_rust::xxh3::xxh3_64(&event.user.to_le_bytes()));
        }
        _ => unreachable!(),
    }
}

impl StateReader for World {
    fn read(&self, request: &ReadRequest) -> Result<ReadAnswer, StoreError> {
        self.reads.lock().unwrap().push(request.clone());
        let metric = self.metric(request.fingerprints[0]);
        let group = &self.active.definitions.plan.groups[metric.group];
        assert_eq!(group.len(), request.dimensions);
        assert_eq!(metric.slots.iter().map(Slot::kind).collect::<Vec<_>>(), request.kinds);
        let pane = if request.resolution == Resolution::Hour { 60 } else { 1 };
        let mut steps = Vec::new();
        for Range { start, end } in &request.ranges {
            assert!(start.0 % pane == 0 && end.0 % pane == 0 && start <= end);
            steps.extend((start.0..end.0).step_by(pane as usize).map(Minute));
        }
        let events = self.events.lock().unwrap();
        let mut series: BTreeMap<Vec<Arc<str>>, StateSeries> = BTreeMap::new();
        for (_, event) in events.iter().filter(|(_, event)| self.matches(metric, event)) {
            let minute = Minute::of(event.at).0;
            let Ok(at) = steps.binary_search(&Minute(minute - minute % pane)) else { continue };
            let value = |dimension: usize| event.text[group[dimension] + 1];
            if !request.filters.iter().all(|(dimension, values)| values.iter().any(|v| v == value(*dimension))) {
                continue;
            }
            let labels: Vec<Arc<str>> = request.by.iter().map(|&dimension| value(dimension).into()).collect();
            let series = series.entry(labels.clone()).or_insert_with(|| StateSeries {
                labels,
                present: vec![false; steps.len()],
                states: request.kinds.iter().map(|&kind| empty_column(kind, steps.len())).collect(),
            });
            series.present[at] = true;
            for (slot, column) in metric.slots.iter().zip(&mut series.states) {
                accumulate(slot, column, at, event);
            }
        }
        let seq = events.last().map_or(0, |(seq, _)| *seq).max(*self.floor.lock().unwrap());
        Ok(ReadAnswer { seq, steps, series: series.into_values().collect() })
    }

    fn seq(&self) -> Seq {
        self.events.lock().unwrap().last().map_or(0, |(seq, _)| *seq).max(*self.floor.lock().unwrap())
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        let events = self.events.lock().unwrap();
        let metrics: Vec<&Metric> = fingerprints.iter().map(|&fingerprint| self.metric(fingerprint)).collect();
        let mut minutes: Vec<Minute> = events
            .iter()
            .filter(|(seq, event)| *seq > since && metrics.iter().any(|metric| self.matches(metric, event)))
            .map(|(_, event)| Minute::of(event.at))
            .collect();
        minutes.sort();
        minutes.dedup();
        Ok(Some(minutes))
    }

    fn dimension_values(&self, dimension: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        let place = DIMENSIONS.iter().position(|name| *name == dimension).unwrap();
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, event) in self.events.lock().unwrap().iter() {
            *counts.entry(event.text[place + 1]).or_default() += 1;
        }
        let mut values: Vec<(Arc<str>, u64)> = counts.into_iter().map(|(value, n)| (value.into(), n)).collect();
        values.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        values.truncate(limit);
        Ok(values)
    }

    fn provisional_from(&self) -> Minute {
        Minute::of(*self.closed_until.lock().unwrap())
    }
}
