//! What others read with Redis's own commands, and sketches that grow.

use std::sync::Arc;

use super::faults::command;
use super::*;
use crate::engine::plan::Plan;
use crate::store::StateColumn;
use crate::store::memory::MemoryStore;
use crate::store::suite::{Event, Model};

fn users(minute: u32, range: std::ops::Range<u64>) -> Vec<Event> {
    let event = |user: u64| Event {
        minute: Minute(minute),
        values: [if user.is_multiple_of(4) { "de" } else { "us" }.into(), "b0".into(), format!("c{}", user % 3)],
        amount: user as f64 / 4.0,
        user,
    };
    range.map(event).collect()
}

/// A store and the memory store, fed with the same.
struct Both {
    store: RedisStore,
    memory: MemoryStore,
    plan: Arc<Plan>,
    model: Model,
}

impl Both {
    fn new(port: u16, prefix: &str) -> Self {
        Self {
            store: store(port, prefix),
            memory: MemoryStore::new(),
            plan: suite::plan_with_summaries(),
            model: Model::default(),
        }
    }

    fn feed(&mut self, events: &[Event]) {
        self.store.apply(suite::delta(&self.plan, &self.model, events)).unwrap();
        self.memory.apply(suite::delta(&self.plan, &self.model, events)).unwrap();
        self.model.apply(&self.plan, events, 0);
    }

    fn check(&self) {
        for metric in 0..self.plan.metrics.len() {
            let range = vec![Minute(60)..Minute(180)];
            let mut request = suite::request(&self.plan, metric, range, crate::store::Resolution::Minute);
            for by in 0..=request.dimensions {
                request.by = (0..by).collect();
                let read = |store: &dyn StateReader| suite::flatten(&store.read(&request).unwrap());
                assert_eq!(read(&self.store), read(&self.memory), "{}", self.plan.metrics[metric].name);
            }
        }
    }
}

#[test]
fn sketches_grow_from_entries_to_registers_as_in_memory() {
    let server = server(&[]);
    let mut both = Both::new(server.port, "sketches");
    for range in [0..2_000, 1_000..3_000, 0..3_000, 2_500..6_000, 0..10, 5_000..20_000, 19_000..21_000] {
        both.feed(&users(100, range));
        both.check();
    }
    // What has become registers is no longer kept as entries.
    let total = format!("{}:100", both.plan.metrics[5].fingerprint);
    let left: Option<Vec<u8>> = command(server.port, &["HGET", &format!("{{sketches}}:u:{total}:0:f:0"), "0"]);
    assert!(left.is_none_or(|entries| entries.len() < 16_384), "folded");
    let dense: Vec<u8> = command(server.port, &["GET", &format!("{{sketches}}:d:{total}:0:f:0")]);
    assert_eq!(dense.len(), 12_304);
    // A host that comes later reads the same.
    both.store = store(server.port, "sketches");
    both.check();
}

#[test]
fn others_read_minutes_sums_and_uniques() {
    let server = server(&[]);
    let mut both = Both::new(server.port, "read");
    for range in [0..1_500u64, 1_000..4_000, 0..30_000] {
        let exact = range.end;
        both.feed(&users(100, range));
        both.feed(&users(101, 0..10));
        assert!(both.store.write_readable().unwrap() > 0);
        assert_eq!(both.store.write_readable().unwrap(), 0, "once is enough");
        let text = |words: &[&str]| command::<String>(server.port, words);
        let count = text(&["HGET", "{read}:minute:events:count:6000", "total"]);
        assert_eq!(count, both.total(0, 0));
        assert_eq!(text(&["HGET", "{read}:minute:events:sum:6000", "total"]), both.total(0, 1));
        let error = |counted: u64, exact: u64| (counted as f64 / exact as f64 - 1.0).abs();
        let counted = command::<u64>(server.port, &["PFCOUNT", "{read}:uniq:users:6000"]);
        assert!(error(counted, exact) < 0.025, "{counted} for {exact}");
        let of_de = command::<u64>(server.port, &["PFCOUNT", "{read}:uniq:users:6000:d0=de"]);
        assert!(error(of_de, exact / 4) < 0.025, "{of_de} for {}", exact / 4);
        let two = command::<u64>(
            server.port,
            &["PFCOUNT", "{read}:uniq:users:6000:d0=de", "{read}:uniq:users:6000:d0=us", "{read}:uniq:users:6060"],
        );
        assert!(error(two, exact) < 0.025, "{two} for {exact}");
        println!("PFCOUNT {counted} for {exact}: {:.2} %", error(counted, exact) * 100.0);
    }
    let series: Vec<(String, u64)> =
        command(server.port, &["ZRANGE", "{read}:series:events:sum", "0", "-1", "WITHSCORES"]);
    let expected = |minute: u64| (format!("{}:{}", minute * 60, both.sum_of(minute as u32)), minute * 60);
    assert_eq!(series, [expected(100), expected(101)], "one member a minute");
    // Another host writes nothing older over it.
    assert_eq!(store(server.port, "read").write_readable().unwrap(), 0);
}

impl Both {
    /// A total of minute 100 as text.
    fn total(&self, metric: usize, slot: usize) -> String {
        match &self.states(metric, 100)[slot] {
            StateColumn::Count(states) => states[0].to_string(),
            StateColumn::Sum(states) => states[0].to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn sum_of(&self, minute: u32) -> String {
        match &self.states(0, minute)[1] {
            StateColumn::Sum(states) => states[0].to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn states(&self, metric: usize, minute: u32) -> Vec<StateColumn> {
        let range = vec![Minute(minute)..Minute(minute + 1)];
        let request = suite::request(&self.plan, metric, range, crate::store::Resolution::Minute);
        self.store.read(&request).unwrap().series.remove(0).states
    }
}
