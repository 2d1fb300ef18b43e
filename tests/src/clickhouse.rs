//! A host with ClickHouse, from outside: history and raw events are there, each once, whatever dies in between; while it is
//! down events are taken all the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidemark_services::{Kind, Service};

use crate::host::{self, Home, Host, NDJSON, until};
use crate::services::with;

const ROUNDS: usize = 10;

pub const DEFINITIONS: &str = r#"
[event]
time = "ts"
key = "user"
id = "id"

[dimensions]
country = {}

[metrics]
events = "count()"
amount = "sum(x)"
users = "uniq(user)"
"#;

pub fn trials() -> Vec<Trial> {
    vec![
        with(Kind::ClickHouse, "clickhouse: every event once, whatever dies", every_event_once),
        with(Kind::ClickHouse, "clickhouse: down at the start, events are taken all the same", down_at_the_start),
        with(Kind::ClickHouse, "clickhouse: emptied behind the host's back, it is written again", emptied),
    ]
}

fn home(service: &Service) -> Result<Home> {
    let url = format!("http://{}/shop", service.address());
    Ok(Home::new(DEFINITIONS)?.with_flags(&["--clickhouse", &url, "--checkpoint", "200ms"]))
}

pub fn ask(service: &Service, sql: &str) -> Result<String> {
    let mut answer = host::agent().post(format!("http://{}/", service.address())).send(sql)?;
    let text = answer.body_mut().read_to_string()?;
    ensure!(answer.status() == 200, "{sql}: {text}");
    Ok(text.trim().to_owned())
}

/// What was sent and counted.
#[derive(Default)]
pub struct Sent {
    pub ids: usize,
    amount: usize,
}

impl Sent {
    /// A batch with what does not count in between: a line that is no event, an id that was there before, a late event.
    pub fn batch(&mut self, random: &mut SmallRng, at: i64) -> String {
        let mut body = String::new();
        for _ in 0..random.random_range(1..60) {
            let (id, x) = (self.ids, random.random_range(0..100));
            let ts = at + random.random_range(0..3_600_000);
            let event = |ts: i64| {
                let country = ["de", "us", "fr"][id % 3];
                format!(
                    "{{\"id\":\"e{id}\",\"ts\":{ts},\"user\":\"u{}\",\"x\":{x},\"country\":\"{country}\"}}\n",
                    id % 50
                )
            };
            match random.random_range(0..10) {
                0 => body.push_str("{ no event\n"),
                1 => body.push_str(&event(at - 3 * 86_400_000)),
                2 => body.push_str(&event(ts)),
                _ => {}
            }
            body.push_str(&event(ts));
            self.ids += 1;
            self.amount += x;
        }
        body
    }

    pub fn is_in(&self, service: &Service) -> Result<()> {
        self.raw_is_in(service)?;
        self.rollups_are_in(service)
    }

    pub fn raw_is_in(&self, service: &Service) -> Result<()> {
        is_made(service, "events")?;
        let raw = "SELECT count(), uniqExact(JSONExtractString(event, 'id')), toUInt64(sum(JSONExtractFloat(event, 'x'))) FROM shop.events";
        let expected = format!("{}\t{}\t{}", self.ids, self.ids, self.amount);
        until("raw events", || Ok((ask(service, raw)? == expected).then_some(())))
            .with_context(|| format!("{:?} instead of {expected}", ask(service, raw)))
    }

    fn rollups_are_in(&self, service: &Service) -> Result<()> {
        for table in ["minutes", "hours"] {
            is_made(service, table)?;
            let rollup = |metric: &str, column: &str| {
                let sql = format!(
                    "SELECT toUInt64(sum({column})) FROM shop.{table} FINAL WHERE metric = '{metric}' AND part = ''"
                );
                ask(service, &sql)
            };
            until(table, || Ok((rollup("events", "count")? == self.ids.to_string()).then_some(())))
                .with_context(|| format!("{table}: {:?} instead of {}", rollup("events", "count"), self.ids))?;
            ensure!(rollup("amount", "sum")? == self.amount.to_string(), "{table}: {:?}", rollup("amount", "sum"));
        }
        Ok(())
    }
}

/// Before a host has first written, and after somebody has dropped it, a table is not there.
fn is_made(service: &Service, table: &str) -> Result<()> {
    let there = || Ok(ask(service, &format!("SELECT count() FROM shop.{table}")).is_ok().then_some(()));
    until(table, there)
}

pub fn post(host: &Host, body: &str) -> Result<()> {
    let answer = host.post(body.as_bytes(), &[NDJSON])?;
    ensure!(answer.status == 202, "{} {}", answer.status, answer.text);
    Ok(())
}

/// An hour that is closed, so that it goes to history at once.
pub fn closed_hour() -> i64 {
    (host::now_ms() / 3_600_000 - 2) * 3_600_000
}

fn every_event_once() -> Result<()> {
    let mut service = Service::start(Kind::ClickHouse)?;
    let home = home(&service)?;
    let random = &mut SmallRng::seed_from_u64(4);
    let (hour, mut sent) = (closed_hour(), Sent::default());
    for _ in 0..ROUNDS {
        let host = home.start_ready()?;
        for _ in 0..random.random_range(1..12) {
            post(&host, &sent.batch(random, hour))?;
            std::thread::park_timeout(Duration::from_millis(random.random_range(0..120)));
        }
        match random.random_range(0..4) {
            0 => service.kill()?,
            1 => service.stop().map(drop)?,
            _ => {}
        }
        post(&host, &sent.batch(random, hour))?;
        if random.random_bool(0.8) {
            host.kill()?
        } else {
            host.stop()?
        }
        if !service.runs() {
            service.start_again()?;
        }
    }
    let host = home.start_ready()?;
    sent.is_in(&service).with_context(|| host.log())?;
    host.stop()?;
    sent.is_in(&service)
}

fn down_at_the_start() -> Result<()> {
    let mut service = Service::start(Kind::ClickHouse)?;
    service.stop()?;
    let home = home(&service)?;
    let host = home.start_ready()?;
    let (random, mut sent) = (&mut SmallRng::seed_from_u64(5), Sent::default());
    post(&host, &sent.batch(random, closed_hour()))?;
    let impaired = || -> Result<_> { Ok(host.get_json("/health/ready")?["impaired"].as_array().map(Vec::len)) };
    until("both to be said", || Ok((impaired()? == Some(2)).then_some(())))?;
    let metrics = host.get("/metrics")?.text;
    ensure!(
        metrics.contains("tidemark_history_behind 1") && metrics.contains("tidemark_raw_events_behind 1"),
        "{metrics}"
    );
    let total: f64 = host.sums("metric=events&step=1h")?.values().sum();
    ensure!(total == sent.ids as f64, "hot answers: {total}");
    let old = host.get("/v1/query?metric=events&from=-72h&to=-60h&step=1h")?;
    ensure!(old.status == 503 && old.text.contains("cannot be reached"), "{} {}", old.status, old.text);
    service.start_again()?;
    until("nothing to be wrong", || Ok(impaired()?.is_none().then_some(())))?;
    sent.is_in(&service)?;
    let old = host.get("/v1/query?metric=events&from=-72h&to=-60h&step=1h")?;
    ensure!(old.status == 200, "{} {}", old.status, old.text);
    // Frozen: a start waits for nothing that it does not need.
    service.freeze()?;
    host.kill()?;
    let host = home.start_ready()?;
    post(&host, &sent.batch(random, closed_hour()))?;
    service.thaw()?;
    sent.is_in(&service)?;
    host.stop()
}

/// Tables and database go while the host runs and while it does not; what hot and the journal have comes back, each once.
fn emptied() -> Result<()> {
    let service = Service::start(Kind::ClickHouse)?;
    let home = home(&service)?;
    let random = &mut SmallRng::seed_from_u64(6);
    let (hour, mut sent) = (closed_hour(), Sent::default());
    let mut host = home.start_ready()?;
    for (round, harm) in [
        &["DROP DATABASE shop"][..],
        &["TRUNCATE TABLE shop.minutes", "TRUNCATE TABLE shop.events"],
        &["DROP TABLE shop.events"],
        &["TRUNCATE TABLE shop.hours", "TRUNCATE TABLE shop.metrics", "DROP TABLE shop.minutes"],
    ]
    .into_iter()
    .enumerate()
    {
        for _ in 0..5 {
            post(&host, &sent.batch(random, hour))?;
        }
        sent.is_in(&service).with_context(|| host.log())?;
        let empty = || harm.iter().try_for_each(|sql| ask(&service, sql).map(drop));
        if round % 2 == 1 {
            host.kill()?;
            empty()?;
            host = home.start_ready()?;
        } else {
            empty()?;
        }
        // Without anything new, and with more.
        sent.is_in(&service).with_context(|| format!("{harm:?}\n{}", host.log()))?;
        post(&host, &sent.batch(random, hour))?;
        sent.is_in(&service).with_context(|| format!("{harm:?}\n{}", host.log()))?;
    }
    let metrics = host.get("/metrics")?.text;
    ensure!(metrics.contains("tidemark_history_lost_total 1"), "{metrics}");
    let places = ask(&service, "SELECT count() = uniqExact(source, position, line) FROM shop.events")?;
    ensure!(places == "1", "an event stands twice");
    host.stop()
}
