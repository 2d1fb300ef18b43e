//! Several hosts on one Redis, with everything that can go wrong between them: in the end the state is what the memory store has
//! that was fed once.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidemark_services::{Proxy, Service};

use super::*;
use crate::engine::delta::{GROUP_ALL, SourceRange};
use crate::engine::plan::Plan;
use crate::store::suite::{Approximate, Event};
use crate::store::{Resolution, memory};

const MINUTES: std::ops::Range<u32> = 2 * 1440 - 20..2 * 1440 + 20;

/// Without limits: who comes first depends on the order in which hosts come, and refused deltas have asked too.
pub fn unlimited() -> Arc<Plan> {
    let mut plan = Arc::into_inner(suite::plan()).unwrap();
    plan.metrics.iter_mut().for_each(|metric| metric.limit = 1_000_000);
    plan.dimensions.iter_mut().for_each(|dimension| dimension.limit = None);
    Arc::new(plan)
}

/// What is in a partition, all of it to be read again at any time.
struct Log {
    events: Vec<Vec<Event>>,
}

impl Log {
    fn new(random: &mut StdRng, partitions: usize) -> Self {
        let mut partition = |_| {
            let mut events = Vec::new();
            while events.len() < 300 {
                events.extend(suite::random_events(random, MINUTES));
            }
            events
        };
        Self { events: (0..partitions).map(&mut partition).collect() }
    }

    fn delta(&self, plan: &Arc<Plan>, partition: usize, from: u64, count: usize) -> Delta {
        let events = &self.events[partition][from as usize..];
        let events = &events[..count.min(events.len())];
        let (source, to) = (partition as SourceId, from + events.len() as u64);
        Delta {
            sources: vec![SourceRange { group: GROUP_ALL, source, from, to, arrival: 1_000_000 }],
            partials: vec![suite::partial(plan, events)],
        }
    }

    fn ended(&self, positions: &BTreeMap<SourceId, u64>) -> bool {
        let at = |partition: usize| positions.get(&(partition as SourceId)).copied().unwrap_or(0);
        (0..self.events.len()).all(|partition| at(partition) == self.events[partition].len() as u64)
    }
}

/// A host as far as the store sees it.
struct Worker {
    store: RedisStore,
    proxy: Proxy,
    /// Where it goes on in the partitions that it takes for its own.
    next: BTreeMap<SourceId, u64>,
}

impl Worker {
    fn start(server: &Service, prefix: &str) -> Self {
        let proxy = Proxy::before(server.port).unwrap();
        let store = store(proxy.port, prefix);
        Self { store, proxy, next: BTreeMap::new() }
    }

    fn take(&mut self, sources: &[SourceId]) -> Result<(), StoreError> {
        self.store.take_over(sources)?;
        let stored = stored(&self.store)?;
        self.next.extend(sources.iter().map(|source| (*source, stored.get(source).copied().unwrap_or(0))));
        Ok(())
    }

    /// Counts some more of a partition. What an error says is what a host does.
    fn work(&mut self, log: &Log, plan: &Arc<Plan>, partition: usize, count: usize) {
        let source = partition as SourceId;
        let Some(&from) = self.next.get(&source) else { return };
        if self.store.waiting() > 0 {
            let outcome = self.store.settle();
            return self.follow(outcome);
        }
        let delta = log.delta(plan, partition, from, count);
        let to = delta.sources[0].to;
        self.next.insert(source, to);
        let outcome = self.store.apply(delta).map(drop);
        self.follow(outcome);
    }

    fn follow(&mut self, outcome: Result<(), StoreError>) {
        match outcome {
            // What waits is settled before more is cut.
            Ok(()) | Err(StoreError::Unavailable(_)) => {}
            // Taken over: no longer its own.
            Err(StoreError::Fenced { source_id, .. }) => {
                self.next.remove(&source_id);
                self.rewind();
            }
            Err(StoreError::Position { .. }) => self.rewind(),
            Err(StoreError::Restarted) => {
                let own: Vec<SourceId> = self.next.keys().copied().collect();
                // Where this fails, the next delta is refused, and it is tried again.
                let _ = self.take(&own);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn rewind(&mut self) {
        if let Ok(stored) = stored(&self.store) {
            self.next.iter_mut().for_each(|(source, next)| *next = stored.get(source).copied().unwrap_or(0));
        }
    }
}

fn stored(store: &RedisStore) -> Result<BTreeMap<SourceId, u64>, StoreError> {
    Ok(store.positions()?.iter().map(|at| (at.source, at.next)).collect())
}

/// An answer by labels and step.
type Flat = BTreeMap<(Vec<String>, u32), Vec<Approximate>>;

/// All answers at the finest grouping, and the totals.
fn everything(store: &dyn StateReader, plan: &Plan) -> Vec<Flat> {
    let answer = |(metric, by): (usize, bool)| {
        let whole = Minute(MINUTES.start / 60 * 60)..Minute(MINUTES.end.next_multiple_of(60));
        let resolution = if by { Resolution::Minute } else { Resolution::Hour };
        let mut request = suite::request(plan, metric, vec![whole], resolution);
        if by {
            request.by = (0..request.dimensions).collect();
        }
        suite::flatten(&store.read(&request).unwrap())
    };
    (0..plan.metrics.len()).flat_map(|metric| [(metric, true), (metric, false)]).map(answer).collect()
}

fn fed_once(log: &Log, plan: &Arc<Plan>) -> memory::MemoryStore {
    let memory = memory::MemoryStore::new();
    for partition in 0..log.events.len() {
        memory.apply(log.delta(plan, partition, 0, usize::MAX)).unwrap();
    }
    memory
}

/// Random interleavings; `harm` does its worst now and then.
fn check(server: &mut Service, seed: u64, mut harm: impl FnMut(&mut StdRng, &mut Service, &mut [Worker])) {
    let mut random = StdRng::seed_from_u64(seed);
    let (plan, log) = (unlimited(), Log::new(&mut random, 4));
    let prefix = format!("hosts-{seed}");
    let mut workers: Vec<Worker> = (0..3).map(|_| Worker::start(server, &prefix)).collect();
    for partition in 0..4 {
        let _ = workers[partition % 3].take(&[partition as SourceId]);
    }
    let mut rounds = 0;
    loop {
        rounds += 1;
        assert!(rounds < 2_000, "seed {seed}: no end in sight");
        let calm = rounds > 150;
        if !calm && random.random_bool(0.15) {
            harm(&mut random, server, &mut workers);
        } else if calm {
            workers.iter().for_each(|worker| worker.proxy.mend());
        }
        let (worker, partition) = (random.random_range(0..3), random.random_range(0..4));
        if random.random_bool(0.1) {
            // A rebalance; whoever had it does not know yet.
            let _ = workers[worker].take(&[partition as SourceId]);
        }
        let count = random.random_range(1..40);
        workers[worker].work(&log, &plan, partition, count);
        if calm && stored(&workers[0].store).is_ok_and(|stored| log.ended(&stored)) {
            break;
        }
    }
    let expected = fed_once(&log, &plan);
    for worker in &workers {
        // Answers may still get lost, so many as were set up.
        assert!((0..5).any(|_| worker.store.sync().is_ok()), "seed {seed}");
        assert_eq!(everything(&worker.store, &plan), everything(&expected, &plan), "seed {seed}");
        let values = |store: &dyn StateReader| store.dimension_values("d1", 100).unwrap();
        assert_eq!(values(&worker.store), values(&expected), "seed {seed}");
    }
}

#[test]
fn zombies_and_repeats_change_nothing() {
    let mut server = server(&[]);
    for seed in 0..4 {
        check(&mut server, seed, |_, _, _| {});
    }
}

#[test]
fn lost_answers_are_found_out() {
    let mut server = server(&[]);
    let mut lost = 0;
    for seed in 100..106 {
        check(&mut server, seed, |random, _, workers| {
            let worker = &workers[random.random_range(0..3)];
            lost += worker.proxy.lost();
            match random.random_range(0..3) {
                0 => worker.proxy.cut(),
                1 => worker.proxy.mend(),
                _ => worker.proxy.lose_answers(random.random_range(1..4)),
            }
            if random.random_bool(0.3) {
                workers.iter().for_each(|worker| worker.proxy.mend());
            }
        });
    }
    assert!(lost > 0, "some were lost");
}

#[test]
fn a_redis_that_begins_again_is_filled_again() {
    let mut server = server(&[]);
    for seed in 200..204 {
        check(&mut server, seed, |random, server, _| match random.random_range(0..4) {
            0 => super::faults::command(server.port, &["FLUSHALL"]),
            // As of now: a later start goes back to it.
            1 => drop(super::faults::command::<String>(server.port, &["SAVE"])),
            2 => {
                server.kill().unwrap();
                server.start_again().unwrap();
            }
            _ => super::faults::command(server.port, &["SCRIPT", "FLUSH"]),
        });
    }
}

/// Writes history of a host into a folder of its own, as far as minutes are closed.
fn write_history(store: &RedisStore) {
    let folder = suite::Folder::new("redis-history");
    let embedded = crate::store::embedded::Embedded::open(&folder.0).unwrap();
    embedded.write_history(&store.mirror(), None, &|| Ok(())).unwrap();
}

fn event(minute: u32) -> Event {
    Event { minute: Minute(minute), values: ["a".into(), "b".into(), "c".into()], amount: 1.0, user: 7 }
}

fn apply(store: &RedisStore, plan: &Arc<Plan>, source: SourceId, from: u64, minutes: &[u32]) {
    let events: Vec<Event> = minutes.iter().map(|minute| event(*minute)).collect();
    let to = from + events.len() as u64;
    let sources = vec![SourceRange { group: GROUP_ALL, source, from, to, arrival: 1 }];
    store.apply(Delta { sources, partials: vec![suite::partial(plan, &events)] }).unwrap();
}

/// Combinations that it shows of a minute.
fn shown(store: &RedisStore, plan: &Plan, minute: u32) -> usize {
    let mut request = suite::request(plan, 0, vec![Minute(minute)..Minute(minute + 1)], Resolution::Minute);
    request.by = (0..request.dimensions).collect();
    suite::flatten(&store.read(&request).unwrap()).len()
}

#[test]
fn a_closed_minute_is_whole_on_every_host() {
    let server = server(&[]);
    let [one, other] = [(); 2].map(|()| store(server.port, "closed"));
    let plan = unlimited();
    one.take_over(&[0]).unwrap();
    other.take_over(&[1]).unwrap();
    apply(&one, &plan, 0, 0, &[700]);
    one.close_up_to(Minute(1_000), None).unwrap();
    assert_eq!((shown(&other, &plan, 700), other.provisional_from()), (0, Minute(0)), "it has not looked since");
    assert_eq!(other.close_up_to(Minute(1_000), None).unwrap(), Minute(1_000));
    assert_eq!((shown(&other, &plan, 700), other.provisional_from()), (1, Minute(1_000)));
}

#[test]
fn a_minute_is_dropped_when_no_host_needs_it() {
    let server = server(&[]);
    let [fast, slow] = [(); 2].map(|()| store(server.port, "needed"));
    let plan = unlimited();
    // Both are past minute 3000, but the slow one stands at events that may be as old as minute 600.
    fast.take_over(&[0]).unwrap();
    slow.take_over(&[1]).unwrap();
    apply(&fast, &plan, 0, 0, &[100, 700, 2_900]);
    apply(&slow, &plan, 1, 0, &[101]);
    slow.close_up_to(Minute(3_000), None).unwrap();
    fast.close_up_to(Minute(3_000), None).unwrap();
    fast.sync().unwrap();
    write_history(&fast);
    let whole_from = |now: Millis| {
        fast.meet("fast", "", false, now).unwrap();
        fast.forget_unneeded(Minute(2_000), true).unwrap();
        fast.complete_from()
    };
    assert_eq!(slow.meet("slow", "", false, 0).unwrap(), Others::default());
    assert_eq!(whole_from(1), Minute(0), "the slow one has not said what it needs");
    slow.forget_unneeded(Minute(630), false).unwrap();
    slow.meet("slow", "", false, 2).unwrap();
    assert_eq!(whole_from(3), Minute(600));
    // Its late event is not lost.
    apply(&slow, &plan, 1, 1, &[700]);
    assert_eq!(slow.dropped_cells(), 0);
    assert_eq!((shown(&slow, &plan, 101), shown(&slow, &plan, 700)), (0, 1));
    // What is not written is needed, whatever the others say.
    fast.sync().unwrap();
    slow.forget_unneeded(Minute(1_900), false).unwrap();
    slow.meet("slow", "", false, 4).unwrap();
    assert_eq!(whole_from(5), Minute(660));
    write_history(&fast);
    assert_eq!(whole_from(6), Minute(1_860));
    // One that ends says so; one that stands still is not waited for for ever.
    let met = |now: Millis| {
        let others = fast.meet("fast", "", false, now).unwrap();
        (others.digests.len(), others.full)
    };
    assert_eq!(met(7), (1, false));
    slow.leave("slow").unwrap();
    assert_eq!(whole_from(8), Minute(1_980));
    slow.meet("slow", "", false, 9).unwrap();
    assert_eq!(met(60_009), (1, false));
    assert_eq!(met(60_010), (0, false));
    slow.meet("slow", "", true, 60_011).unwrap();
    assert_eq!(met(60_012), (1, true));
}
