//! Against a real redis-server: the suite of all hot stores, several hosts, and everything that fails.

use tidemark_services::{Kind, Service};

use super::*;
use crate::store::suite;

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
