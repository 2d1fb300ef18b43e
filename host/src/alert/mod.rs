//! Who is told of anomalies, and of what: the alerts of each target (`state`), what is sent (`message`) and how (`sender`,
//! `client`). Does not know how series are judged, nor where its state is kept.
//!
//! Each target has a task of its own. The lock is held for moments, never while something is sent or stored: a target that
//! hangs delays nobody.

pub mod client;
mod message;
pub mod sender;
pub mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify as Wake;
use url::Url;

use crate::catalog::definitions::{Definitions, Notify, TargetKind};
use crate::telemetry::{ByTarget, Telemetry};
use crate::time::{Clock, MINUTE_MS, Millis};
use state::{Batch, Look, Phase, Policy, State};

/// An Alertmanager forgets what it is not told again.
const ALERTMANAGER_AGAIN_MS: Millis = MINUTE_MS;
/// And loses ends when it restarts.
const ALERTMANAGER_ENDS_MS: Millis = 5 * MINUTE_MS;
const BATCH_MAX: usize = 100;
const FORMAT: u32 = 1;
/// Alerts that `status` lists.
const LISTED_MAX: usize = 1_000;

/// Where the state is kept: on this host, or where hosts share it.
pub trait Place: Send + Sync {
    fn load(&self) -> Result<Option<Vec<u8>>, String>;
    /// Whole or not at all, and durable when it returns.
    fn save(&self, state: &[u8]) -> Result<(), String>;
}

pub struct Alerts {
    inner: Mutex<Inner>,
    place: Box<dyn Place>,
    /// Held while the state is written, so that an older one never replaces a newer.
    saving: Mutex<()>,
    clock: Clock,
    telemetry: Arc<Telemetry>,
}

#[derive(Default)]
struct Inner {
    definitions: Option<Arc<Definitions>>,
    targets: BTreeMap<String, Target>,
    /// This host tells; else another one does.
    tells: bool,
    /// Why rules are not asked.
    silent: Option<String>,
    looked_at: Option<Millis>,
    rules: Vec<RuleStatus>,
    dirty: bool,
}

struct Target {
    notify: Notify,
    policy: Policy,
    state: State,
    wake: Arc<Wake>,
    sent: u64,
    failures: u64,
    last_sent: Option<Millis>,
    /// Of the last try.
    error: Option<String>,
}

/// What came of a rule at the last look.
#[derive(Clone, Debug, Serialize)]
pub struct RuleStatus {
    pub rule: String,
    pub metric: String,
    /// Series that were judged, and that were too many.
    pub series: usize,
    pub over: usize,
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    targets: BTreeMap<String, State>,
}

fn policy(notify: &Notify) -> Policy {
    let (again_ms, ends_again_ms) = match notify.kind {
        TargetKind::Alertmanager => (ALERTMANAGER_AGAIN_MS, ALERTMANAGER_ENDS_MS),
        TargetKind::Webhook | TargetKind::Slack => (notify.repeat_ms, 0),
    };
    Policy { for_ms: notify.for_ms, again_ms, ends_again_ms, batch_max: BATCH_MAX }
}

impl Alerts {
    pub fn new(place: Box<dyn Place>, clock: Clock, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), place, saving: Mutex::default(), clock, telemetry })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This host tells, by these definitions. Begins where the one that told before stood. False: that cannot be had now.
    pub fn take_up(&self, definitions: &Arc<Definitions>) -> bool {
        let begins = !self.lock().tells;
        let states = match begins.then(|| self.place.load()) {
            None => BTreeMap::new(),
            Some(Ok(stored)) => stored.map_or_else(BTreeMap::new, |bytes| understood(&bytes)),
            Some(Err(error)) => {
                tracing::warn!(%error, "what was told of anomalies cannot be read; nobody is told until it can");
                return false;
            }
        };
        self.lock().adopt(definitions, states);
        true
    }

    /// Another host tells.
    pub fn leave(&self) {
        let mut inner = self.lock();
        if inner.tells {
            // Their tasks end.
            inner.targets.values().for_each(|target| target.wake.notify_one());
            *inner = Inner { definitions: inner.definitions.take(), ..Inner::default() };
        }
    }

    /// What rules saw at this look, in the order of the definitions. Targets that have something to tell are woken.
    pub fn observe(&self, looks: &[Look], rules: Vec<RuleStatus>, now: Millis) {
        let mut inner = self.lock();
        let Inner { definitions: Some(definitions), targets, dirty, .. } = &mut *inner else { return };
        let metric = |name: &str| definitions.metrics.iter().position(|metric| metric.name == name);
        let mut over: usize = rules.iter().map(|rule| rule.over).sum();
        for target in targets.values_mut() {
            let wanted = looks.iter().filter(|look| metric(look.metric).is_some_and(|id| target.notify.wants(id)));
            let wanted: Vec<&Look> = wanted.collect();
            let observed = target.state.observe(&target.policy, &wanted, now);
            *dirty |= observed.changed;
            over += observed.over;
            let firing = target.state.alerts.values().filter(|alert| alert.phase == Phase::Firing).count();
            self.telemetry.alerts.firing.get_or_create(&by(&target.notify.name)).set(firing as i64);
        }
        self.telemetry.alerts.series_over_limit.inc_by(over as u64);
        self.telemetry.alerts.rules_failed.inc_by(rules.iter().filter(|rule| rule.error.is_some()).count() as u64);
        (inner.silent, inner.looked_at, inner.rules) = (None, Some(now), rules);
    }

    /// Rules are not asked for this reason: all stays as it is.
    pub fn stay_silent(&self, why: String) {
        self.lock().silent = Some(why);
    }

    /// Everybody who is to be told has another look at what.
    pub fn wake(&self) {
        self.lock().targets.values().for_each(|target| target.wake.notify_one());
    }

    /// Keeps what has changed. What cannot be kept now is tried again with the next change or look.
    pub fn save(&self) {
        let _one = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = {
            let mut inner = self.lock();
            if !inner.tells || !std::mem::take(&mut inner.dirty) {
                return;
            }
            let targets = inner.targets.iter().map(|(name, target)| (name.clone(), target.state.clone())).collect();
            Stored { format: FORMAT, targets }
        };
        let bytes = serde_json::to_vec(&stored).map_err(|error| error.to_string());
        if let Err(error) = bytes.and_then(|bytes| self.place.save(&bytes)) {
            tracing::warn!(%error, "what was told of anomalies is not kept: it may be told again after a restart");
            self.lock().dirty = true;
        }
    }

    /// Names of the targets that are to have a task.
    pub fn targets(&self) -> Vec<String> {
        self.lock().targets.keys().cloned().collect()
    }

    /// As `GET /v1/alerts` shows it.
    pub fn status(&self) -> Value {
        let inner = self.lock();
        let target = |target: &Target| {
            let Target { notify, sent, failures, last_sent, error, .. } = target;
            json!({
                "name": notify.name,
                "kind": notify.kind.name(),
                // Without its path: that may be a secret.
                "server": notify.server(),
                "sent": sent,
                "failures": failures,
                "last_sent": last_sent,
                "last_error": error,
            })
        };
        let all = inner
            .targets
            .values()
            .flat_map(|target| target.state.alerts.iter().map(move |(key, alert)| (&target.notify.name, key, alert)));
        let alert = |(name, key, alert): (&String, &state::Key, &state::Alert)| {
            let labels: serde_json::Map<_, _> =
                key.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            json!({
                "id": key.id(alert.since),
                "target": name,
                "rule": key.rule,
                "metric": alert.metric,
                "labels": labels,
                "phase": alert.phase,
                "since": alert.since,
                "until": alert.until,
                "value": alert.seen.value,
                "told": alert.told,
            })
        };
        json!({
            "tells": inner.tells,
            "silent": inner.silent,
            "looked_at": inner.looked_at,
            "targets": inner.targets.values().map(target).collect::<Vec<_>>(),
            "rules": inner.rules,
            "alerts": all.clone().take(LISTED_MAX).map(alert).collect::<Vec<_>>(),
            "more": all.count().saturating_sub(LISTED_MAX),
        })
    }

    /// What this target is to be told next, and how; `None`: there is no such target any more.
    fn next(&self, name: &str) -> Option<Next> {
        let inner = self.lock();
        let target = inner.targets.get(name)?;
        let due = target.state.due(&target.policy, self.clock.now()).zip(inner.definitions.as_ref());
        let message = due.map(|(batch, definitions)| {
            let body = message::body(target.notify.kind, name, &batch, definitions, self.clock.now());
            Message { url: message::address(&target.notify), body, batch }
        });
        Some(Next { wake: target.wake.clone(), message })
    }

    fn note(&self, name: &str, batch: &Batch, outcome: &Result<(), String>) {
        let now = self.clock.now();
        let mut inner = self.lock();
        let Inner { targets, dirty, .. } = &mut *inner;
        let Some(target) = targets.get_mut(name) else { return };
        match outcome {
            Ok(()) => {
                target.state.told(&target.policy, batch, now);
                target.sent += 1;
                (target.last_sent, target.error) = (Some(now), None);
                *dirty = true;
                self.telemetry.alerts.sent.get_or_create(&by(name)).inc();
            }
            Err(error) => {
                if target.error.is_none() {
                    tracing::warn!(target = name, server = target.notify.server(), %error, "a target does not take what it is told");
                }
                target.failures += 1;
                target.error = Some(error.clone());
                self.telemetry.alerts.failures.get_or_create(&by(name)).inc();
            }
        }
    }
}

/// What a target's task does next.
struct Next {
    wake: Arc<Wake>,
    message: Option<Message>,
}

struct Message {
    url: Url,
    body: Vec<u8>,
    batch: Batch,
}

fn by(target: &str) -> ByTarget {
    ByTarget { target: target.to_owned() }
}

fn understood(bytes: &[u8]) -> BTreeMap<String, State> {
    let reason = match serde_json::from_slice::<Stored>(bytes) {
        Ok(stored) if stored.format == FORMAT => return stored.targets,
        Ok(stored) => format!("format {}", stored.format),
        Err(error) => error.to_string(),
    };
    tracing::error!(%reason, "what was told of anomalies cannot be understood: all that is anomalous is told anew");
    BTreeMap::new()
}

impl Inner {
    /// Targets of the same name go on, whatever their address is now.
    fn adopt(&mut self, definitions: &Arc<Definitions>, mut states: BTreeMap<String, State>) {
        let same = self.definitions.as_ref().is_some_and(|known| Arc::ptr_eq(known, definitions));
        if self.tells && same {
            return;
        }
        let mut before = std::mem::take(&mut self.targets);
        for notify in &definitions.notify {
            let target = before.remove(&notify.name).unwrap_or_else(|| Target {
                notify: notify.clone(),
                policy: policy(notify),
                state: states.remove(&notify.name).unwrap_or_default(),
                wake: Arc::default(),
                sent: 0,
                failures: 0,
                last_sent: None,
                error: None,
            });
            let target = Target { notify: notify.clone(), policy: policy(notify), ..target };
            self.targets.insert(notify.name.clone(), target);
        }
        self.dirty |= !before.is_empty() || !states.is_empty();
        self.definitions = Some(definitions.clone());
        self.tells = true;
        // Tasks of targets that are gone end.
        before.values().for_each(|target| target.wake.notify_one());
    }
}
