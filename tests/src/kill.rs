//! kill -9 at any moment: after the restart every acknowledged event is counted exactly once.
//!
//! Seeded rounds on one data folder: clients post batches side by side; when a random number of them is acknowledged the host
//! is killed (now and then stopped in good order); it starts again; clients send once more what was not acknowledged. An oracle
//! that knows what was sent and acknowledged compares the counts and sums of every batch. `TIDEMARK_KILL_ROUNDS` and
//! `TIDEMARK_KILL_SEED` make it a soak.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::host::{self, Home, Host, NDJSON, until};
use crate::trial::trial;

const ROUNDS: usize = 32;
/// Each folder lives through some rounds; folders are tried side by side.
const ROUNDS_A_FOLDER: usize = 8;
const CLIENTS: usize = 3;
const EVENTS_A_BATCH_MAX: usize = 40;
/// Acknowledged batches after which the host is killed, at most.
const BATCHES_A_ROUND_MAX: usize = 120;

pub const DEFINITIONS: &str = r#"
[event]
time = "ts"
key = "user"
id = "id"

[dimensions]
batch = {}

[metrics]
events = { value = "count()", by = ["batch"] }
amount = { value = "sum(x)", by = ["batch"] }
users = { value = "uniq(user)", by = [] }
total = { value = "count()", by = [] }
"#;

/// A batch is sent until it is acknowledged; without ids it is sent once, and counts whole or not at all.
#[derive(Clone)]
pub struct Batch {
    pub name: String,
    pub body: String,
    pub events: usize,
    pub amount: u64,
    pub acknowledged: bool,
}

/// What is promised of a batch besides being counted once when it is acknowledged.
#[derive(Clone, Copy)]
pub struct Promise {
    pub with_ids: bool,
    /// One that is not acknowledged counts whole or not at all.
    pub whole: bool,
}

pub fn trials() -> Vec<Trial> {
    let run = |(seed, with_ids): (u64, bool)| {
        let kind = if with_ids { "with_ids" } else { "without_ids" };
        trial(format!("kill::{kind}_seed_{seed}"), move || {
            // A checkpoint every few ticks, so that the host also dies in the midst of one.
            let home = Home::new(DEFINITIONS)?.with_flags(&["--checkpoint", "150ms"]);
            lives(&home, seed, Promise { with_ids, whole: true })
        })
    };
    folders(ROUNDS).into_iter().map(run).collect()
}

/// Seeds of the folders that live through so many rounds, or as many as the environment says; with ids or without.
pub fn folders(rounds: usize) -> Vec<(u64, bool)> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let rounds = number("TIDEMARK_KILL_ROUNDS").unwrap_or(rounds);
    let seed = number("TIDEMARK_KILL_SEED").unwrap_or(1);
    (0..rounds.div_ceil(ROUNDS_A_FOLDER)).map(|folder| ((seed * 1_000 + folder) as u64, folder % 2 == 0)).collect()
}

/// Some rounds on one folder.
pub fn lives(home: &Home, seed: u64, promise: Promise) -> Result<()> {
    let with_ids = promise.with_ids;
    let rng = &mut SmallRng::seed_from_u64(seed);
    // All in one hour of event time, so that a query of one step tells a batch's count.
    let hour = (host::now_ms() - 90 * 60_000) / 3_600_000 * 3_600_000;
    let mut batches: Vec<Batch> = Vec::new();
    for round in 0..ROUNDS_A_FOLDER {
        let host = home.start()?;
        let mut again: Vec<usize> = Vec::new();
        if with_ids {
            // Besides, somebody whose connection broke sends once more what had arrived after all.
            again.extend((0..batches.len()).filter(|&at| !batches[at].acknowledged || rng.random_bool(0.05)));
        }
        let mut queue: Vec<Batch> = again.iter().map(|&at| batches[at].clone()).collect();
        let new = 0..BATCHES_A_ROUND_MAX + CLIENTS;
        queue.extend(new.map(|number| batch(rng, &format!("r{round}b{number}"), hour, with_ids)));
        let target = rng.random_range(0..again.len() + BATCHES_A_ROUND_MAX);
        let outcomes = load(host, &queue, target, rng.random_bool(0.15))?;
        for (place, (mut sent, outcome)) in queue.into_iter().zip(outcomes).enumerate() {
            let Some(acknowledged) = outcome else { continue };
            match again.get(place) {
                Some(&at) => batches[at].acknowledged |= acknowledged,
                None => {
                    sent.acknowledged = acknowledged;
                    batches.push(sent);
                }
            }
        }
        if round % 2 == 1 {
            let host = home.start_ready()?;
            check(&host, &batches, hour, promise)?;
            host.kill()?;
        }
    }
    finish(home, &mut batches, hour, promise)
}

/// At the end all that was sent with ids is acknowledged, and still there after one more start.
fn finish(home: &Home, batches: &mut [Batch], hour: i64, promise: Promise) -> Result<()> {
    let host = home.start_ready()?;
    for batch in batches.iter_mut().filter(|batch| promise.with_ids && !batch.acknowledged) {
        host.send(&batch.body)?;
        batch.acknowledged = true;
    }
    // Acknowledged is visible soon, not at once.
    let total = |host: &Host| -> Result<f64> { Ok(host.sums(&all(hour))?.values().sum()) };
    let least: usize = batches.iter().filter(|batch| batch.acknowledged).map(|batch| batch.events).sum();
    until("what was sent last to be visible", || Ok((total(&host)? >= least as f64).then_some(())))?;
    check(&host, batches, hour, promise)?;
    host.stop()?;
    let host = home.start_ready()?;
    check(&host, batches, hour, promise)
}

pub fn batch(rng: &mut SmallRng, name: &str, hour: i64, with_ids: bool) -> Batch {
    use std::fmt::Write as _;
    let events = rng.random_range(1..=EVENTS_A_BATCH_MAX);
    let (mut body, mut amount) = (String::new(), 0);
    for event in 0..events {
        let ts = hour + rng.random_range(0..3_600_000);
        let x: u64 = rng.random_range(0..1_000);
        let user = rng.random_range(0..500);
        amount += x;
        let id = if with_ids { format!(r#","id":"{name}-{event}""#) } else { String::new() };
        let _ = writeln!(body, r#"{{"ts":{ts},"user":"u{user}","batch":"{name}","x":{x}{id}}}"#);
    }
    Batch { name: name.to_owned(), body, events, amount, acknowledged: false }
}

/// Clients post the batches of a queue until `target` of them are acknowledged; then the host goes, in the midst of the others.
/// For each batch: was it acknowledged; `None` if nobody came to send it.
fn load(host: Host, queue: &[Batch], target: usize, orderly: bool) -> Result<Vec<Option<bool>>> {
    let next = AtomicUsize::new(0);
    let acknowledged = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let outcomes = Mutex::new(vec![None; queue.len()]);
    let complaint = Mutex::new(None);
    let url = host.url.clone();
    let client = || {
        let agent = host::agent();
        while !over.load(Ordering::Acquire) {
            let at = next.fetch_add(1, Ordering::AcqRel);
            let Some(batch) = queue.get(at) else { return };
            // Told that nothing was taken, a client comes again.
            let answer = until("the host to take events", || {
                let answer = host::post(&agent, &url, batch.body.as_bytes(), &[NDJSON]).ok();
                let busy = answer.as_ref().is_some_and(|answer| matches!(answer.status, 429 | 503));
                Ok((!busy || over.load(Ordering::Acquire)).then_some(answer))
            });
            let answer = answer.ok().flatten();
            let status = answer.as_ref().map_or(0, |answer| answer.status);
            outcomes.lock().expect("no panic")[at] = Some(status == 202);
            match status {
                202 => _ = acknowledged.fetch_add(1, Ordering::AcqRel),
                // The connection broke, or the host is going.
                0 | 429 | 503 => return,
                _ => return *complaint.lock().expect("no panic") = answer.map(|answer| answer.text),
            }
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        until("batches to be acknowledged", || {
            let idle = clients.iter().all(|client| client.is_finished());
            Ok((idle || acknowledged.load(Ordering::Acquire) >= target).then_some(()))
        })?;
        let gone = if orderly { host.stop() } else { host.kill() };
        over.store(true, Ordering::Release);
        gone
    })?;
    if let Some(complaint) = complaint.into_inner().expect("no panic") {
        bail!("a client was answered {complaint}");
    }
    Ok(outcomes.into_inner().expect("no panic"))
}

pub fn all(hour: i64) -> String {
    format!("metric=total&from={hour}&to={}&step=1h", hour + 3_600_000)
}

pub fn check(host: &Host, batches: &[Batch], hour: i64, promise: Promise) -> Result<()> {
    let range = format!("from={hour}&to={}&step=1h", hour + 3_600_000);
    let counts = host.sums(&format!("metric=events&by=batch&{range}"))?;
    let amounts = host.sums(&format!("metric=amount&by=batch&{range}"))?;
    let mut sum = 0.0;
    for batch in batches {
        let count = counts.get(&batch.name).copied().unwrap_or(0.0);
        let amount = amounts.get(&batch.name).copied().unwrap_or(0.0);
        let whole = count == batch.events as f64 && amount == batch.amount as f64;
        let none = count == 0.0 && amount == 0.0 && !batch.acknowledged;
        let part = !promise.whole && !batch.acknowledged && count <= batch.events as f64;
        ensure!(
            whole || none || part,
            "batch {} of {} events (amount {}), {}acknowledged, ids {}: counted {count} events, amount {amount}\n{}",
            batch.name,
            batch.events,
            batch.amount,
            if batch.acknowledged { "" } else { "not " },
            promise.with_ids,
            host.log()
        );
        sum += count;
    }
    let total: f64 = host.sums(&all(hour))?.values().sum();
    ensure!(total == sum, "total is {total}, the batches are {sum}");
    Ok(())
}
