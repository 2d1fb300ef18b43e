//! What every implementation of the store traits must do, held against a naive model that keeps texts and sets.

mod history;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::engine::arith::Arith;
use crate::engine::delta::{DimensionValue, GROUP_ALL, GroupPartial, MetricPartial, Partial, SourceRange, States};
use crate::engine::plan::{Dimension, EventPlan, Metric, Plan, Slot};
use crate::engine::summary::top::Top;
use crate::engine::summary::{funnel, quantile};
pub use history::{history_record, history_store};

/// An event as far as stores are concerned.
#[derive(Clone, Debug)]
pub struct Event {
    pub minute: Minute,
    pub values: [String; 3],
    pub amount: f64,
    pub user: u64,
}

/// Metrics of every shape: no, one, two, three dimensions; with and without sketches; with limits that are reached.
pub fn plan() -> Arc<Plan> {
    plan_with(Vec::new())
}

/// And metrics with what only the engine merges.
pub fn plan_with_summaries() -> Arc<Plan> {
    let summaries = vec![
        Slot::Quantile { q: 0.5, number: Arith::Leaf(0) },
        Slot::Count,
        Slot::Top { n: 3, field: 0 },
        Slot::FunnelFirst { key: 0 },
    ];
    let later = vec![Slot::FunnelLater { key: 0, steps: vec![] }];
    plan_with(vec![("summaries", 0, summaries, 9), ("all_later", 3, later, 5)])
}

fn plan_with(more: Vec<(&str, usize, Vec<Slot>, u32)>) -> Arc<Plan> {
    let dimension = |(field, limit): (usize, Option<u32>)| Dimension { name: format!("d{field}"), field, limit };
    let amount = || Arith::Leaf(0);
    let scalars = || vec![Slot::Count, Slot::Sum(amount()), Slot::Min(amount()), Slot::Max(amount())];
    let metrics = [
        ("events", 0, scalars(), 1_000),
        ("tight", 1, scalars(), 6),
        ("users", 0, vec![Slot::Uniq(0), Slot::Count, Slot::Max(amount())], 9),
        ("users_by_first", 2, vec![Slot::Uniq(0)], 3),
        ("all", 3, vec![Slot::Sum(amount())], 5),
        ("all_users", 3, vec![Slot::Uniq(0)], 5),
    ];
    let metric = |(name, group, slots, limit): (&str, usize, Vec<Slot>, u32)| Metric {
        name: name.into(),
        fingerprint: Fingerprint(xxh3_64(name.as_bytes())),
        lineage: Fingerprint(xxh3_64(name.as_bytes())),
        filter: None,
        group,
        slots,
        limit,
    };
    Arc::new(Plan {
        event: EventPlan {
            time: None,
            key: None,
            id: None,
            require: vec![],
            dedupe_ms: 0,
            lateness_ms: 0,
            ahead_ms: 0,
        },
        fields: vec![],
        enrichments: vec![],
        filters: vec![],
        dimensions: [(0, None), (1, Some(4)), (2, None)].into_iter().map(dimension).collect(),
        groups: vec![vec![0, 1, 2], vec![2, 1], vec![0], vec![]],
        metrics: metrics.into_iter().chain(more).map(metric).collect(),
    })
}

/// Whether the metric counts the event: one of them has a `where`.
fn counts(metric: &Metric, event: &Event) -> bool {
    metric.name != "tight" || event.amount > 3.0
}

pub fn partial(plan: &Arc<Plan>, events: &[Event]) -> Partial {
    let mut codes: Vec<HashMap<&str, u32>> = vec![HashMap::new(); plan.dimensions.len()];
    let mut values: Vec<Vec<DimensionValue>> = vec![Vec::new(); plan.dimensions.len()];
    for event in events {
        for (dimension, text) in event.values.iter().enumerate() {
            let next = codes[dimension].len() as u32;
            let code = *codes[dimension].entry(text).or_insert(next);
            if code == next {
                values[dimension].push(DimensionValue { text: text.as_str().into(), events: 0 });
            }
            values[dimension][code as usize].events += 1;
        }
    }
    let mut groups = Vec::new();
    let mut rows_of: Vec<Vec<u32>> = Vec::new();
    for group in &plan.groups {
        let mut partial = GroupPartial::default();
        let mut rows = HashMap::new();
        let mut combinations: HashMap<Vec<u32>, u32> = HashMap::new();
        let row_of = |event: &Event| {
            let key: Vec<u32> = group.iter().map(|&at| codes[at][event.values[at].as_str()]).collect();
            let next = rows.len() as u32;
            *rows.entry((event.minute, key)).or_insert_with_key(|(minute, key)| {
                partial.minutes.push(*minute);
                partial.order.push(u64::from(next));
                let next_combination = combinations.len() as u32;
                partial.combinations.push(*combinations.entry(key.clone()).or_insert_with_key(|key| {
                    partial.codes.extend_from_slice(key);
                    next_combination
                }));
                next
            })
        };
        rows_of.push(events.iter().map(row_of).collect());
        groups.push(partial);
    }
    let metric_partial = |(at, metric): (usize, &Metric)| {
        let counted = events.iter().zip(&rows_of[metric.group]).filter(|(event, _)| counts(metric, event));
        let mut rows: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
        counted.for_each(|(event, &row)| rows.entry(row).or_default().push(event));
        let slots = metric.slots.iter().map(|slot| states(slot, rows.values())).collect();
        MetricPartial { metric: at, rows: rows.keys().copied().collect(), slots }
    };
    let metrics: Vec<_> = plan.metrics.iter().enumerate().map(metric_partial).filter(|m| !m.rows.is_empty()).collect();
    Partial { plan: plan.clone(), values, groups, metrics }
}

fn states<'e>(slot: &Slot, rows: impl Iterator<Item = &'e Vec<&'e Event>>) -> States {
    let amounts = |events: &Vec<&Event>, from: f64, fold: fn(f64, f64) -> f64| {
        events.iter().map(|event| event.amount).fold(from, fold)
    };
    match slot.kind() {
        StateKind::Count => States::Count(rows.map(|events| events.len() as u64).collect()),
        StateKind::Sum => States::Sum(rows.map(|events| amounts(events, 0.0, |a, b| a + b)).collect()),
        StateKind::Min => States::Min(rows.map(|events| amounts(events, f64::INFINITY, f64::min)).collect()),
        StateKind::Max => States::Max(rows.map(|events| amounts(events, f64::NEG_INFINITY, f64::max)).collect()),
        StateKind::Uniq => States::Uniq(rows.map(|events| sketch(events.iter().map(|event| event.user))).collect()),
        kind => States::Summary(rows.map(|events| summary(kind, events)).collect()),
    }
}

fn summary(kind: StateKind, events: &[&Event]) -> Summary {
    match kind {
        StateKind::Quantile => {
            let mut gather = quantile::Gather::default();
            events.iter().for_each(|event| gather.push(event.amount));
            Summary::Quantiles(gather.finish())
        }
        StateKind::Top => {
            // Fewer than the capacity: past it the order of merges matters.
            let users = events.iter().map(|event| (format!("u{}", event.user % 900).as_str().into(), 1));
            Summary::Top(Top::of(1_000, users.collect()))
        }
        _ => {
            let mut gather = funnel::Gather::default();
            let at = |event: &Event| event.minute.start() + (event.amount * 100.0) as Millis;
            events.iter().for_each(|event| gather.push(xxh3_64(&event.user.to_le_bytes()), 1, at(event)));
            Summary::Funnel(gather.finish())
        }
    }
}

fn sketch(users: impl Iterator<Item = u64>) -> Sketch {
    let mut sketch = Sketch::default();
    users.for_each(|user| sketch.insert(xxh3_64(&user.to_le_bytes())));
    sketch
}

/// A delta of two shards that covers sources 0 and 1 from where the model stands.
pub fn delta(plan: &Arc<Plan>, model: &Model, events: &[Event]) -> Delta {
    let (first, second) = events.split_at(events.len() / 2);
    let source = |(source, events): (SourceId, &[Event])| {
        let from = model.positions.get(&source).copied().unwrap_or(0);
        SourceRange { group: GROUP_ALL, source, from, to: from + events.len() as u64, arrival: 1_000_000 }
    };
    Delta {
        sources: [(0, first), (1, second)].into_iter().map(source).collect(),
        partials: vec![partial(plan, first), partial(plan, second)],
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub positions: BTreeMap<SourceId, u64>,
    dimension_values: HashMap<(usize, u32), BTreeSet<String>>,
    kept: HashMap<(usize, u32), Kept>,
    /// By metric, minute and combination: the events.
    cells: BTreeMap<(usize, Minute, Vec<String>), Vec<Event>>,
    changed: BTreeMap<(usize, Minute), Seq>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    combinations: BTreeSet<Vec<String>>,
    full: u32,
    firsts: u32,
}

impl Kept {
    /// As the contract says: `__other__` from the last to the first until the combination is one that is kept.
    fn place(&mut self, mut wanted: Vec<String>, limit: u32) -> Vec<String> {
        if self.combinations.contains(&wanted) {
            return wanted;
        }
        if self.full < limit {
            self.full += 1;
        } else {
            let mut left = wanted.len();
            while left > 0 {
                left -= 1;
                wanted[left] = OTHER.into();
                let only_first_stands = left == 1 && wanted[0] != OTHER;
                if self.combinations.contains(&wanted) {
                    break;
                }
                if only_first_stands && self.firsts < limit {
                    self.firsts += 1;
                    break;
                }
            }
        }
        self.combinations.insert(wanted.clone());
        wanted
    }
}

impl Model {
    pub fn apply(&mut self, plan: &Plan, events: &[Event], seq: Seq) {
        let (first, second) = events.split_at(events.len() / 2);
        for (source, events) in [(0, first), (1, second)] {
            self.apply_partial(plan, events, seq);
            *self.positions.entry(source).or_default() += events.len() as u64;
        }
    }

    fn apply_partial(&mut self, plan: &Plan, events: &[Event], seq: Seq) {
        let mut limited = events.to_vec();
        for event in &mut limited {
            for (at, dimension) in plan.dimensions.iter().enumerate() {
                let Some(limit) = dimension.limit else { continue };
                let kept = self.dimension_values.entry((at, event.minute.day())).or_default();
                if event.values[at] != OTHER && !kept.contains(&event.values[at]) {
                    if kept.len() < limit as usize {
                        kept.insert(event.values[at].clone());
                    } else {
                        event.values[at] = OTHER.into();
                    }
                }
            }
        }
        for (at, metric) in plan.metrics.iter().enumerate() {
            for event in limited.iter().filter(|event| counts(metric, event)) {
                let wanted = plan.groups[metric.group].iter().map(|&at| event.values[at].clone()).collect();
                let kept = self.kept.entry((at, event.minute.day())).or_default().place(wanted, metric.limit);
                self.cells.entry((at, event.minute, kept)).or_default().push(event.clone());
                self.changed.insert((at, event.minute), seq);
            }
        }
    }

    /// Answers as texts and numbers: by labels and step, one text a slot.
    pub fn read(&self, metric: usize, request: &ReadRequest) -> BTreeMap<(Vec<String>, u32), Vec<Approximate>> {
        let mut groups: BTreeMap<(Vec<String>, u32), Vec<&Event>> = BTreeMap::new();
        for ((at, minute, combination), events) in &self.cells {
            if *at != metric || !request.ranges.iter().any(|range| range.contains(minute)) {
                continue;
            }
            if request.filters.iter().all(|(dimension, values)| values.contains(&combination[*dimension])) {
                let labels = request.by.iter().map(|&dimension| combination[dimension].clone()).collect();
                let step = minute.0 - minute.0 % request.resolution.minutes();
                groups.entry((labels, step)).or_default().extend(events);
            }
        }
        let finish = |events: Vec<&Event>| {
            let slot = |&kind: &StateKind| match kind {
                StateKind::Count => Approximate::Number(events.len() as f64),
                StateKind::Sum => Approximate::Number(events.iter().map(|event| event.amount).sum()),
                StateKind::Min => Approximate::Number(events.iter().map(|e| e.amount).fold(f64::INFINITY, f64::min)),
                StateKind::Max => {
                    Approximate::Number(events.iter().map(|e| e.amount).fold(f64::NEG_INFINITY, f64::max))
                }
                StateKind::Uniq => Approximate::Sketch(sketch(events.iter().map(|event| event.user))),
                kind => Approximate::Summary(summary(kind, &events)),
            };
            request.kinds.iter().map(slot).collect()
        };
        groups.into_iter().map(|(key, events)| (key, finish(events))).collect()
    }
}

/// Sums are equal within 1e-9 of their size, all else exactly.
#[derive(Clone, Debug)]
pub enum Approximate {
    Number(f64),
    Sketch(Sketch),
    Summary(Summary),
}

impl PartialEq for Approximate {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
            (Self::Sketch(a), Self::Sketch(b)) => a == b,
            (Self::Summary(a), Self::Summary(b)) => a == b,
            _ => false,
        }
    }
}

pub fn flatten(answer: &ReadAnswer) -> BTreeMap<(Vec<String>, u32), Vec<Approximate>> {
    assert!(answer.series.is_sorted_by(|a, b| a.labels < b.labels), "sorted, and no labels twice");
    let mut flat = BTreeMap::new();
    for series in &answer.series {
        assert_eq!(series.present.len(), answer.steps.len());
        assert!(series.present.contains(&true), "a series has a cell");
        for (step, start) in answer.steps.iter().enumerate().filter(|(step, _)| series.present[*step]) {
            let slot = |column: &StateColumn| match column {
                StateColumn::Count(states) => Approximate::Number(states[step] as f64),
                StateColumn::Sum(states) | StateColumn::Min(states) | StateColumn::Max(states) => {
                    Approximate::Number(states[step])
                }
                StateColumn::Uniq(states) => {
                    Approximate::Sketch(states[step].as_deref().cloned().expect("a present cell has a sketch"))
                }
                StateColumn::Summary(states) => {
                    Approximate::Summary(states[step].as_deref().cloned().expect("a present cell has a summary"))
                }
            };
            let labels = series.labels.iter().map(|label| label.to_string()).collect();
            flat.insert((labels, start.0), series.states.iter().map(slot).collect());
        }
    }
    flat
}

/// Values that repeat enough to be kept, and enough others to pass every limit. Around midnight of day 2.
pub fn random_events(random: &mut StdRng, minutes: Range<u32>) -> Vec<Event> {
    let count = random.random_range(1..60);
    let event = |_| {
        let skewed = |random: &mut StdRng, of: u32| random.random_range(0..of).min(random.random_range(0..of));
        let first = ["", "de", "us", "fr", "__other__", "jp"][skewed(random, 6) as usize].to_owned();
        let values = [first, format!("b{}", skewed(random, 9)), format!("c{}", skewed(random, 12))];
        let amount = f64::from(random.random_range(0..100u32)) / 8.0;
        Event { minute: Minute(random.random_range(minutes.clone())), values, amount, user: random.random_range(0..40) }
    };
    (0..count).map(event).collect()
}

pub fn request(plan: &Plan, metric: usize, ranges: Vec<Range<Minute>>, resolution: Resolution) -> ReadRequest {
    let metric = &plan.metrics[metric];
    ReadRequest {
        fingerprints: vec![metric.fingerprint],
        kinds: metric.slots.iter().map(Slot::kind).collect(),
        margins: metric.keeps_margins(),
        dimensions: plan.groups[metric.group].len(),
        by: vec![],
        filters: vec![],
        resolution,
        ranges,
    }
}

/// Any grouping and filter over any ranges.
pub fn random_request(random: &mut StdRng, plan: &Plan, metric: usize, minutes: Range<u32>) -> ReadRequest {
    let resolution = if random.random_bool(0.3) { Resolution::Hour } else { Resolution::Minute };
    let step = resolution.minutes();
    let mut cut = |from: u32| Minute(random.random_range(from..=minutes.end.max(from)) / step * step);
    let first = cut(minutes.start);
    let second = cut(first.0);
    let third = cut(second.0);
    let ranges = if random.random_bool(0.5) {
        vec![first..second, third..Minute(minutes.end / step * step + step)]
    } else {
        vec![first..third]
    };
    let mut request = request(plan, metric, ranges, resolution);
    for dimension in 0..request.dimensions {
        if random.random_bool(0.4) {
            request.by.push(dimension);
        }
        if random.random_bool(0.25) {
            let names = ["", "de", "us", "b0", "b1", "b2", "c0", "c1", OTHER, "never seen"];
            let values = names.iter().filter(|_| random.random_bool(0.5)).map(|name| name.to_string()).collect();
            request.filters.push((dimension, values));
        }
    }
    request
}

/// Applies random deltas and asks random questions after each. `forgets`: may not know what changed long ago.
pub fn hot_store<S: HotStore + StateReader>(make: impl Fn() -> S, seeds: Range<u64>, forgets: bool) {
    let plan = plan_with_summaries();
    for seed in seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let (store, mut model) = (make(), Model::default());
        let minutes = 2 * 1440 - 70..2 * 1440 + 70;
        for round in 0..12 {
            let events = random_events(&mut random, minutes.clone());
            let before = HotStore::seq(&store);
            let seq = store.apply(delta(&plan, &model, &events)).unwrap();
            assert!(seq > before);
            model.apply(&plan, &events, seq);
            refuses_what_does_not_begin_where_it_stands(&store, &plan, &model, &events);
            for metric in 0..plan.metrics.len() {
                let request = random_request(&mut random, &plan, metric, minutes.clone());
                let answer = store.read(&request).unwrap();
                assert_eq!(answer.seq, HotStore::seq(&store));
                assert_eq!(flatten(&answer), model.read(metric, &request), "seed {seed} round {round} {request:?}");
                let since = random.random_range(0..=seq);
                let changed = HotStore::changed_since(&store, &request.fingerprints, since).unwrap();
                if changed.is_none() && forgets {
                    continue;
                }
                let expected = model.changed.iter().filter(|((at, _), changed)| *at == metric && **changed > since);
                assert_eq!(changed, Some(expected.map(|((_, minute), _)| *minute).collect()));
            }
        }
    }
}

fn refuses_what_does_not_begin_where_it_stands(
    store: &impl HotStore,
    plan: &Arc<Plan>,
    model: &Model,
    events: &[Event],
) {
    let seq = store.seq();
    for (source, by) in [(0, 1), (1, -1)] {
        let mut wrong = delta(plan, model, events);
        wrong.sources[source].from = wrong.sources[source].from.wrapping_add_signed(by);
        assert!(matches!(store.apply(wrong), Err(StoreError::Position { .. })));
    }
    assert_eq!(store.seq(), seq, "dropped whole");
    let positions: BTreeMap<_, _> = store.positions().unwrap().iter().map(|at| (at.source, at.next)).collect();
    assert_eq!(positions, model.positions);
}

/// A folder of a test's own, removed with it.
pub struct Folder(pub std::path::PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidemark-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
