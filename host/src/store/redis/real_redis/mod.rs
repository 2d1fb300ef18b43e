//! Against a real redis-server: the suite of all hot stores, several hosts, and everything that fails.

use std::sync::atomic::AtomicU64;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidemark_services::{Kind, Service};

use super::*;
use crate::store::suite;

mod faults;
mod hosts;
mod measure;
mod raw;
mod reading;

/// Without the append-only file: what is lost with the process is what these tests want lost.
pub fn server(arguments: &[&str]) -> Service {
    Service::start_with(Kind::Redis, &[&["--appendonly", "no"], arguments].concat()).unwrap()
}

pub fn settings(port: u16, prefix: &str) -> Settings {
    let mut settings = Settings::new(format!("redis://127.0.0.1:{port}"), Clock::manual(0));
    settings.prefix = prefix.into();
    settings
}

pub fn store(port: u16, prefix: &str) -> RedisStore {
    RedisStore::open(settings(port, prefix)).unwrap()
}

#[test]
fn is_a_hot_store() {
    let server = server(&[]);
    let number = AtomicU64::new(0);
    let make = || store(server.port, &format!("suite-{}", number.fetch_add(1, Relaxed)));
    suite::hot_store(make, 0..40, false);
}

#[test]
fn counts_what_is_over_a_limit_as_memory_does() {
    let server = server(&[]);
    let (redis, memory, plan) = (store(server.port, "over"), MemoryStore::new(), suite::plan());
    let (mut random, mut model) = (StdRng::seed_from_u64(7), suite::Model::default());
    for _ in 0..20 {
        let events = suite::random_events(&mut random, 100..110);
        redis.apply(suite::delta(&plan, &model, &events)).unwrap();
        memory.apply(suite::delta(&plan, &model, &events)).unwrap();
        model.apply(&plan, &events, 0);
    }
    let over: u64 = memory.limits().metrics.iter().map(|metric| metric.over).sum();
    assert_eq!((redis.over(), over > 0), (over, true));
}

/// All keys have one hash tag: a node that has its slot is enough.
#[test]
fn is_a_hot_store_on_a_cluster_of_one_node() {
    let server = server(&["--cluster-enabled", "yes"]);
    faults::command::<()>(server.port, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !faults::command::<String>(server.port, &["CLUSTER", "INFO"]).contains("cluster_state:ok") {
        assert!(std::time::Instant::now() < until, "the cluster does not come up");
        std::thread::yield_now();
    }
    let number = AtomicU64::new(0);
    let make = || store(server.port, &format!("cluster-{}", number.fetch_add(1, Relaxed)));
    suite::hot_store(make, 40..44, false);
    let store = store(server.port, "cluster-0");
    assert!(store.write_readable().unwrap() > 0);
    store.forget_before(Minute(2 * 1440)).unwrap();
}
