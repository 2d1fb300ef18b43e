//! Hosts that share a topic, a Redis and a ClickHouse, and what can be done to any of these.

use std::sync::{Arc, RwLock};

use anyhow::{Context, Result};
use tidemark_services::{Kind, Service};

use crate::host::{Home, Host, until};
use crate::kill;

pub const ALL: &str = "ingest,work,serve";
const PARTITIONS: usize = 12;
/// The topic, the group and the database.
pub const NAME: &str = "shop";
/// A host that is paused longer is no member of the group any more.
const SESSION_MS: &str = "3000";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
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
    ClickHouseKilled,
    /// Comes back with nothing, and is given again what hot and the topic have.
    ClickHouseEmptied,
    /// Until hosts have given up on what they had sent.
    ClickHouseFrozen,
}

impl Fault {
    pub fn is_of_clickhouse(self) -> bool {
        matches!(self, Self::ClickHouseKilled | Self::ClickHouseEmptied | Self::ClickHouseFrozen)
    }
}

pub const FAULTS: [Fault; 10] = [
    Fault::HostKilled,
    Fault::ClickHouseFrozen,
    Fault::HostPaused,
    Fault::RedisEmptied,
    Fault::ClickHouseKilled,
    Fault::HostReplaced,
    Fault::RedisFrozen,
    Fault::BrokerKilled,
    Fault::ClickHouseEmptied,
    Fault::RedisKilled,
];

pub struct Member {
    pub home: Home,
    pub host: Option<Host>,
}

pub struct Cluster {
    kafka: Service,
    redis: Service,
    pub clickhouse: Service,
    pub members: Vec<Member>,
    /// Where clients find the hosts.
    pub urls: Arc<RwLock<Vec<String>>>,
}

impl Cluster {
    /// A host for each set of roles.
    pub fn start(roles: &[&str]) -> Result<Self> {
        let kafka = Service::start_with(Kind::Kafka, &["group.min.session.timeout.ms=500"])?;
        let redis = Service::start(Kind::Redis)?;
        let clickhouse = Service::start(Kind::ClickHouse)?;
        let mut cluster = Self { kafka, redis, clickhouse, members: Vec::new(), urls: Arc::default() };
        roles.iter().try_for_each(|roles| cluster.join(roles))?;
        cluster.ready()?;
        Ok(cluster)
    }

    fn join(&mut self, roles: &str) -> Result<()> {
        let (kafka, redis) = (self.kafka.address(), format!("redis://{}", self.redis.address()));
        let clickhouse = format!("http://{}/{NAME}", self.clickhouse.address());
        let session = format!("session.timeout.ms={SESSION_MS}");
        let flags = [
            ["--kafka", &kafka],
            ["--redis", &redis],
            ["--clickhouse", &clickhouse],
            ["--topic", NAME],
            ["--group", NAME],
            ["--roles", roles],
            ["--kafka-option", &session],
            ["--kafka-option", "heartbeat.interval.ms=500"],
            ["--checkpoint", "300ms"],
        ];
        let home = Home::new(kill::DEFINITIONS)?.with_flags(flags.as_flattened());
        let host = Some(home.start()?);
        self.members.push(Member { home, host });
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let urls = self.members.iter().filter_map(|member| member.host.as_ref()).map(|host| host.url.clone());
        *self.urls.write().expect("no panic") = urls.collect();
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.members.iter().filter_map(|member| member.host.as_ref())
    }

    pub fn log(&self) -> String {
        self.hosts().map(Host::log).collect::<Vec<_>>().join("\n")
    }

    pub fn ready(&self) -> Result<()> {
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

    /// One says what is wrong.
    fn one_misses_clickhouse(&self) -> Result<()> {
        let misses = |host: &Host| Ok(host.get("/health/ready")?.text.contains("raw events are not written"));
        until("a host to miss ClickHouse", || {
            let missing = self.hosts().map(misses).collect::<Result<Vec<bool>>>()?;
            Ok(missing.contains(&true).then_some(()))
        })
        .with_context(|| self.log())
    }

    /// Does harm; `heal` ends it.
    pub fn harm(&mut self, fault: Fault, host: usize) -> Result<()> {
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
            Fault::ClickHouseKilled | Fault::ClickHouseEmptied => {
                self.clickhouse.kill()?;
                self.one_misses_clickhouse()
            }
            Fault::ClickHouseFrozen => {
                self.clickhouse.freeze()?;
                self.one_misses_clickhouse()
            }
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

    pub fn heal(&mut self, fault: Fault, host: usize) -> Result<()> {
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
                self.redis.empty()?;
                self.redis.start_again()?;
            }
            Fault::RedisFrozen => self.redis.thaw()?,
            Fault::ClickHouseKilled => self.clickhouse.start_again()?,
            Fault::ClickHouseEmptied => {
                self.clickhouse.empty()?;
                self.clickhouse.start_again()?;
            }
            Fault::ClickHouseFrozen => self.clickhouse.thaw()?,
        }
        Ok(())
    }
}
