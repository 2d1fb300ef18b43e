//! Three hosts on one Kafka and one Redis: hosts are killed and paused, others join, broker and Redis go away, come back, come
//! back empty; in the end every acknowledged event is counted exactly once, and every host says so.
//!
//! Seeded rounds; each brings one fault in the midst of the load. `TIDEMARK_CLUSTER_ROUNDS` and `TIDEMARK_KILL_SEED` make it a soak.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidemark_services::{Kind, Service, missing};
use ureq::Agent;

use crate::host::{self, Home, Host, NDJSON, until};
use crate::kill::{self, Batch, Promise};

const HOSTS: usize = 3;
const ALL: &str = "ingest,work,serve";
const ROUNDS: usize = 10;
const CLIENTS: usize = 3;
const BATCHES_A_ROUND: usize = 45;
const PARTITIONS: usize = 12;
const TOPIC: &str = "events";
/// A host that is paused longer is no member of the group any more.
const SESSION_MS: &str = "3000";
/// So that a client tries another host than a paused one soon.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

pub fn trials() -> Vec<Trial> {
    let reason = missing(Kind::Kafka).or_else(|| missing(Kind::Redis));
    if let Some(reason) = &reason {
        eprintln!("NOT RUN cluster: {reason}");
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let (rounds, seed) =
        (number("TIDEMARK_CLUSTER_ROUNDS").unwrap_or(ROUNDS), number("TIDEMARK_KILL_SEED").unwrap_or(1));
    let faults = move || faults(seed as u64, rounds).map_err(|error| format!("{error:#}").into());
    let roles = || roles_apart().map_err(|error| format!("{error:#}").into());
    let trials = vec![
        Trial::test(format!("cluster::faults_seed_{seed}"), faults),
        Trial::test("cluster::roles_may_be_on_hosts_of_their_own", roles),
    ];
    trials.into_iter().map(|trial| trial.with_ignored_flag(reason.is_some())).collect()
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// kill -9 of a host, which comes back with its folder.
    HostKilled,
    /// kill -9 of a host for good; another one joins.
    HostReplaced,
    /// A host stands still past its session, then goes on as if nothing had happened.
    HostPaused,
    BrokerKilled,
    RedisKilled,
    /// Comes back with nothing.
    RedisEmptied,
    RedisFrozen,
}

const FAULTS: [Fault; 7] = [
    Fault::HostKilled,
    Fault::HostPaused,
    Fault::RedisEmptied,
    Fault::HostReplaced,
    Fault::RedisFrozen,
    Fault::BrokerKilled,
    Fault::RedisKilled,
];

struct Member {
    home: Home,
    host: Option<Host>,
}

struct Cluster {
    kafka: Service,
    redis: Service,
    members: Vec<Member>,
    /// Where clients find the hosts.
    urls: Arc<RwLock<Vec<String>>>,
}

impl Cluster {
    /// A host for each set of roles.
    fn start(roles: &[&str]) -> Result<Self> {
        let kafka = Service::start_with(Kind::Kafka, &["group.min.session.timeout.ms=500"])?;
        let redis = Service::start(Kind::Redis)?;
        let mut cluster = Self { kafka, redis, members: Vec::new(), urls: Arc::default() };
        roles.iter().try_for_each(|roles| cluster.join(roles))?;
        cluster.ready()?;
        Ok(cluster)
    }

    fn join(&mut self, roles: &str) -> Result<()> {
        let redis = format!("redis://{}", self.redis.address());
        let session = format!("session.timeout.ms={SESSION_MS}");
        let flags =
            ["--kafka", &self.kafka.address(), "--redis", &redis, "--topic", TOPIC, "--group", TOPIC, "--roles", roles]
                .map(str::to_owned);
        let more = ["--kafka-option", &session, "--kafka-option", "heartbeat.interval.ms=500", "--checkpoint", "300ms"];
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more).collect();
        let home = Home::new(kill::DEFINITIONS)?.with_flags(&flags);
        let host = Some(home.start()?);
        self.members.push(Member { home, host });
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let urls = self.members.iter().filter_map(|member| member.host.as_ref()).map(|host| host.url.clone());
        *self.urls.write().expect("no panic") = urls.collect();
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.members.iter().filter_map(|member| member.host.as_ref())
    }

    fn log(&self) -> String {
        self.hosts().map(Host::log).collect::<Vec<_>>().join("\n")
    }

    fn ready(&self) -> Result<()> {
        for host in self.hosts() {
            until("every host to be ready", || Ok((host.get("/health/ready")?.status == 200).then_some(())))
                .with_context(|| host.log())?;
        }
        Ok(())
    }

    /// All partitions are with hosts other than this one.
    fn taken_over_from(&self, gone: usize) -> Result<()> {
        let partitions = || -> Result<usize> {
            let others = self.members.iter().enumerate().filter(|(at, _)| *at != gone);
            let others = others.filter_map(|(_, member)| member.host.as_ref());
            let counts = others.map(|host| {
                let metrics = host.get("/metrics")?.text;
                Ok(metrics.lines().filter(|line| line.starts_with("tidemark_kafka_lag_messages{")).count())
            });
            counts.sum()
        };
        let taken = || Ok((partitions()? == PARTITIONS).then_some(()));
        until("the others to take the partitions over", taken).with_context(|| self.log())
    }

    /// Does harm; `heal` ends it.
    fn harm(&mut self, fault: Fault, host: usize) -> Result<()> {
        match fault {
            Fault::HostKilled | Fault::HostReplaced => {
                self.members[host].host.take().context("runs")?.kill()?;
                self.publish();
                self.taken_over_from(host)
            }
            Fault::HostPaused => {
                self.members[host].host.as_ref().context("runs")?.freeze()?;
                self.taken_over_from(host)
            }
            Fault::BrokerKilled => self.kafka.kill(),
            Fault::RedisKilled | Fault::RedisEmptied => self.redis.kill(),
            Fault::RedisFrozen => {
                self.redis.freeze()?;
                for host in self.hosts() {
                    until("every host to notice", || Ok((host.get("/health/ready")?.status == 503).then_some(())))
                        .with_context(|| host.log())?;
                }
                Ok(())
            }
        }
    }

    fn heal(&mut self, fault: Fault, host: usize) -> Result<()> {
        match fault {
            Fault::HostKilled => {
                let member = &mut self.members[host];
                member.host = Some(member.home.start()?);
                self.publish();
            }
            Fault::HostReplaced => {
                self.members.remove(host);
                self.join(ALL)?;
            }
            Fault::HostPaused => self.members[host].host.as_ref().context("runs")?.thaw()?,
            Fault::BrokerKilled => self.kafka.start_again()?,
            Fault::RedisKilled => self.redis.start_again()?,
            Fault::RedisEmptied => {
                for entry in std::fs::read_dir(self.redis.folder())? {
                    let path = entry?.path();
                    let kept = path.extension().is_some_and(|it| it == "conf" || it == "log");
                    if path.is_dir() {
                        std::fs::remove_dir_all(&path)?;
                    } else if !kept {
                        std::fs::remove_file(&path)?;
                    }
                }
                self.redis.start_again()?;
            }
            Fault::RedisFrozen => self.redis.thaw()?,
        }
        Ok(())
    }
}

fn faults(seed: u64, rounds: usize) -> Result<()> {
    let rng = &mut SmallRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&[ALL; HOSTS])?;
    let hour = (host::now_ms() - 90 * 60_000) / 3_600_000 * 3_600_000;
    let mut batches: Vec<Batch> = Vec::new();
    for round in 0..rounds {
        let fault = FAULTS[(round + seed as usize) % FAULTS.len()];
        let host = rng.random_range(0..HOSTS);
        // Some come twice: their ids make that once.
        let mut queue: Vec<Batch> = batches.iter().filter(|_| rng.random_bool(0.05)).cloned().collect();
        for number in 0..BATCHES_A_ROUND {
            let mut batch = kill::batch(rng, &format!("r{round}b{number}"), hour, true);
            batch.acknowledged = true;
            queue.push(batch.clone());
            batches.push(batch);
        }
        load(&mut cluster, &queue, fault, host)
            .with_context(|| format!("round {round}, {fault:?} of host {host}, seed {seed}\n{}", cluster.log()))?;
        let least: usize = batches.iter().map(|batch| batch.events).sum();
        for host in cluster.hosts() {
            let all = || Ok((host.sums(&kill::all(hour))?.values().sum::<f64>() >= least as f64).then_some(()));
            let checked = until("every host to have it all", all)
                .and_then(|()| kill::check(host, &batches, hour, Promise { with_ids: true, whole: true }));
            checked.with_context(|| format!("round {round}, after {fault:?}, seed {seed}\n{}", cluster.log()))?;
        }
        cluster.ready()?;
    }
    Ok(())
}

/// Clients send every batch until some host acknowledges it; the fault comes after a third of them and ends after another.
fn load(cluster: &mut Cluster, queue: &[Batch], fault: Fault, host: usize) -> Result<()> {
    let (next, acknowledged, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let urls = cluster.urls.clone();
    let complaint = Mutex::new(None);
    let client = |number: usize| {
        let agent: Agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_WITHIN)).build().into();
        let mut turn = number;
        loop {
            let at = next.fetch_add(1, Ordering::AcqRel);
            let Some(batch) = queue.get(at) else { return };
            let sent = until("a host to take a batch", || {
                turn += 1;
                let url = {
                    let urls = urls.read().expect("no panic");
                    let Some(url) = urls.get(turn % urls.len().max(1)) else { return Ok(None) };
                    url.clone()
                };
                let Ok(answer) = host::post(&agent, &url, batch.body.as_bytes(), &[NDJSON]) else { return Ok(None) };
                ensure!(matches!(answer.status, 202 | 429 | 503), "{} {}", answer.status, answer.text);
                Ok((answer.status == 202).then_some(()))
            });
            if let Err(error) = sent {
                failed.store(true, Ordering::Release);
                *complaint.lock().expect("no panic") = Some(error);
                return;
            }
            acknowledged.fetch_add(1, Ordering::AcqRel);
        }
    };
    let client = &client;
    let outcome = std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        let reached = |count: usize| {
            until("batches to be acknowledged", || {
                let over = clients.iter().all(|client| client.is_finished());
                Ok((over || acknowledged.load(Ordering::Acquire) >= count).then_some(()))
            })
        };
        reached(queue.len() / 3)?;
        cluster.harm(fault, host)?;
        cluster.heal(fault, host)?;
        reached(queue.len())
    });
    if let Some(error) = complaint.into_inner().expect("no panic") {
        return Err(error);
    }
    outcome
}

/// Events go in at one host, are counted by another, and asked for at a third; each says what it does not do.
fn roles_apart() -> Result<()> {
    let mut cluster = Cluster::start(&["ingest", "work", "serve"])?;
    let rng = &mut SmallRng::seed_from_u64(1);
    let hour = (host::now_ms() - 90 * 60_000) / 3_600_000 * 3_600_000;
    let mut batches = Vec::new();
    for round in 0..2 {
        let [ingest, work, serve] = [0, 1, 2].map(|at| cluster.members[at].host.as_ref().expect("runs"));
        for number in 0..10 {
            let mut batch = kill::batch(rng, &format!("r{round}b{number}"), hour, true);
            ingest.send(&batch.body)?;
            batch.acknowledged = true;
            batches.push(batch);
        }
        let least: usize = batches.iter().map(|batch| batch.events).sum();
        let all = || Ok((serve.sums(&kill::all(hour))?.values().sum::<f64>() >= least as f64).then_some(()));
        until("the serving host to have it all", all)
            .and_then(|()| kill::check(serve, &batches, hour, Promise { with_ids: true, whole: true }))
            .with_context(|| cluster.log())?;
        for (host, path, role) in [(ingest, "/v1/query?metric=total", "serve"), (work, "/", "serve")] {
            let answer = host.get(path)?;
            ensure!(answer.status == 404 && answer.text.contains(&format!("`{role}`")), "{path}: {}", answer.text);
        }
        for host in [work, serve] {
            let answer = host.post(batches[0].body.as_bytes(), &[NDJSON])?;
            ensure!(answer.status == 404 && answer.json()?["error"]["code"] == "not_this_host", "{}", answer.text);
        }
        // The worker dies, another one goes on.
        cluster.members[1].host.take().context("runs")?.kill()?;
        let member = &mut cluster.members[1];
        member.host = Some(member.home.start()?);
    }
    let (serve, metrics) = (cluster.members[2].host.as_ref().context("runs")?, cluster.members[2].home.metrics());
    let warns = |wanted: bool| {
        until("the hosts to compare their definitions", || {
            let ready = serve.get("/health/ready")?;
            Ok((ready.status == 200 && ready.text.contains("measures by other definitions") == wanted).then_some(()))
        })
        .with_context(|| cluster.log())
    };
    std::fs::write(&metrics, format!("{}\nmore = \"max(x)\"\n", kill::DEFINITIONS))?;
    warns(true)?;
    std::fs::write(&metrics, kill::DEFINITIONS)?;
    warns(false)?;
    let alone = Home::new(kill::DEFINITIONS)?.with_flags(&["--roles", "work"]);
    let refused = alone.start().err().context("refused")?.to_string();
    ensure!(refused.contains("needs --kafka and --redis"), "{refused}");
    Ok(())
}
