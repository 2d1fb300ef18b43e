//! Three hosts on one Kafka, Redis and ClickHouse: hosts are killed and paused, others join, each of the services goes away,
//! comes back, comes back empty; in the end every acknowledged event is counted exactly once, in Redis, as every host says, and
//! in ClickHouse, as SQL says of history and of raw events.
//!
//! Seeded rounds; each brings one fault in the midst of the load. `TIDEMARK_CLUSTER_ROUNDS` and `TIDEMARK_KILL_SEED` make it a soak.

mod load;
mod members;
mod roles;
mod sql;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidemark_services::{Kind, missing};

use crate::host::{self, Host, until};
use crate::kill::{self, Batch, Promise};
use crate::trial::{trial, trial_within};
use load::load;
use members::{ALL, Cluster, FAULTS, Fault};

const HOSTS: usize = 3;
const ROUNDS: usize = 10;
/// A service may have to be waited for, and each host to see it all.
const ROUND_LIMIT: Duration = Duration::from_secs(90);
const BATCHES_A_ROUND: usize = 45;
/// The events of so many rounds are of one hour: history writes an hour again when one more is of it.
const ROUNDS_AN_HOUR: usize = 5;
/// Within `lateness`.
const HOURS: usize = 20;

pub fn trials() -> Vec<Trial> {
    let reason = [Kind::Kafka, Kind::Redis, Kind::ClickHouse].into_iter().find_map(missing);
    if let Some(reason) = &reason {
        eprintln!("NOT RUN cluster: {reason}");
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let (rounds, seed) =
        (number("TIDEMARK_CLUSTER_ROUNDS").unwrap_or(ROUNDS), number("TIDEMARK_KILL_SEED").unwrap_or(1));
    let faults = move || faults(seed as u64, rounds);
    let trials = vec![
        trial_within(rounds as u32 * ROUND_LIMIT, format!("cluster::faults_seed_{seed}"), faults),
        trial("cluster::roles_may_be_on_hosts_of_their_own", roles::apart),
    ];
    trials.into_iter().map(|trial| trial.with_ignored_flag(reason.is_some())).collect()
}

/// What was sent, by the hour of its events.
type Sent = BTreeMap<i64, Vec<Batch>>;

fn faults(seed: u64, rounds: usize) -> Result<()> {
    let rng = &mut SmallRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&[ALL; HOSTS])?;
    let newest = (host::now_ms() - 90 * 60_000) / 3_600_000;
    let mut sent = Sent::new();
    let mut done: BTreeMap<Fault, usize> = BTreeMap::new();
    // Of the last round: an id is remembered for a while only.
    let mut before: Vec<Batch> = Vec::new();
    for round in 0..rounds {
        let fault = FAULTS[(round + seed as usize) % FAULTS.len()];
        let host = rng.random_range(0..HOSTS);
        let hour = (newest - (round / ROUNDS_AN_HOUR % HOURS) as i64) * 3_600_000;
        // Some come twice: their ids make that once.
        let mut queue: Vec<Batch> = before.iter().filter(|_| rng.random_bool(0.1)).cloned().collect();
        let mut fresh = Vec::new();
        for number in 0..BATCHES_A_ROUND {
            let mut batch = kill::batch(rng, &format!("r{round}b{number}"), hour, true);
            batch.acknowledged = true;
            fresh.push(batch);
        }
        queue.extend(fresh.iter().cloned());
        sent.entry(hour).or_default().extend(fresh.iter().cloned());
        before = fresh;
        let during = || format!("round {round}, {fault:?} of host {host}, seed {seed}");
        load(&mut cluster, &queue, fault, host).with_context(|| format!("{}\n{}", during(), cluster.log()))?;
        for host in cluster.hosts() {
            shows(host, hour, &sent[&hour]).with_context(|| format!("{}\n{}", during(), cluster.log()))?;
        }
        cluster.ready()?;
        sql::raw(&cluster.clickhouse, &sent).with_context(|| format!("{}\n{}", during(), cluster.log()))?;
        *done.entry(fault).or_default() += 1;
    }
    let all = || {
        cluster.hosts().try_for_each(|host| sent.iter().try_for_each(|(hour, batches)| shows(host, *hour, batches)))?;
        sql::history(&cluster.clickhouse, &sent)
    };
    all().with_context(|| format!("after all rounds, seed {seed}\n{}", cluster.log()))?;
    for member in &mut cluster.members {
        member.host.take().context("runs")?.stop()?;
    }
    sql::raw(&cluster.clickhouse, &sent)?;
    let events: usize = sent.values().flatten().map(|batch| batch.events).sum();
    eprintln!("cluster: {rounds} rounds, seed {seed}: {done:?}; {events} events acknowledged, each counted once");
    Ok(())
}

/// Every event of an hour once.
fn shows(host: &Host, hour: i64, batches: &[Batch]) -> Result<()> {
    let least: usize = batches.iter().map(|batch| batch.events).sum();
    let all = || Ok((host.sums(&kill::all(hour))?.values().sum::<f64>() >= least as f64).then_some(()));
    until("the host to have it all", all)?;
    kill::check(host, batches, hour, Promise { with_ids: true, whole: true })
}
