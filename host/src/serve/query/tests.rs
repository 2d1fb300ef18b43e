//! The evaluator against the definition of a point, applied by hand to every event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bind::{Subject, bind};
use super::combine::Series;
use super::fake::*;
use super::leaf::Grid;
use super::replay::{PointValue, event_points};
use super::*;
use crate::catalog::definitions::MetricKind;
use crate::engine::plan::{Fingerprint, Slot};
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Minute};

/// A Monday at noon.
pub const NOON: Millis = 1_704_110_400_000;

type Points = BTreeMap<Millis, Option<f64>>;
type Answer = BTreeMap<Vec<String>, Points>;

fn random_events(random: &mut StdRng, count: usize, from: Millis, to: Millis) -> Vec<Event> {
    (0..count)
        .map(|_| Event {
            at: random.random_range(from..to),
            text: [
                ["error", "purchase", "page_view"][random.random_range(0..3)],
                ["US", "DE", "FR", ""][random.random_range(0..4)],
                ["mobile", "desktop"][random.random_range(0..2)],
            ],
            amount: random.random_bool(0.6).then(|| f64::from(random.random_range(-500..5_000)) / 100.0),
            user: random.random_range(0..40),
        })
        .collect()
}

/// The value of one aggregate over the events of a window, from the events themselves.
fn naive_value(world: &World, metric: usize, events: &[&Event]) -> Option<f64> {
    let MetricKind::Aggregate { plan_metric, finish, .. } = &world.active.definitions.metrics[metric].kind else {
        unreachable!()
    };
    let amounts: Vec<f64> = events.iter().filter_map(|event| event.amount).collect();
    finish.evaluate(&mut |&slot| match &world.active.definitions.plan.metrics[*plan_metric].slots[slot] {
        Slot::Count => Some(events.len() as f64),
        Slot::CountNumber(_) => Some(amounts.len() as f64),
        Slot::Sum(_) => Some(amounts.iter().sum()),
        Slot::Min(_) => amounts.iter().copied().reduce(f64::min),
        Slot::Max(_) => amounts.iter().copied().reduce(f64::max),
        Slot::Uniq(_) => Some(events.iter().map(|event| event.user).collect::<BTreeSet<_>>().len() as f64),
        _ => unreachable!(),
    })
}

struct Asked<'a> {
    world: &'a World,
    subject: &'a Subject,
    grid: Grid,
    progress: Progress,
}

impl Asked<'_> {
    fn events(&self, metric: usize) -> Vec<Event> {
        let kind = stated()[metric].filter;
        let all = self.world.events.lock().unwrap();
        let of_kind = all.iter().map(|(_, event)| event).filter(|event| kind.is_none_or(|kind| event.text[0] == kind));
        let value = |event: &Event, name: &str| event.text[DIMENSIONS.iter().position(|d| *d == name).unwrap() + 1];
        let filters = &self.subject.filters;
        of_kind
            .filter(|event| filters.iter().all(|(name, values)| values.iter().any(|v| v == value(event, name))))
            .cloned()
            .collect()
    }

    fn labels(&self, event: &Event) -> Vec<String> {
        let place = |name: &String| DIMENSIONS.iter().position(|d| d == name).unwrap();
        self.subject.by.iter().map(|name| event.text[place(name) + 1].to_owned()).collect()
    }

    /// Points of a metric whose definition is an aggregate.
    fn aggregate(&self, metric: usize, fill: bool) -> Answer {
        let definition = &self.world.active.definitions.metrics[metric];
        let MetricKind::Aggregate { window_ms, per_ms, .. } = definition.kind else { unreachable!() };
        let span = window_ms.max(self.grid.step_ms);
        let mut by_labels: BTreeMap<Vec<String>, Vec<Event>> = BTreeMap::new();
        for event in self.events(metric) {
            by_labels.entry(self.labels(&event)).or_default().push(event);
        }
        let mut answer = Answer::new();
        for (labels, events) in by_labels {
            let mut points = Points::new();
            for step in 0..self.grid.steps {
                let (t, end) = (self.grid.time(step), self.grid.time(step + 1));
                let inside: Vec<&Event> = events.iter().filter(|e| (end - span..end).contains(&e.at)).collect();
                let filled = fill && definition.zero_fill && !points.is_empty() && end <= self.progress.closed_until;
                if inside.is_empty() && !filled {
                    continue;
                }
                let value = naive_value(self.world, metric, &inside);
                let passed = (self.progress.now - (end - span)).min(span);
                if per_ms.is_none() || passed > 0 {
                    let divide = |v: f64| per_ms.map_or(v, |per| v / (passed as f64 / per as f64));
                    points.insert(t, value.map(divide));
                }
            }
            if !points.is_empty() {
                answer.insert(labels, points);
            }
        }
        answer
    }

    /// What a part without a point counts as; a part made of parts is what its own parts make of it.
    fn missing(&self, part: usize) -> Option<f64> {
        let definition = &self.world.active.definitions.metrics[part];
        match &definition.kind {
            MetricKind::Aggregate { .. } => definition.zero_fill.then_some(0.0),
            MetricKind::Composite { combine } => combine.evaluate(&mut |&part| self.missing(part)),
        }
    }

    fn metric(&self, metric: usize, fill: bool) -> Answer {
        let definitions = &self.world.active.definitions;
        let MetricKind::Composite { combine } = &definitions.metrics[metric].kind else {
            return self.aggregate(metric, fill);
        };
        let mut parts: BTreeMap<usize, Answer> = BTreeMap::new();
        combine.leaves(&mut |&part| {
            parts.entry(part).or_insert_with(|| self.metric(part, fill));
        });
        let labels: BTreeSet<_> = parts.values().flat_map(|answer| answer.keys().cloned()).collect();
        let point = |part: usize, labels: &Vec<String>, t: Millis| parts[&part].get(labels)?.get(&t).copied();
        let mut answer = Answer::new();
        for labels in labels {
            for t in (0..self.grid.steps).map(|step| self.grid.time(step)) {
                if parts.keys().any(|&part| point(part, &labels, t).is_some()) {
                    let value =
                        combine.evaluate(&mut |&part| point(part, &labels, t).unwrap_or_else(|| self.missing(part)));
                    answer.entry(labels.clone()).or_default().insert(t, value);
                }
            }
        }
        answer
    }
}

fn collect<'a>(grid: Grid, series: impl IntoIterator<Item = &'a Series>) -> Answer {
    let text = |labels: &[Arc<str>]| labels.iter().map(|label| label.to_string()).collect();
    let points = |series: &Series| {
        series.points().map(|(step, value)| (grid.time(step), (!value.is_nan()).then_some(value))).collect()
    };
    let with_points = series.into_iter().filter(|series| !series.steps.is_empty());
    with_points.map(|series| (text(&series.labels), points(series))).collect()
}

fn assert_same(context: &str, actual: &Answer, expected: &Answer) {
    let same = |a: &Option<f64>, b: &Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        (a, b) => a.is_none() && b.is_none(),
    };
    assert_eq!(actual.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{context}");
    for (labels, expected) in expected {
        let actual = &actual[labels];
        let differs = expected.iter().find(|(t, value)| !actual.get(t).is_some_and(|actual| same(actual, value)));
        assert_eq!(differs, None, "{context} {labels:?}: {:?}", differs.map(|(t, _)| actual.get(t)));
        assert_eq!(actual.len(), expected.len(), "{context} {labels:?}: points too many");
    }
}

fn subjects(world: &World, metric: usize) -> Vec<Subject> {
    let definition = &world.active.definitions.metrics[metric];
    let subject = |by: &[&str], filters: &[(&str, &[&str])]| Subject {
        metric: definition.name.clone(),
        by: by.iter().map(|name| (*name).to_owned()).collect(),
        filters: filters
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()))
            .collect(),
    };
    let all = vec![
        subject(&[], &[]),
        subject(&["country"], &[]),
        subject(&[], &[("country", &["US", "nowhere"])]),
        subject(&["country"], &[("country", &[""])]),
        subject(&["device", "country"], &[]),
        subject(&["country"], &[("device", &["mobile"])]),
    ];
    let known = |name: &String| definition.dimensions.contains(name);
    all.into_iter().filter(|s| s.by.iter().chain(s.filters.iter().map(|(name, _)| name)).all(known)).collect()
}

#[test]
fn evaluator_and_definition_agree() {
    let mut random = StdRng::seed_from_u64(7);
    for (events, now) in [(0, NOON), (3, NOON), (40, NOON + 1), (400, NOON + 30_000), (3_000, NOON + 59_999)] {
        let world = Arc::new(World::new());
        let evaluator = Evaluator::new(world.clone());
        world.add(random_events(&mut random, events, now - 4 * HOUR_MS, now + 2 * MINUTE_MS));
        let grids = [
            (now - 2 * HOUR_MS, now + MINUTE_MS, MINUTE_MS),
            (now - 90 * MINUTE_MS, now + 10 * MINUTE_MS, 7 * MINUTE_MS),
            (now - 5 * HOUR_MS, now + HOUR_MS, HOUR_MS),
            (now - 3 * DAY_MS, now + HOUR_MS, HOUR_MS),
        ];
        for (closed_back, (from, to, step)) in [(20_000, grids[0]), (90_000, grids[1]), (0, grids[2]), (9, grids[3])] {
            let round = |ms: Millis| ms - ms.rem_euclid(step);
            let closed_until = Minute::of(now - closed_back).start();
            world.close_until(closed_until);
            let progress = Progress { now, closed_until };
            for metric in 0..world.active.definitions.metrics.len() {
                for subject in subjects(&world, metric) {
                    let bound = bind(&world.active, &subject).unwrap();
                    let grid = grid_of(round(from), round(to), step, now, &bound, 5 * MINUTE_MS);
                    let expected = Asked { world: &world, subject: &subject, grid, progress }.metric(metric, true);
                    let context = format!("{events} events, {subject:?}, step {step}");
                    let question = Question { subject, step_ms: step, from: round(from), to: round(to) };
                    let view = evaluator.answer(&world.active, &question, now).unwrap();
                    let actual = collect(view.span.grid, view.series.iter().map(|series| &series.points));
                    assert_same(&context, &actual, &expected);
                }
            }
        }
    }
}

#[test]
fn replay_has_a_point_wherever_the_window_has_an_event() {
    let mut random = StdRng::seed_from_u64(8);
    let world = World::new();
    world.add(random_events(&mut random, 60, NOON, NOON + 9 * HOUR_MS));
    let grid = Grid::new(NOON, NOON + 9 * HOUR_MS, MINUTE_MS);
    let progress = Progress { now: NOON + DAY_MS, closed_until: NOON + DAY_MS };
    for (number, metric) in world.active.definitions.metrics.iter().enumerate() {
        let mut points = Vec::new();
        event_points(
            &world.active,
            &world,
            number,
            Minute::of(NOON)..Minute::of(grid.to()),
            &mut |t, labels, value| {
                let value = if let PointValue::Number(value) = value { Some(value) } else { None };
                points.push((t, labels.iter().map(|label| label.to_string()).collect::<Vec<_>>(), value));
            },
        )
        .unwrap();
        assert!(points.is_sorted_by(|a, b| (a.0, &a.1) < (b.0, &b.1)), "{}: sorted by time and labels", metric.name);
        let mut actual = Answer::new();
        for (t, labels, value) in points {
            actual.entry(labels).or_default().insert(t, value);
        }
        let subject = Subject { metric: metric.name.clone(), by: metric.dimensions.clone(), filters: vec![] };
        let expected = Asked { world: &world, subject: &subject, grid, progress }.metric(number, false);
        assert_same(&metric.name, &actual, &expected);
    }
}

#[test]
fn a_metric_reads_its_predecessors_too() {
    let mut world = World::new();
    world.active.lineages = Arc::new(vec![vec![(Fingerprint(100), None), (Fingerprint(7), Some(NOON))]; 9]);
    let subject = Subject { metric: "events".into(), ..Subject::default() };
    let bound = bind(&world.active, &subject).unwrap();
    assert_eq!(bound.leaves[0].fingerprints, [Fingerprint(100), Fingerprint(7)]);
}

#[test]
fn what_only_hours_are_kept_of_is_read_in_hours() {
    let world = World::new();
    let case = |metric: &str, from: Millis, step_ms: Millis| {
        let subject = Subject { metric: metric.into(), ..Subject::default() };
        let bound = bind(&world.active, &subject).unwrap();
        let round = |ms: Millis| ms - ms.rem_euclid(step_ms);
        let grid = grid_of(round(from), round(NOON), step_ms, NOON, &bound, 0);
        leaf::read_leaf(&world, &bound.leaves[0], grid, NOON).map_err(|error| error.code)?;
        Ok::<_, &str>(world.reads.lock().unwrap().pop().unwrap().resolution)
    };
    use crate::store::Resolution::{Hour, Minute};
    let cases = [
        ("events", NOON - DAY_MS, MINUTE_MS, Ok(Minute)),
        ("events", NOON - DAY_MS, HOUR_MS, Ok(Minute)),
        ("events", NOON - 7 * DAY_MS, MINUTE_MS, Ok(Minute)),
        ("events", NOON - 7 * DAY_MS, HOUR_MS, Ok(Hour)),
        ("events", NOON - 8 * DAY_MS, MINUTE_MS, Err("step_too_small")),
        ("events", NOON - 8 * DAY_MS, 90 * MINUTE_MS, Err("step_too_small")),
        ("revenue", NOON - 30 * DAY_MS, HOUR_MS, Ok(Hour)),
        ("revenue", NOON - 3_000 * DAY_MS, DAY_MS, Ok(Hour)),
    ];
    for (metric, from, step, expected) in cases {
        assert_eq!(case(metric, from, step), expected, "{metric} {from} {step}");
    }
}

#[test]
fn mistakes_in_names() {
    let world = World::new();
    let cases = [
        ("evnts", "", "", "unknown_metric", "Did you mean `events`?"),
        ("xyzzyx", "", "", "unknown_metric", "GET /v1/metrics lists the metrics."),
        (
            "events",
            "contry",
            "",
            "unknown_dimension",
            "Did you mean `country`? `events` has the dimensions `country`, `device`.",
        ),
        (
            "events",
            "",
            "devices",
            "unknown_dimension",
            "Did you mean `device`? `events` has the dimensions `country`, `device`.",
        ),
        ("users", "", "device", "unknown_dimension", "`users` has the dimensions `country`."),
    ];
    for (metric, by, filter, code, help) in cases {
        let filters = (!filter.is_empty()).then(|| (filter.to_owned(), vec!["x".to_owned()])).into_iter().collect();
        let by = (!by.is_empty()).then(|| by.to_owned()).into_iter().collect();
        let error = bind(&world.active, &Subject { metric: metric.into(), by, filters }).unwrap_err();
        assert_eq!((error.code, error.help.as_str()), (code, help));
    }
}

/// A view without what the cache may know differently: the change number.
fn told(view: &View) -> impl PartialEq + std::fmt::Debug {
    (view.span.clone(), view.progress, collect(view.span.grid, view.series.iter().map(|series| &series.points)))
}

#[test]
fn what_is_remembered_is_what_would_be_read() {
    let mut random = StdRng::seed_from_u64(9);
    let world = Arc::new(World::new());
    let remembering = Evaluator::new(world.clone());
    let mut now = NOON + 12_345;
    world.add(random_events(&mut random, 300, now - 2 * HOUR_MS, now));
    for round in 0..40 {
        now += random.random_range(0..3 * MINUTE_MS);
        let late = random.random_range(0..3) == 0;
        let from = now - if late { 3 * HOUR_MS } else { 20_000 };
        let count = random.random_range(0..6);
        world.add(random_events(&mut random, count, from, now + 60_000));
        world.close_until(Minute::of(now - 10_000).start());
        world.reads.lock().unwrap().clear();
        for (metric, step_ms) in
            [("users", MINUTE_MS), ("nested", MINUTE_MS), ("mean", 5 * MINUTE_MS), ("revenue", HOUR_MS)]
        {
            let round_down = |ms: Millis| ms - ms.rem_euclid(step_ms);
            let to = round_down(now) + step_ms;
            let subject = Subject { metric: metric.into(), by: vec!["country".into()], filters: vec![] };
            let question = Question { subject, step_ms, from: to - 2 * HOUR_MS, to };
            let actual = remembering.answer(&world.active, &question, now).unwrap();
            let expected = Evaluator::new(world.clone()).answer(&world.active, &question, now).unwrap();
            assert_eq!(format!("{:?}", told(&actual)), format!("{:?}", told(&expected)), "{metric} in round {round}");
        }
    }
}

#[test]
fn an_answer_again_reads_only_what_changed() {
    let world = Arc::new(World::new());
    let evaluator = Evaluator::new(world.clone());
    world.add(random_events(&mut StdRng::seed_from_u64(1), 100, NOON - HOUR_MS, NOON));
    let ask = |now: Millis| {
        let subject = Subject { metric: "users".into(), ..Subject::default() };
        let question = Question { subject, step_ms: MINUTE_MS, from: now - DAY_MS, to: now };
        evaluator.answer(&world.active, &question, now).unwrap();
        let reads = std::mem::take(&mut *world.reads.lock().unwrap());
        reads.iter().flat_map(|read| &read.ranges).map(|range| range.end.0 - range.start.0).collect::<Vec<_>>()
    };
    assert_eq!(ask(NOON), [1_444]);
    assert!(ask(NOON).is_empty());
    assert_eq!(ask(NOON + MINUTE_MS), [5], "one new point sees the five minutes of its window");
    world.add(random_events(&mut StdRng::seed_from_u64(2), 1, NOON - HOUR_MS, NOON - HOUR_MS + 1));
    assert_eq!(ask(NOON + MINUTE_MS), [9], "five windows cover the changed minute");
}
