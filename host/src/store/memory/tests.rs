//! The memory store: the suite of all hot stores, its limits case by case, panes that are damaged.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::engine::plan::Plan;
use crate::store::pane::{Wanted, decode};
use crate::store::suite::{self, Approximate, Event, Model};
use crate::store::{OTHER, Resolution};

#[test]
fn is_a_hot_store() {
    suite::hot_store(MemoryStore::new, 0..40, false);
}

/// A plan with one metric by these dimensions.
fn counting(dimensions: usize, limit: u32, value_limits: [Option<u32>; 3]) -> Arc<Plan> {
    let mut plan = Arc::into_inner(suite::plan()).unwrap();
    plan.groups = vec![(0..dimensions).collect()];
    plan.metrics.truncate(1);
    plan.metrics[0].limit = limit;
    plan.dimensions.iter_mut().zip(value_limits).for_each(|(dimension, limit)| dimension.limit = limit);
    Arc::new(plan)
}

/// Events `a/b/c` in one minute each; the combinations kept with their counts, in order.
fn kept(plan: &Arc<Plan>, events: &[&str]) -> Vec<String> {
    let store = MemoryStore::new();
    let mut model = Model::default();
    for (at, text) in events.iter().enumerate() {
        let mut values = text.split('/').map(str::to_owned);
        let values = std::array::from_fn(|_| values.next().unwrap_or_default());
        let event = [Event { minute: Minute(100 + at as u32), values, amount: 1.0, user: 1 }];
        let seq = store.apply(suite::delta(plan, &model, &event)).unwrap();
        model.apply(plan, &event, seq);
    }
    let mut request = suite::request(plan, 0, vec![Minute(60)..Minute(180)], Resolution::Hour);
    request.by = (0..request.dimensions).collect();
    let mut sums: BTreeMap<Vec<String>, f64> = BTreeMap::new();
    for ((labels, _), states) in suite::flatten(&store.read(&request).unwrap()) {
        let Approximate::Number(count) = states[0] else { panic!("{states:?}") };
        *sums.entry(labels).or_default() += count;
    }
    sums.into_iter().map(|(labels, count)| format!("{}={count}", labels.join("/").replace(OTHER, "*"))).collect()
}

#[test]
fn keeps_the_first_combinations_and_folds_the_rest_from_the_last_dimension_on() {
    let check = |dimensions, limit, events: &[&str], expected: &[&str]| {
        assert_eq!(kept(&counting(dimensions, limit, [None; 3]), events), expected, "{events:?}");
    };
    check(1, 2, &["a", "b", "a", "c", "d", "b"], &["*=2", "a=2", "b=2"]);
    check(1, 2, &["a", "__other__", "b"], &["*=2", "a=1"]);
    // The first value stands, kept before or not, so that totals by it stay right.
    check(2, 2, &["a/x", "a/y", "a/z", "b/x", "b/y", "a/x"], &["a/*=1", "a/x=2", "a/y=1", "b/*=2"]);
    // As many first values as combinations; then all is folded.
    check(2, 1, &["a/x", "b/x", "c/x", "d/x", "b/y"], &["*/*=2", "a/x=1", "b/*=2"]);
    // In between, only what is kept already: here because a value was folded by its own dimension's limit.
    check(3, 2, &["a/x/1", "a/x/__other__", "a/x/2", "a/y/3"], &["a/*/*=1", "a/x/1=1", "a/x/*=2"]);
    check(0, 1, &["a", "b"], &["=2"]);
}

#[test]
fn keeps_the_first_values_of_a_day() {
    let plan = counting(2, 1_000, [Some(2), None, None]);
    let events = ["/x", "a/x", "b/y", "__other__/y", "a/z"];
    assert_eq!(kept(&plan, &events), ["/x=1", "*/y=2", "a/x=1", "a/z=1"], "no value is a value too");
}

#[test]
fn says_how_full_its_limits_are_and_which_values_there_are() {
    let plan = counting(2, 2, [None, Some(1), None]);
    let (store, mut model) = (MemoryStore::new(), Model::default());
    // The limit of `d1` makes `c/__other__` of `c/y`, which is kept on top of the limit as it is; `c/x` becomes that.
    for values in [["a", "x"], ["b", "x"], ["c", "y"], ["c", "y"], ["c", "x"]] {
        let values = [values[0].to_owned(), values[1].to_owned(), String::new()];
        let event = [Event { minute: Minute(1440), values, amount: 1.0, user: 1 }];
        store.apply(suite::delta(&plan, &model, &event)).unwrap();
        model.apply(&plan, &event, 1);
    }
    let fingerprint = plan.metrics[0].fingerprint;
    assert_eq!(store.limits().metrics, [MetricLimit { fingerprint, day: 1, kept: 2, limit: 2, over: 1 }]);
    let dimension = "d1".into();
    assert_eq!(store.limits().dimensions, [DimensionLimit { dimension, day: 1, kept: 1, limit: 1, over: 2 }]);
    let values = |name| store.dimension_values(name, 2).unwrap();
    assert_eq!(values("d0"), [("c".into(), 3), ("a".into(), 1)]);
    assert_eq!(values("d1"), [("x".into(), 3), (OTHER.into(), 2)]);
    assert_eq!(values("no such"), []);
    assert!(store.bytes() > 0);
}

#[test]
fn a_delta_of_positions_alone_moves_them() {
    let (store, plan) = (MemoryStore::new(), suite::plan());
    let mut delta = suite::delta(&plan, &Model::default(), &[]);
    delta.sources[0].to = 5;
    assert_eq!(store.apply(delta).unwrap(), 0);
    let next: Vec<u64> = store.positions().unwrap().iter().map(|position| position.next).collect();
    assert_eq!(next, [5, 0]);
}

#[test]
fn values_that_nothing_uses_any_more_are_forgotten() {
    let plan = counting(2, 3_000, [None; 3]);
    let (store, mut model) = (MemoryStore::new(), Model::default());
    let apply = |model: &mut Model, day: u32, from: u32, count: u32| {
        let event = |n| Event {
            minute: Minute(day * 1440),
            values: [format!("v{n}"), format!("w{}", n % 10), String::new()],
            amount: 1.0,
            user: 1,
        };
        let events: Vec<Event> = (from..from + count).map(event).collect();
        store.apply(suite::delta(&plan, model, &events)).unwrap();
        model.apply(&plan, &events, 1);
    };
    apply(&mut model, 1, 0, 2_000);
    apply(&mut model, 3, 1_990, 100);
    let values = |store: &MemoryStore| store.read_state().dimensions["d0"].values.texts.len();
    assert_eq!(values(&store), 2_092);
    store.close_up_to(Minute(3 * 1440));
    assert_eq!(store.evict(Minute(2 * 1440)), Minute(1440), "history does not have it");
    store.note_saved(&store.snapshot());
    assert_eq!(store.evict(Minute(2 * 1440)), Minute(2 * 1440));
    assert_eq!(values(&store), 102);
    let mut request = suite::request(&plan, 0, vec![Minute(1440)..Minute(4 * 1440)], Resolution::Minute);
    request.by = vec![0, 1];
    let mut expected = model.read(0, &request);
    expected.retain(|(_, minute), _| *minute == 3 * 1440);
    assert_eq!(suite::flatten(&store.read(&request).unwrap()), expected);
    apply(&mut model, 3, 2_050, 100);
    let read = suite::flatten(&store.read(&request).unwrap());
    assert_eq!(read.len(), 160, "and new ones get numbers");
}

#[test]
fn a_damaged_pane_is_an_error_and_never_a_panic() {
    let (store, plan) = (MemoryStore::new(), suite::plan());
    let mut random = StdRng::seed_from_u64(1);
    let events = suite::random_events(&mut random, 100..102);
    store.apply(suite::delta(&plan, &Model::default(), &events)).unwrap();
    for pane in &store.snapshot().panes {
        let bytes = pane.encode().unwrap();
        let decoded = decode(&bytes, Wanted::All).unwrap();
        assert_eq!(
            (decoded.full.len(), decoded.margins.len()),
            (pane.pane.full.rows.len(), pane.pane.margins.rows.len())
        );
        for (wanted, full, margins) in [(Wanted::Full, true, false), (Wanted::Margins, false, true)] {
            let part = decode(&bytes, wanted).unwrap();
            assert_eq!(part.full == decoded.full && part.pane.full == decoded.pane.full, full);
            let same = part.margins == decoded.margins && part.pane.margins == decoded.pane.margins;
            assert!(same == margins || decoded.margins.len() == 0);
        }
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut], Wanted::All).is_err());
        }
        // Damage behind the compression's own checks: other parts under right lengths.
        let parts = parts(&bytes);
        for _ in 0..3_000 {
            let mut damaged = parts.clone();
            for _ in 0..random.random_range(1..4) {
                let part = &mut damaged[random.random_range(0..2)];
                let at = random.random_range(0..part.len());
                part[at] = if random.random_bool(0.5) { random.random() } else { 0xff };
            }
            let mut bytes = vec![1];
            for part in damaged {
                let compressed = zstd::bulk::compress(&part, 1).unwrap();
                bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
                bytes.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
                bytes.extend(compressed);
            }
            let _ = decode(&bytes, Wanted::All);
        }
    }
}

fn parts(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &bytes[1..];
    let mut next = || {
        let compressed = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let part = zstd::bulk::decompress(&rest[8..8 + compressed], 1 << 20).unwrap();
        rest = &rest[8 + compressed..];
        part
    };
    vec![next(), next()]
}
