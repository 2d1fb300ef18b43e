//! Scenarios through three hosts on one Kafka, Redis and ClickHouse, whose clock stands where it is put: sent to the hosts in
//! turn, one of which leaves in the midst and comes back. Every host must give the points of the file, from Redis, and once
//! more from ClickHouse when Redis has forgotten them.
//!
//! All files share the services, each with a topic, a group and databases of its own; some run side by side.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use axum::Router;
use libtest_mimic::Trial;
use tidemark::ingest::kafka::KafkaSettings;
use tidemark::runtime::host::HostSettings;
use tidemark::store::clickhouse::{Address, ClickHouse};
use tidemark::store::memory::MemoryStore;
use tidemark::store::{Position, StateReader as _, StoreError};
use tidemark::time::{Clock, DAY_MS, MINUTE_MS, Millis, Minute};
use tidemark_services::{Kind, Service, missing};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::file::Scenario;
use super::run::{self, ARRIVAL};
use crate::binary;
use crate::clickhouse::ask;
use crate::host::until;
use crate::inside;
use crate::kafka::topic;
use crate::trial::trial;

const HOSTS: usize = 3;
/// Most of the time hosts wait for each other.
const FILES_SIDE_BY_SIDE: usize = 4;
/// Two for each host; what depends on the order of all events has one.
const PARTITIONS: i32 = 6;
const TICK_MS: Millis = 100;
const REFRESH_MS: Millis = 10_000;
/// By the clock that is put on by as much, as often as is looked.
const CHECKPOINT_MS: Millis = 500;
/// Nothing can come for any minute any more, and history still has them all.
const FORGOTTEN_AFTER_MS: Millis = 3 * DAY_MS;
/// Of Redis: one for each file.
const DATABASES: &str = "1024";

/// Shared by all files, and gone with the last test that holds it.
#[derive(Default)]
struct Services {
    running: Mutex<Option<Arc<Running>>>,
    /// Files that have begun.
    files: AtomicUsize,
}

struct Running {
    kafka: Service,
    redis: Service,
    clickhouse: Service,
}

impl Services {
    fn running(&self) -> Result<Arc<Running>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            *running = Some(Arc::new(Running {
                // Events are of a day that is long past.
                kafka: Service::start_with(Kind::Kafka, &["log.retention.ms=-1"])?,
                redis: Service::start_with(Kind::Redis, &["--databases", DATABASES])?,
                clickhouse: Service::start(Kind::ClickHouse)?,
            }));
        }
        running.clone().context("started above")
    }
}

/// A test for every few files.
pub fn trials(scenarios: &[(String, Arc<Scenario>)]) -> Vec<Trial> {
    let reason = [Kind::Kafka, Kind::Redis, Kind::ClickHouse].into_iter().find_map(missing);
    if let Some(reason) = &reason {
        eprintln!("NOT RUN scenarios::three_hosts: {reason}");
    }
    let services = Arc::new(Services::default());
    let suited = |has_plugins: bool| {
        let is_suited =
            move |(_, it): &&(String, Arc<Scenario>)| !it.replay_only && it.plugins.is_empty() != has_plugins;
        scenarios.iter().filter(is_suited).cloned().collect::<Vec<_>>()
    };
    let test = |files: &[(String, Arc<Scenario>)]| {
        let no_plugin = files.iter().flat_map(|(_, it)| &it.plugins).any(|name| binary::plugins_with(name).is_none());
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let (services, own) = (services.clone(), files.to_vec());
        trial(format!("scenarios::three_hosts::{}", names.join(",")), move || side_by_side(&services, &own))
            .with_ignored_flag(reason.is_some() || no_plugin)
    };
    [suited(false), suited(true)].iter().flat_map(|files| files.chunks(FILES_SIDE_BY_SIDE)).map(test).collect()
}

fn side_by_side(services: &Services, files: &[(String, Arc<Scenario>)]) -> Result<()> {
    let running = services.running()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let check = |(name, scenario): &(String, Arc<Scenario>)| {
        let cluster = Cluster::new(scenario, &running, services.files.fetch_add(1, Relaxed), runtime.handle())?;
        cluster.check().with_context(|| format!("{name}.test"))
    };
    std::thread::scope(|scope| {
        let check = &check;
        let checks: Vec<_> = files.iter().map(|file| scope.spawn(move || check(file))).collect();
        let outcomes: Vec<Result<()>> = checks.into_iter().map(|check| check.join().expect("no panic")).collect();
        outcomes.into_iter().collect()
    })
}

/// The hosts of one file and what they have for themselves on the services.
struct Cluster<'s> {
    scenario: &'s Scenario,
    services: &'s Running,
    handle: &'s Handle,
    clock: Clock,
    partitions: i32,
    topic: String,
    database: String,
    redis: String,
    clickhouse: Address,
    homes: Vec<tempfile::TempDir>,
}

/// A host that is running on the tests' runtime.
struct Host {
    router: Router,
    memory: Arc<MemoryStore>,
    positions: Box<dyn Fn() -> Result<Vec<Position>, StoreError> + Send>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl<'s> Cluster<'s> {
    fn new(scenario: &'s Scenario, services: &'s Running, number: usize, handle: &'s Handle) -> Result<Self> {
        let homes = (0..HOSTS).map(|_| tempfile::tempdir()).collect::<Result<Vec<_>, _>>()?;
        for home in &homes {
            std::fs::write(home.path().join("metrics.toml"), &scenario.definitions)?;
        }
        let (topic, database) = (format!("events-{number}"), format!("scenario_{number}"));
        let partitions = if scenario.one_partition { 1 } else { PARTITIONS };
        topic::create(&services.kafka.address(), &topic, partitions)?;
        let url = format!("http://{}/{database}", services.clickhouse.address());
        let clickhouse = Address::parse(&url).map_err(anyhow::Error::msg)?;
        ClickHouse::new(&clickhouse)?.prepare()?;
        for table in ["minutes", "hours", "events"] {
            // ClickHouse goes by its own clock, to which all this is long past.
            ask(&services.clickhouse, &format!("ALTER TABLE {database}.{table} REMOVE TTL"))?;
        }
        Ok(Self {
            scenario,
            services,
            handle,
            clock: Clock::manual(ARRIVAL),
            partitions,
            topic,
            database,
            redis: format!("redis://{}/{number}", services.redis.address()),
            clickhouse,
            homes,
        })
    }

    fn start(&self, number: usize) -> Result<Host> {
        let folder = self.homes[number].path();
        let options = [("heartbeat.interval.ms", "200"), ("session.timeout.ms", "6000")];
        let kafka = KafkaSettings {
            brokers: self.services.kafka.address(),
            topic: self.topic.clone(),
            group: self.topic.clone(),
            options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            instance: String::new(),
            alone: false,
        };
        let host = inside::start(HostSettings {
            plugins: run::plugins(self.scenario, folder),
            shards: run::shards(self.scenario),
            tick_ms: TICK_MS,
            checkpoint_ms: CHECKPOINT_MS,
            kafka: Some(kafka),
            redis: Some(self.redis.clone()),
            clickhouse: Some(self.clickhouse.clone()),
            ..inside::settings(folder, self.clock.clone())
        })?;
        let (router, ticker) = (host.router.clone(), host.ticker.clone());
        let (stop, stopped) = oneshot::channel();
        let listener = self.handle.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let until = async move { drop(stopped.await) };
        let task = self.handle.spawn(host.run(listener, REFRESH_MS, until));
        Ok(Host {
            router,
            memory: ticker.memory.clone(),
            positions: Box::new(move || ticker.hot.positions()),
            stop,
            task,
        })
    }

    fn stop(&self, host: Host) -> Result<()> {
        let Host { stop, task, .. } = host;
        // One that has ended by itself says why.
        let _ = stop.send(());
        self.handle.block_on(task)?
    }

    fn check(&self) -> Result<()> {
        let mut hosts = (0..HOSTS).map(|number| self.start(number)).collect::<Result<Vec<_>>>()?;
        self.ready(&hosts)?;
        let bodies = run::bodies(self.scenario);
        let (before, after) = bodies.split_at(bodies.len() / 2);
        let mut rejected = self.send(&hosts, before)?;
        self.stop(hosts.remove(0))?;
        hosts.push(self.start(0)?);
        rejected += self.send(&hosts, after)?;
        run::check_rejected(self.scenario, rejected)?;
        // All minutes are over.
        self.clock.set(ARRIVAL + 10 * MINUTE_MS);
        self.counted(&hosts)?;
        self.same_points(&hosts, "from Redis", |host| host.memory.provisional_from() > Minute::of(ARRIVAL))?;
        self.raw_events(&hosts)?;
        self.clock.set(self.clock.now() + FORGOTTEN_AFTER_MS);
        self.same_points(&hosts, "from ClickHouse", |host| host.memory.complete_from() > Minute::of(ARRIVAL))?;
        hosts.into_iter().try_for_each(|host| self.stop(host))
    }

    fn ready(&self, hosts: &[Host]) -> Result<()> {
        for host in hosts {
            until("a host to be ready", || {
                ensure!(!host.task.is_finished(), "it has ended");
                Ok(self.handle.block_on(inside::is_ready(&host.router))?.then_some(()))
            })?;
        }
        Ok(())
    }

    /// Gives the number of rejected events.
    fn send(&self, hosts: &[Host], bodies: &[Vec<u8>]) -> Result<u64> {
        let mut rejected = 0;
        for (number, body) in bodies.iter().enumerate() {
            let host = &hosts[number % hosts.len()];
            rejected += self.handle.block_on(run::send(&host.router, body, &self.clock))?;
        }
        Ok(rejected)
    }

    /// Everything in the topic is part of what is in Redis.
    fn counted(&self, hosts: &[Host]) -> Result<()> {
        let ends = topic::ends(&self.services.kafka.address(), &self.topic, self.partitions)?;
        let mut found = Vec::new();
        until("all messages to be counted", || {
            found = (hosts[0].positions)()?;
            let next = |source: usize| found.iter().find(|at| at.source as usize == source).map_or(0, |at| at.next);
            Ok(ends.iter().enumerate().all(|(source, end)| next(source) >= *end).then_some(()))
        })
        .with_context(|| format!("{found:?} of {ends:?}"))
    }

    /// Of every host, once it is so far.
    fn same_points(&self, hosts: &[Host], place: &str, is_so_far: impl Fn(&Host) -> bool) -> Result<()> {
        for (number, host) in hosts.iter().enumerate() {
            let far = until("the host to be so far", || {
                self.clock.set(self.clock.now() + CHECKPOINT_MS);
                Ok(is_so_far(host).then_some(()))
            });
            let (closed, from) = (host.memory.provisional_from(), host.memory.complete_from());
            far.with_context(|| format!("{place}, host {number}: closed {closed:?}, complete from {from:?}"))?;
            let compared = self.handle.block_on(run::compare(self.scenario, &host.router));
            compared.with_context(|| format!("{place}, host {number}"))?;
        }
        Ok(())
    }

    /// Each counted event once.
    fn raw_events(&self, hosts: &[Host]) -> Result<()> {
        let Some(events) = self.scenario.summary.as_ref().and_then(|summary| summary["events"].as_u64()) else {
            return Ok(());
        };
        let mut found = String::new();
        let sql = format!("SELECT count(), uniqExact(source, position, line) FROM {}.events", self.database);
        let all = until("raw events", || {
            self.clock.set(self.clock.now() + CHECKPOINT_MS);
            found = ask(&self.services.clickhouse, &sql)?;
            Ok((found == format!("{events}\t{events}")).then_some(()))
        });
        all.with_context(|| {
            let impaired = |host: &Host| self.handle.block_on(inside::get(&host.router, "/health/ready"));
            let impaired: Vec<_> = hosts.iter().map(impaired).collect();
            format!("raw events: {found:?} instead of {events}; hosts say {impaired:?}")
        })
    }
}
