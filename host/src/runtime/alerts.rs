//! Asks the rules whose anomalies are told, again and again, and says when they are not to be asked. Wires `alert` to what
//! judges and to where its state is kept; sends nothing itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::hot::Hot;
use super::status::Status;
use crate::alert::client::Client;
use crate::alert::state::{Labels, Look, Run};
use crate::alert::{Alerts, Place, RuleStatus, sender};
use crate::catalog::definitions::{Active, AnomalyRule};
use crate::serve::Services;
use crate::serve::query::view::JudgedSeries;
use crate::serve::query::watch::Watched;
use crate::store::embedded::Embedded;
use crate::store::redis::{Lease, RedisStore};
use crate::time::{MINUTE_MS, Millis, SECOND_MS};

const META_ALERTS: &str = "alerts";
/// Series that a rule is asked about.
const SERIES_MAX: usize = 1_000;
/// Minutes that should be closed by now and are not: what is missing in them would look like an anomaly.
const BEHIND_MS: Millis = 2 * MINUTE_MS;
/// Who does not look for so long loses the lease to another host.
const LEASE_MS: Millis = 30 * SECOND_MS;
/// What is on its way when the host stops is waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub struct Watcher {
    alerts: Arc<Alerts>,
    services: Arc<Services>,
    status: Arc<Status>,
    /// Where hosts share their state: who tells.
    lease: Option<Arc<SharedLease>>,
}

/// What lasts is lost with nobody: on this host's disk, or where all hosts are.
struct InFolder(Arc<Embedded>);

impl Place for InFolder {
    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        self.0.meta_get(META_ALERTS).map_err(|error| error.to_string())
    }

    fn save(&self, state: &[u8]) -> Result<(), String> {
        self.0.meta_put(META_ALERTS, state).map_err(|error| error.to_string())
    }
}

pub struct SharedLease {
    store: Arc<RedisStore>,
    lease: Lease,
}

struct InRedis(Arc<SharedLease>);

impl Place for InRedis {
    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        self.0.store.told().map_err(|error| error.to_string())
    }

    fn save(&self, state: &[u8]) -> Result<(), String> {
        match self.0.store.keep_told(&self.0.lease, state) {
            Ok(true) => Ok(()),
            Ok(false) => Err("another host tells by now".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Where the alerts' state is, and for hosts that share it who has it.
pub fn place(hot: &Hot, embedded: &Arc<Embedded>, refresh_ms: Millis) -> (Box<dyn Place>, Option<Arc<SharedLease>>) {
    match hot {
        Hot::Memory(_) => (Box::new(InFolder(embedded.clone())), None),
        Hot::Redis(store) => {
            let lease = Lease::new("alerts", LEASE_MS.max(3 * refresh_ms) as u64);
            let shared = Arc::new(SharedLease { store: store.clone(), lease });
            (Box::new(InRedis(shared.clone())), Some(shared))
        }
    }
}

impl Watcher {
    pub fn new(
        alerts: Arc<Alerts>,
        services: Arc<Services>,
        status: Arc<Status>,
        lease: Option<Arc<SharedLease>>,
    ) -> Self {
        Self { alerts, services, status, lease }
    }

    /// Asks the rules, unless this is not the time or not the host to.
    pub fn look(&self, now: Millis) {
        let active = self.services.active.load_full();
        if !self.is_ours() || !self.alerts.take_up(&active.definitions) {
            self.alerts.leave();
            return;
        }
        match self.silence(now) {
            Some(why) => self.alerts.stay_silent(why),
            None => {
                let started = Instant::now();
                let (looks, rules) = self.ask(&active, now);
                self.alerts.observe(&looks, rules, now);
                self.services.telemetry.alerts.look_seconds.observe(started.elapsed().as_secs_f64());
            }
        }
        self.alerts.save();
        self.alerts.wake();
    }

    fn is_ours(&self) -> bool {
        let Some(shared) = &self.lease else { return true };
        match shared.store.take(&shared.lease) {
            Ok(fence) => fence.is_some(),
            Err(error) => {
                tracing::debug!(%error, "nobody is told of anomalies while Redis does not answer");
                false
            }
        }
    }

    /// Why points may be missing something.
    fn silence(&self, now: Millis) -> Option<String> {
        if !self.status.recovered.load(Relaxed) {
            return Some("recovering".into());
        }
        if let Some(stale) = self.status.ticker.hot.stale() {
            return Some(format!("the numbers are old: {stale}"));
        }
        let closed = self.services.evaluator.reader.provisional_from().start();
        let behind_ms = now - self.status.ticker.grace_ms - closed;
        (behind_ms > BEHIND_MS).then(|| format!("catching up: {} s behind", behind_ms / SECOND_MS))
    }

    /// What the rules see that somebody is told of.
    fn ask<'a>(&self, active: &'a Active, now: Millis) -> (Vec<Look<'a>>, Vec<RuleStatus>) {
        let definitions = &active.definitions;
        let (mut looks, mut statuses) = (Vec::new(), Vec::new());
        let wanted = |rule: &&AnomalyRule| definitions.notify.iter().any(|notify| notify.wants(rule.metric));
        let mut left: Vec<&AnomalyRule> = definitions.rules.iter().filter(wanted).collect();
        while let Some(first) = left.first().copied() {
            // Those that judge the same series are asked together.
            let (together, others): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|rule| (rule.metric, &rule.by) == (first.metric, &first.by));
            left = others;
            let rules: Vec<AnomalyRule> = together.iter().copied().cloned().collect();
            let watched = self.services.evaluator.watch(active, &rules, SERIES_MAX, now);
            for (at, rule) in together.into_iter().enumerate() {
                let metric = &definitions.metrics[rule.metric].name;
                let runs = watched.as_ref().ok().filter(|watched| !forgotten(rule, at, watched)).map(|watched| {
                    let run = |series: &JudgedSeries| {
                        let judged = &series.rules.get(at)?.judged;
                        let run = Run::of(
                            judged,
                            |step| watched.grid.time(step as usize),
                            watched.closed,
                            rule.kind.is_absent(),
                        )?;
                        let values = series.points.labels.iter().map(|value| value.to_string());
                        Some((rule.by.iter().cloned().zip(values).collect::<Labels>(), run))
                    };
                    watched.series.iter().filter_map(run).collect()
                });
                looks.push(Look { rule: &rule.name, kind: rule.kind.label(), metric, runs });
                statuses.push(RuleStatus {
                    rule: rule.name.clone(),
                    metric: metric.clone(),
                    series: watched.as_ref().map_or(0, |watched| watched.series.len()),
                    over: watched.as_ref().map_or(0, |watched| watched.over),
                    error: watched.as_ref().err().map(|error| error.message.clone()),
                });
            }
        }
        (looks, statuses)
    }

    /// Another host tells at once, and does not wait for the lease to run out.
    fn give_back(&self) {
        if let Some(shared) = &self.lease
            && let Err(error) = shared.store.give_back(&shared.lease)
        {
            tracing::debug!(%error, "the lease of alerts runs out by itself");
        }
    }
}

/// A total that is silent for longer than anybody remembers is as silent as before.
fn forgotten(rule: &AnomalyRule, at: usize, watched: &Watched) -> bool {
    let judged = |series: &JudgedSeries| series.rules.get(at).is_some_and(|rule| !rule.judged.is_empty());
    rule.kind.is_absent() && rule.by.is_empty() && !watched.series.iter().any(judged)
}

/// Looks every `refresh_ms`, and sees that every target has its task.
pub async fn run(watcher: Arc<Watcher>, refresh_ms: Millis, mut stopped: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_millis(refresh_ms.max(1) as u64));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut client: Option<Arc<Client>> = None;
    let mut tasks: HashMap<String, JoinHandle<()>> = HashMap::new();
    while !*stopped.borrow() {
        tokio::select! {
            _ = every.tick() => {}
            _ = stopped.changed() => break,
        }
        let looking = watcher.clone();
        let look = move || looking.look(looking.services.clock.now());
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "asking the rules failed");
        }
        tasks.retain(|_, task| !task.is_finished());
        for name in watcher.alerts.targets() {
            let client = client.get_or_insert_with(Arc::default);
            let task = |name: &String| {
                tokio::spawn(sender::run(watcher.alerts.clone(), name.clone(), client.clone(), stopped.clone()))
            };
            tasks.entry(name).or_insert_with_key(task);
        }
    }
    let last = async {
        for task in tasks.values_mut() {
            // A task that failed has said so.
            let _ = task.await;
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, last).await;
    tasks.values().for_each(JoinHandle::abort);
    let keeping = watcher.clone();
    let _ = tokio::task::spawn_blocking(move || {
        keeping.alerts.save();
        keeping.give_back();
    })
    .await;
}
