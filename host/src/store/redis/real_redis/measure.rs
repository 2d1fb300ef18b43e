//! What it costs Redis: printed, and held to no call taking long. Run alone with `--nocapture` on a quiet machine for numbers.

use std::sync::Arc;

use super::faults::command;
use super::*;
use crate::engine::arith::Arith;
use crate::engine::delta::{GROUP_ALL, SourceRange};
use crate::engine::plan::{Plan, Slot};
use crate::store::suite::Event;

/// Eight metrics of one slot by three dimensions, and users by two.
fn plan() -> Arc<Plan> {
    let mut plan = Arc::into_inner(suite::plan()).unwrap();
    plan.dimensions.iter_mut().for_each(|dimension| dimension.limit = None);
    plan.groups = vec![vec![0, 1, 2], vec![0, 1]];
    let model = plan.metrics.remove(0);
    let metric = |(name, group, slot): (String, usize, Slot)| {
        let fingerprint = Fingerprint(xxhash_rust::xxh3::xxh3_64(name.as_bytes()));
        let (slots, limit) = (vec![slot], 50_000);
        crate::engine::plan::Metric { name, group, slots, limit, fingerprint, lineage: fingerprint, ..model.clone() }
    };
    let slot = |at: usize| if at.is_multiple_of(2) { Slot::Count } else { Slot::Sum(Arith::Leaf(0)) };
    let numbers = (0..8).map(|at| (format!("m{at}"), 0, slot(at)));
    plan.metrics = numbers.chain([("users".to_owned(), 1, Slot::Uniq(0))]).map(metric).collect();
    Arc::new(plan)
}

/// Each of so many combinations so often in a minute, with users from `from` on.
fn events(combinations: u64, each: u64, minute: u32, from: u64) -> Vec<Event> {
    let event = |at: u64| Event {
        minute: Minute(minute),
        values: [at % 50, at / 50 % 10, at / 500 % 20].map(|value| format!("value{value}")),
        amount: at as f64 / 8.0,
        user: from + at,
    };
    (0..each).flat_map(|time| (0..combinations).map(move |at| at + time * combinations)).map(event).collect()
}

fn apply(store: &RedisStore, plan: &Arc<Plan>, next: &mut u64, events: &[Event]) {
    let (from, to) = (*next, *next + 1);
    *next = to;
    let sources = vec![SourceRange { group: GROUP_ALL, source: 0, from, to, arrival: 0 }];
    store.apply(Delta { sources, partials: vec![suite::partial(plan, events)] }).unwrap();
}

/// Number, time, microseconds, command, client's address and name.
type Entry = (u64, u64, u64, Vec<Vec<u8>>, Vec<u8>, Vec<u8>);

/// Microseconds of the functions since the last time: of those that merge, and of all others.
fn calls(port: u16) -> [Vec<u64>; 2] {
    let entries: Vec<Entry> = command(port, &["SLOWLOG", "GET", "-1"]);
    command::<()>(port, &["SLOWLOG", "RESET"]);
    let mut calls = [Vec::new(), Vec::new()];
    for (_, _, us, words, ..) in entries {
        // The one function without arguments of its own.
        if words[0] == b"EVALSHA" {
            calls[usize::from(words.len() != 4)].push(us);
        }
    }
    calls.iter_mut().for_each(|calls| calls.sort_unstable());
    calls
}

fn info(port: u16, name: &str) -> f64 {
    let info: String = command(port, &["INFO", "everything"]);
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().parse().unwrap()
}

fn memory(port: u16) -> f64 {
    info(port, "used_memory")
}

/// Time on the processor, whatever else the machine does.
fn cpu_ms(port: u16) -> f64 {
    1e3 * (info(port, "used_cpu_user") + info(port, "used_cpu_sys"))
}

#[test]
fn an_apply_of_one_host_keeps_redis_from_others_for_moments_only() {
    let arguments = ["--slowlog-log-slower-than", "0", "--slowlog-max-len", "100000"];
    let server = server(&arguments);
    let (store, plan, mut next) = (store(server.port, "measure"), plan(), 0);
    calls(server.port);
    for round in 0..5u64 {
        let events = events(5_000, 30, 100 + round as u32 / 4, round * 50_000);
        let (began, cpu) = (std::time::Instant::now(), cpu_ms(server.port));
        apply(&store, &plan, &mut next, &events);
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_ms(server.port) - cpu);
        let [merges, others] = calls(server.port);
        let say = |calls: &[u64]| {
            let total = calls.iter().sum::<u64>() as f64 / 1e3;
            let at = |share: f64| calls[((calls.len() - 1) as f64 * share) as usize] as f64 / 1e3;
            format!("{} calls, {total:.1} ms, median {:.2}, slowest {:.2}", calls.len(), at(0.5), at(1.0))
        };
        println!(
            "apply {round}: {seconds:.3} s, {cpu:.0} ms of Redis with reading; merging: {}; other functions: {}",
            say(&merges),
            say(&others)
        );
        // By the processor's time: the clock's says what else the machine did.
        assert!(cpu / (merges.len() as f64) < 20.0, "parts are small");
    }
}

#[test]
fn a_day_fits_into_memory() {
    let server = server(&[]);
    let (store, plan, mut next) = (store(server.port, "memory"), plan(), 0);
    const MINUTES: u32 = 4;
    apply(&store, &plan, &mut next, &events(10_000, 1, 100, 0));
    let before = memory(server.port);
    for minute in 0..MINUTES {
        apply(&store, &plan, &mut next, &events(10_000, 1, 101 + minute, 0));
    }
    let state = (memory(server.port) - before) / f64::from(MINUTES);
    while store.write_readable().unwrap() > 0 {}
    let all = (memory(server.port) - before) / f64::from(MINUTES);
    println!(
        "a minute of 10,000 combinations, 8 metrics and users: {:.2} MB, with what others read {:.2} MB; 24 h of it {:.2} GB, {:.2} GB",
        state / 1e6,
        all / 1e6,
        state * 1440.0 / 1e9,
        all * 1440.0 / 1e9
    );
    assert!(all * 1440.0 < 8e9, "24 h fit into 8 GB");
}
