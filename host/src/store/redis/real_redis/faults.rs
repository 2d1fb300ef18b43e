//! Redis that does not answer, is full, takes no writes, is emptied or goes back in time.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidemark_services::Service;

use super::*;
use crate::engine::plan::Plan;
use crate::store::suite::{Event, Model};

/// A command past the store.
pub fn command<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> T {
    let mut connection = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap().get_connection().unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
}

/// A store with a short deadline, and what it should hold.
struct Fed {
    store: RedisStore,
    plan: Arc<Plan>,
    model: Model,
    random: StdRng,
}

impl Fed {
    fn new(server: &Service, prefix: &str) -> Self {
        let mut settings = settings(server.port, prefix);
        settings.deadline_ms = 300;
        let store = RedisStore::open(settings).unwrap();
        Self { store, plan: suite::plan(), model: Model::default(), random: StdRng::seed_from_u64(5) }
    }

    /// One more delta. The model has it whatever the store says.
    fn feed(&mut self) -> Result<Seq, StoreError> {
        let events: Vec<Event> = suite::random_events(&mut self.random, 100..110);
        let outcome = self.store.apply(suite::delta(&self.plan, &self.model, &events));
        self.model.apply(&self.plan, &events, 0);
        outcome
    }

    fn check(&self) {
        for metric in 0..self.plan.metrics.len() {
            let mut request =
                suite::request(&self.plan, metric, vec![Minute(60)..Minute(120)], crate::store::Resolution::Minute);
            request.by = (0..request.dimensions).collect();
            let answer = suite::flatten(&self.store.read(&request).unwrap());
            assert_eq!(answer, self.model.read(metric, &request));
        }
    }
}

/// `harm` makes the next delta wait, `mend` lets it in.
fn check(name: &str, server: &mut Service, expected: &str, harm: impl Fn(&mut Service), mend: impl Fn(&mut Service)) {
    let mut fed = Fed::new(server, name);
    fed.feed().unwrap();
    fed.check();
    let before = fed.model.clone();
    harm(server);
    let began = std::time::Instant::now();
    match fed.feed() {
        Err(StoreError::Unavailable(reason)) => assert!(reason.contains(expected), "{name}: {reason}"),
        other => panic!("{name}: {other:?}"),
    }
    assert!(began.elapsed().as_secs() < 5, "{name}: there is a deadline");
    assert_eq!(fed.store.waiting(), 1);
    assert!(fed.store.sync().is_err() || expected.contains("OOM") || expected.contains("ReadOnly"));
    if expected == "in time" {
        assert!(!fed.store.is_news(Seq::MAX), "what is heard of now would only make the tick wait for the mirror");
    }
    // What was there is answered from the mirror.
    let after = std::mem::replace(&mut fed.model, before);
    fed.check();
    fed.model = after;
    mend(server);
    fed.store.settle().unwrap();
    assert_eq!((fed.store.waiting(), fed.store.stale()), (0, None));
    assert!(fed.store.is_news(Seq::MAX) && !fed.store.is_news(1));
    fed.check();
    fed.feed().unwrap();
    fed.check();
}

#[test]
fn a_frozen_redis_does_not_hang_the_host() {
    let mut server = server(&[]);
    check("frozen", &mut server, "in time", |server| server.freeze().unwrap(), |server| server.thaw().unwrap());
}

#[test]
fn a_full_redis_takes_the_delta_when_there_is_room() {
    let mut server = server(&[]);
    check(
        "full",
        &mut server,
        "OOM",
        |server| command(server.port, &["CONFIG", "SET", "maxmemory", "100000"]),
        |server| command(server.port, &["CONFIG", "SET", "maxmemory", "0"]),
    );
}

#[test]
fn a_redis_that_takes_no_writes_takes_the_delta_when_it_does() {
    let mut server = server(&[]);
    check(
        "replica",
        &mut server,
        "ReadOnly",
        |server| command(server.port, &["REPLICAOF", "127.0.0.1", "1"]),
        |server| command(server.port, &["REPLICAOF", "NO", "ONE"]),
    );
}

#[test]
fn a_redis_that_forgot_its_functions_is_told_them_again() {
    let server = server(&[]);
    let mut fed = Fed::new(&server, "functions");
    for _ in 0..3 {
        fed.feed().unwrap();
        command::<()>(server.port, &["SCRIPT", "FLUSH"]);
    }
    fed.check();
}

#[test]
fn a_redis_that_drops_keys_is_refused() {
    let server = server(&[]);
    command::<()>(server.port, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let refused = RedisStore::open(settings(server.port, "policy")).err().unwrap().to_string();
    assert!(refused.contains("maxmemory-policy noeviction"), "{refused}");
}

#[test]
fn an_emptied_redis_is_noticed_and_filled_again() {
    let server = server(&[]);
    let mut fed = Fed::new(&server, "emptied");
    // The delta that is refused has asked for places already.
    fed.plan = super::hosts::unlimited();
    fed.store.take_over(&[0, 1]).unwrap();
    fed.feed().unwrap();
    let seq = HotStore::seq(&fed.store);
    assert!(!fed.store.began_again());
    command::<()>(server.port, &["FLUSHALL"]);
    assert!(matches!(fed.feed(), Err(StoreError::Restarted)));
    fed.store.sync().unwrap();
    assert!(fed.store.began_again() && !fed.store.began_again());
    assert_eq!(fed.store.positions().unwrap(), []);
    fed.store.take_over(&[0, 1]).unwrap();
    fed.model = Model::default();
    for _ in 0..3 {
        fed.feed().unwrap();
    }
    fed.check();
    assert!(HotStore::seq(&fed.store) > 0 && seq > 0);
}

#[test]
fn what_belongs_to_another_log_is_refused() {
    let server = server(&[]);
    let store = store(server.port, "log");
    store.bind("journal a").unwrap();
    store.bind("journal a").unwrap();
    let refused = store.bind("journal b").unwrap_err().to_string();
    assert!(refused.contains("journal a"), "{refused}");
}

#[test]
fn one_host_at_a_time_does_a_job() {
    let server = server(&[]);
    let store = store(server.port, "lease");
    let (a, b) = (Lease::new("history", 60_000), Lease::new("history", 60_000));
    let first = store.take(&a).unwrap().unwrap();
    assert_eq!((store.take(&a).unwrap(), store.take(&b).unwrap()), (Some(first), None));
    store.give_back(&b).unwrap();
    assert_eq!(store.take(&b).unwrap(), None);
    store.give_back(&a).unwrap();
    let second = store.take(&b).unwrap().unwrap();
    assert!(second > first, "{second} after {first}");
    let short = Lease::new("short", 50);
    assert!(store.take(&short).unwrap().is_some());
    let other = Lease::new("short", 50);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while store.take(&other).unwrap().is_none() {
        assert!(std::time::Instant::now() < until, "a lease ends");
        std::thread::yield_now();
    }
}

#[test]
fn a_minute_closes_when_all_sources_are_past_it() {
    let server = server(&[]);
    let (store, zombie) = (store(server.port, "close"), self::store(server.port, "close"));
    zombie.take_over(&[0, 1, 2]).unwrap();
    store.take_over(&[0, 1]).unwrap();
    assert_eq!(store.close_up_to(Minute(100), None).unwrap(), Minute(0), "2 has not said so");
    assert_eq!(zombie.close_up_to(Minute(90), None).unwrap(), Minute(90), "0 and 1 stay where their owner is");
    assert_eq!(zombie.close_up_to(Minute(200), None).unwrap(), Minute(100), "0 and 1 are no longer its own");
    assert_eq!(store.close_up_to(Minute(50), None).unwrap(), Minute(100), "never opens again");
    assert_eq!(store.provisional_from(), Minute(100));
    assert_eq!(zombie.close_up_to(Minute(200), None).unwrap(), Minute(100));
    assert_eq!(store.close_up_to(Minute(300), Some(&[1, 2])).unwrap(), Minute(100), "0 was only taken, 2 is another's");
    assert_eq!(store.close_up_to(Minute(150), Some(&[0])).unwrap(), Minute(150));
}

#[test]
fn others_hear_of_changes() {
    let server = server(&[]);
    let mut fed = Fed::new(&server, "heard");
    let other = Arc::new(store(server.port, "heard"));
    let (heard, hears) = std::sync::mpsc::channel();
    let listening = other.clone();
    let subscription = other
        .subscribe(move |_| {
            listening.sync().unwrap();
            let _ = heard.send(HotStore::seq(&*listening));
        })
        .unwrap();
    let within = std::time::Duration::from_secs(20);
    hears.recv_timeout(within).unwrap();
    let seq = fed.feed().unwrap();
    while hears.recv_timeout(within).unwrap() < seq {}
    drop(subscription);
    fed.store = Arc::into_inner(other).unwrap();
    fed.check();
}

#[test]
fn what_is_dropped_stays_dropped() {
    let server = server(&[]);
    let mut fed = Fed::new(&server, "floor");
    let event = |minute: u32| {
        let values = [minute.to_string(), "b0".into(), "c0".into()];
        Event { minute: Minute(minute), values, amount: 1.0, user: u64::from(minute) }
    };
    let apply = |fed: &mut Fed, minutes: &[u32]| {
        let events: Vec<Event> = minutes.iter().map(|minute| event(*minute)).collect();
        fed.store.apply(suite::delta(&fed.plan, &fed.model, &events)).unwrap();
        fed.model.apply(&fed.plan, &events, 0);
    };
    apply(&mut fed, &[100, 1300, 1500, 1501]);
    assert_eq!(fed.store.forget_before(Minute(1500)).unwrap(), Minute(1500));
    // A late one for a minute that was dropped: nothing of it is kept, all else is.
    let seq = HotStore::seq(&fed.store);
    apply(&mut fed, &[100, 1501, 1502]);
    assert_eq!(fed.store.dropped_cells(), 5, "one a metric that counts it");
    let mirrors = [fed.store.mirror(), store(server.port, "floor").mirror()];
    for mirror in mirrors {
        assert_eq!(mirror.complete_from(), Minute(1500));
        for metric in 0..fed.plan.metrics.len() {
            let ranges = vec![Minute(0)..Minute(3_000)];
            let mut request = suite::request(&fed.plan, metric, ranges, crate::store::Resolution::Minute);
            request.by = (0..request.dimensions).collect();
            let mut expected = fed.model.read(metric, &request);
            expected.retain(|(_, minute), _| *minute >= 1500);
            assert_eq!(suite::flatten(&mirror.read(&request).unwrap()), expected);
        }
        let events = [fed.plan.metrics[0].fingerprint];
        assert_eq!(HotStore::changed_since(&*mirror, &events, 0).unwrap(), None);
        assert_eq!(HotStore::changed_since(&*mirror, &events, seq).unwrap(), Some(vec![Minute(1501), Minute(1502)]));
    }
    let keys: Vec<String> = command(server.port, &["KEYS", "*"]);
    let old: Vec<&String> = keys.iter().filter(|key| key.contains(":100:") || key.ends_with(":100")).collect();
    assert!(old.is_empty(), "{old:?}");
}
