//! Raw events of a topic in ClickHouse, from outside: each counted event once, whatever dies between noting a block and its
//! arrival, whichever host sends it in the end. Against a real broker, Redis and ClickHouse.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidemark_services::{Kind, Proxy, Service, missing};

use crate::clickhouse::{DEFINITIONS, Sent, ask, closed_hour, post};
use crate::host::{Home, Host, until};
use crate::kafka::topic::{self, Put, Writer, put};
use crate::trial::trial;

const ROUNDS: usize = 9;
const TOPIC: &str = "shop";

pub fn trials() -> Vec<Trial> {
    let reason = [Kind::Kafka, Kind::Redis, Kind::ClickHouse].into_iter().find_map(missing);
    if let Some(reason) = &reason {
        eprintln!("NOT RUN raw: {reason}");
    }
    let test =
        |name: &str, run: fn() -> Result<()>| trial(format!("raw::{name}"), run).with_ignored_flag(reason.is_some());
    vec![
        test("of_a_topic_once_whichever_host_sends_them", hosts),
        test("of_a_topic_once_with_the_state_in_a_folder", alone),
        test("that_retention_took_are_missed_aloud", gap),
    ]
}

/// What hosts run on; ClickHouse behind a proxy that loses answers.
struct Services {
    kafka: Service,
    redis: Option<Service>,
    clickhouse: Service,
    proxy: Proxy,
}

impl Services {
    fn start(redis: bool) -> Result<Self> {
        let kafka = Service::start_with(Kind::Kafka, &["group.min.session.timeout.ms=500"])?;
        let redis = redis.then(|| Service::start(Kind::Redis)).transpose()?;
        let clickhouse = Service::start(Kind::ClickHouse)?;
        let proxy = Proxy::before(clickhouse.port)?;
        Ok(Self { kafka, redis, clickhouse, proxy })
    }

    fn home(&self) -> Result<Home> {
        let (kafka, clickhouse) = (self.kafka.address(), format!("http://{}/shop", self.proxy.address()));
        let redis = self.redis.as_ref().map(|redis| format!("redis://{}", redis.address()));
        let mut flags = vec!["--kafka", &kafka, "--topic", TOPIC, "--group", TOPIC, "--clickhouse", &clickhouse];
        flags.extend(["--checkpoint", "200ms"]);
        if let Some(redis) = &redis {
            flags.extend(["--redis", redis, "--kafka-option", "session.timeout.ms=3000"]);
            flags.extend(["--kafka-option", "heartbeat.interval.ms=500"]);
        }
        Ok(Home::new(DEFINITIONS)?.with_flags(&flags))
    }
}

fn impaired(host: &Host) -> Result<String> {
    Ok(host.get_json("/health/ready")?["impaired"].to_string())
}

fn metric(host: &Host, name: &str) -> Result<u64> {
    let text = host.get("/metrics")?.text;
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).with_context(|| text.clone())?;
    Ok(value.parse()?)
}

/// Through hosts, and by others: many lines in a message, some of which do not count.
fn send(sent: &mut Sent, random: &mut SmallRng, hosts: &[&Host], writer: &Writer) -> Result<()> {
    let hour = closed_hour();
    for host in hosts {
        post(host, &sent.batch(random, hour))?;
    }
    for _ in 0..3 {
        let lines = sent.batch(random, hour);
        writer.put(put(&lines))?;
        let partition = Some(random.random_range(0..12));
        writer.put(Put { partition, ..put("{ no event\n\n  \n{\"half\":") })?;
    }
    writer.flush()
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// kill -9 of a host whose blocks are noted and do not arrive, for good; another one comes.
    HostGone,
    /// The same, but they do arrive, and nobody hears of it.
    AnswersLost,
    /// A host stands still past its session with a block noted, and goes on.
    HostPaused,
    ClickHouseDown,
    /// The table of events is emptied, or the database gone.
    ClickHouseEmptied,
    RedisEmptied,
    RedisKilled,
}

const FAULTS: [Fault; 7] = [
    Fault::HostGone,
    Fault::AnswersLost,
    Fault::RedisEmptied,
    Fault::ClickHouseEmptied,
    Fault::HostPaused,
    Fault::ClickHouseDown,
    Fault::RedisKilled,
];

fn hosts() -> Result<()> {
    let mut services = Services::start(true)?;
    let random = &mut SmallRng::seed_from_u64(11);
    let mut members = Vec::new();
    for _ in 0..2 {
        let home = services.home()?;
        members.push((home.start_ready()?, home));
    }
    let writer = Writer::new(&services.kafka.address(), TOPIC)?;
    let mut sent = Sent::default();
    for round in 0..ROUNDS {
        let fault = FAULTS[round % FAULTS.len()];
        let done = hurt(&mut services, &mut members, &mut sent, random, &writer, fault)
            .and_then(|()| sent.raw_is_in(&services.clickhouse));
        let logs = || members.iter().map(|(host, _)| host.log()).collect::<Vec<_>>().join("\n");
        done.with_context(|| format!("round {round}, {fault:?}\n{}", logs()))?;
    }
    for (host, _) in members {
        host.stop()?;
    }
    sent.raw_is_in(&services.clickhouse)?;
    places_are_whole(&services.clickhouse)
}

/// Sends events before a fault, in the midst of it, and after.
fn hurt(
    services: &mut Services,
    members: &mut Vec<(Host, Home)>,
    sent: &mut Sent,
    random: &mut SmallRng,
    writer: &Writer,
    fault: Fault,
) -> Result<()> {
    let all = |members: &[(Host, Home)], sent: &mut Sent, random: &mut SmallRng| {
        let hosts: Vec<&Host> = members.iter().map(|(host, _)| host).collect();
        send(sent, random, &hosts, writer)
    };
    all(members, sent, random)?;
    let failures = |host: &Host| metric(host, "tidemark_raw_events_failures_total");
    let before = failures(&members[0].0)?;
    let noted = |host: &Host| {
        until("a block to be noted", || Ok((failures(host)? > before).then_some(()))).with_context(|| host.log())
    };
    match fault {
        Fault::HostGone | Fault::AnswersLost | Fault::HostPaused => {
            match fault {
                Fault::AnswersLost => services.proxy.lose_answers(40),
                _ => services.proxy.cut(),
            }
            all(members, sent, random)?;
            noted(&members[0].0)?;
            if let Fault::HostPaused = fault {
                members[0].0.freeze()?;
                services.proxy.mend();
                until("the other to send all", || sent.raw_is_in(&services.clickhouse).map(Some))?;
                members[0].0.thaw()?;
            } else {
                members.remove(0).0.kill()?;
                services.proxy.lose_answers(0);
                services.proxy.mend();
                let home = services.home()?;
                members.push((home.start_ready()?, home));
            }
        }
        Fault::ClickHouseDown => {
            services.clickhouse.kill()?;
            all(members, sent, random)?;
            noted(&members[0].0)?;
            ensure!(impaired(&members[0].0)?.contains("raw events are not written"), "said");
            services.clickhouse.start_again()?;
        }
        Fault::ClickHouseEmptied => {
            sent.raw_is_in(&services.clickhouse)?;
            ask(&services.clickhouse, "TRUNCATE TABLE shop.events")?;
            all(members, sent, random)?;
            sent.raw_is_in(&services.clickhouse)?;
            ask(&services.clickhouse, "DROP DATABASE shop")?;
        }
        Fault::RedisEmptied | Fault::RedisKilled => {
            let redis = services.redis.as_mut().context("runs")?;
            redis.kill()?;
            if let Fault::RedisEmptied = fault {
                redis.empty()?;
            }
            all(members, sent, random)?;
            redis.start_again()?;
        }
    }
    all(members, sent, random)
}

/// A row says where its event stands in the topic, whoever sent it.
fn places_are_whole(clickhouse: &Service) -> Result<()> {
    let odd = ask(clickhouse, "SELECT count() FROM shop.events WHERE origin != 'shop' OR source >= 12")?;
    let places = ask(clickhouse, "SELECT count() = uniqExact(source, position, line) FROM shop.events")?;
    ensure!((odd.as_str(), places.as_str()) == ("0", "1"), "{odd} {places}");
    Ok(())
}

fn alone() -> Result<()> {
    let mut services = Services::start(false)?;
    let random = &mut SmallRng::seed_from_u64(12);
    let (mut home, mut sent) = (services.home()?, Sent::default());
    let mut host = home.start_ready()?;
    let writer = Writer::new(&services.kafka.address(), TOPIC)?;
    for round in 0..ROUNDS {
        send(&mut sent, random, &[&host], &writer)?;
        std::thread::park_timeout(Duration::from_millis(random.random_range(0..400)));
        match random.random_range(0..4) {
            0 => services.clickhouse.kill()?,
            1 => services.proxy.lose_answers(random.random_range(1..4)),
            2 => services.proxy.cut(),
            _ => {
                sent.raw_is_in(&services.clickhouse).with_context(|| host.log())?;
                ask(&services.clickhouse, "TRUNCATE TABLE shop.events")?;
            }
        }
        send(&mut sent, random, &[&host], &writer)?;
        std::thread::park_timeout(Duration::from_millis(random.random_range(0..400)));
        if random.random_bool(0.7) {
            host.kill()?;
        } else {
            host.stop()?;
        }
        services.proxy.mend();
        if !services.clickhouse.runs() {
            services.clickhouse.start_again()?;
        }
        // The folder is lost, and all is counted again.
        if round % 3 == 2 {
            home = services.home()?;
        }
        host = home.start_ready()?;
        if round % 3 == 2 {
            sent.raw_is_in(&services.clickhouse).with_context(|| host.log())?;
        }
    }
    host.stop()?;
    sent.raw_is_in(&services.clickhouse)?;
    places_are_whole(&services.clickhouse)
}

/// While ClickHouse is down the topic loses what it was to have.
fn gap() -> Result<()> {
    let services = Services::start(false)?;
    let home = services.home()?;
    let host = home.start_ready()?;
    let (random, mut sent) = (&mut SmallRng::seed_from_u64(13), Sent::default());
    post(&host, &sent.batch(random, closed_hour()))?;
    let there = || Ok(ask(&services.clickhouse, "SELECT count() FROM shop.events").is_ok().then_some(()));
    until("the tables", there)?;
    sent.raw_is_in(&services.clickhouse)?;
    services.proxy.cut();
    // Written by nobody's key: all of it is to be gone.
    let mut gone = Sent::default();
    gone.ids = sent.ids;
    post(&host, &gone.batch(random, closed_hour()))?;
    until("a block to be noted", || Ok((metric(&host, "tidemark_raw_events_failures_total")? > 0).then_some(())))?;
    host.stop()?;
    topic::delete_records(&services.kafka.address(), TOPIC)?;
    services.proxy.mend();
    let host = home.start_ready()?;
    until("the gap to be said", || Ok(impaired(&host)?.contains("were gone from the topic").then_some(())))
        .with_context(|| host.log())?;
    ensure!(metric(&host, "tidemark_raw_messages_lost_total")? > 0, "counted");
    ensure!(host.log().contains("retention took messages before their raw events were written"), "{}", host.log());
    // What comes behind it is there.
    let mut more = Sent::default();
    more.ids = gone.ids;
    let before: usize = ask(&services.clickhouse, "SELECT count() FROM shop.events")?.parse()?;
    post(&host, &more.batch(random, closed_hour()))?;
    let added = more.ids - gone.ids;
    let count = || ask(&services.clickhouse, "SELECT count() FROM shop.events");
    until("what follows", || Ok((count()?.parse::<usize>()? == before + added).then_some(())))
        .with_context(|| host.log())?;
    host.stop()
}
