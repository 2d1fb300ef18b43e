//! What one target knows of, and what it is to be told: from what rules saw and the time to batches. Pure: the time is an
//! argument, nothing is sent or stored here.
//!
//! It goes by state and not by a queue of messages: an alert says whether it fires, and when the target was last told so.
//! A target that was away for an hour is told what is so now, and of what began and ended meanwhile once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::anomaly::Judged;
use crate::time::{MINUTE_MS, Millis};

/// Alerts of one target; what is more is not told, and counted.
pub const ALERTS_MAX: usize = 2_000;

/// Dimension and value, in the order of the rule's `by`.
pub type Labels = Vec<(String, String)>;

/// An anomalous point. What does not exist is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub t: Millis,
    pub value: Option<f64>,
    pub expected: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub score: Option<f64>,
}

/// A series is anomalous up to now.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its first anomalous point without a normal one behind it.
    pub first: Millis,
    /// Nothing normal was seen before: it may have begun earlier.
    pub began_before: bool,
    pub last: Seen,
}

impl Run {
    /// From verdicts in the order of time; steps before `closed` are. What is open and normal says nothing yet, unless
    /// `open_counts`.
    pub fn of(judged: &[Judged], time: impl Fn(u32) -> Millis, closed: usize, open_counts: bool) -> Option<Self> {
        let says = |judged: &&Judged| judged.verdict.anomalous || open_counts || (judged.step as usize) < closed;
        let mut newest_first = judged.iter().rev().filter(says).peekable();
        let last = **newest_first.peek()?;
        let mut first = None;
        while let Some(judged) = newest_first.next_if(|judged| judged.verdict.anomalous) {
            first = Some(judged.step);
        }
        let number = |value: f64| value.is_finite().then_some(value);
        let verdict = last.verdict;
        let seen = Seen {
            t: time(last.step),
            value: number(last.value),
            expected: number(verdict.expected),
            lower: number(verdict.lower),
            upper: number(verdict.upper),
            score: number(verdict.score),
        };
        Some(Self { first: time(first?), began_before: newest_first.peek().is_none(), last: seen })
    }
}

/// What a rule saw when it was last asked.
pub struct Look<'a> {
    pub rule: &'a str,
    /// As answers show it.
    pub kind: &'a str,
    pub metric: &'a str,
    /// The series that are anomalous; `None`: it could not be asked, all stays as it is.
    pub runs: Option<BTreeMap<Labels, Run>>,
}

/// What a target asks for.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub for_ms: Millis,
    /// Told again after this time, while it lasts.
    pub again_ms: Millis,
    /// The end, too, is told again for so long; 0: once.
    pub ends_again_ms: Millis,
    /// Alerts in one batch.
    pub batch_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub rule: String,
    pub labels: Labels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not for long enough.
    Pending,
    Firing,
    Ended,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub phase: Phase,
    pub kind: String,
    pub metric: String,
    /// The first anomalous point.
    pub since: Millis,
    /// Its end, where it has ended.
    pub until: Option<Millis>,
    /// The newest anomalous point.
    pub seen: Seen,
    /// When the target was last told that it fires, that it has ended.
    pub told: Option<Millis>,
    pub told_end: Option<Millis>,
}

/// Alerts of one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(Key, Alert)>", into = "Vec<(Key, Alert)>")]
pub struct State {
    pub alerts: BTreeMap<Key, Alert>,
}

impl From<Vec<(Key, Alert)>> for State {
    fn from(alerts: Vec<(Key, Alert)>) -> Self {
        Self { alerts: alerts.into_iter().take(ALERTS_MAX).collect() }
    }
}

impl From<State> for Vec<(Key, Alert)> {
    fn from(state: State) -> Self {
        state.alerts.into_iter().collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Began,
    /// Told before, and it lasts.
    Lasts,
    Ended,
}

/// Alerts of one rule that are told together.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub news: News,
    pub alerts: Vec<(Key, Alert)>,
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// More than the newest values: it is worth keeping.
    pub changed: bool,
    /// Series that had no room.
    pub over: usize,
}

impl Key {
    /// Of one incident: the same from its start to its end, and over restarts.
    pub fn id(&self, since: Millis) -> String {
        let mut text = format!("{}\0{since}", self.rule);
        for (name, value) in &self.labels {
            text.push_str(&format!("\0{name}\0{value}"));
        }
        format!("{:016x}", xxh3_64(text.as_bytes()))
    }
}

impl State {
    /// `looks`: of all rules that the target wants; alerts of other rules end.
    pub fn observe(&mut self, policy: &Policy, looks: &[&Look], now: Millis) -> Observed {
        let mut observed = Observed::default();
        self.alerts.retain(|key, alert| {
            let look = looks.iter().find(|look| look.rule == key.rule);
            let goes_on = look.is_some_and(|look| look.runs.as_ref().is_none_or(|runs| runs.contains_key(&key.labels)));
            if goes_on {
                return true;
            }
            let kept = alert.end(policy, now);
            observed.changed |= kept != Some(alert.phase);
            kept.inspect(|phase| alert.phase = *phase).is_some()
        });
        for look in looks {
            for (labels, run) in look.runs.iter().flatten() {
                let key = Key { rule: look.rule.to_owned(), labels: labels.clone() };
                let full = self.alerts.len() >= ALERTS_MAX;
                match self.alerts.get_mut(&key) {
                    Some(alert) => observed.changed |= alert.goes_on(policy, run, now),
                    None if full => observed.over += 1,
                    None => {
                        self.alerts.insert(key, Alert::begin(look, policy, run, now));
                        observed.changed = true;
                    }
                }
            }
        }
        observed
    }

    /// What is to be told next; `None`: nothing now. Starts before ends before what lasts, rule by rule.
    pub fn due(&self, policy: &Policy, now: Millis) -> Option<Batch> {
        let wanted = |news| {
            let first = self.alerts.iter().find(|(_, alert)| alert.is_due(policy, news, now, false))?.0;
            // What is almost due comes along, so that a rule's series go on being told together.
            let of_rule = self
                .alerts
                .iter()
                .filter(|(key, alert)| key.rule == first.rule && alert.is_due(policy, news, now, true));
            let alerts = of_rule.take(policy.batch_max).map(|(key, alert)| (key.clone(), alert.clone())).collect();
            Some(Batch { news, alerts })
        };
        [News::Began, News::Ended, News::Lasts].into_iter().find_map(wanted)
    }

    /// The target has taken the batch.
    pub fn told(&mut self, policy: &Policy, batch: &Batch, now: Millis) {
        for (key, sent) in &batch.alerts {
            let Some(alert) = self.alerts.get_mut(key).filter(|alert| alert.since == sent.since) else { continue };
            match (batch.news, alert.phase) {
                (News::Ended, Phase::Ended) if policy.ends_again_ms == 0 => drop(self.alerts.remove(key)),
                (News::Ended, Phase::Ended) => alert.told_end = Some(now),
                // It has begun again while its end was told.
                (News::Ended, _) => alert.told = None,
                _ => alert.told = Some(now),
            }
        }
    }
}

impl Alert {
    fn begin(look: &Look, policy: &Policy, run: &Run, now: Millis) -> Self {
        let mut alert = Self {
            phase: Phase::Pending,
            kind: look.kind.to_owned(),
            metric: look.metric.to_owned(),
            since: run.first,
            until: None,
            seen: run.last.clone(),
            told: None,
            told_end: None,
        };
        alert.fire_if_it_lasts(policy, now);
        alert
    }

    /// True: more than the newest point has changed.
    fn goes_on(&mut self, policy: &Policy, run: &Run, now: Millis) -> bool {
        let before = (self.phase, self.since);
        match self.phase {
            Phase::Firing => {}
            Phase::Pending if run.began_before => self.since = self.since.min(run.first),
            Phase::Pending => self.since = run.first,
            // Its end was not told yet: for the target it has never ended.
            Phase::Ended if self.told_end.is_none() => self.phase = Phase::Firing,
            Phase::Ended => {
                (self.since, self.told, self.told_end, self.phase) = (run.first, None, None, Phase::Pending);
            }
        }
        self.until = None;
        self.seen = run.last.clone();
        self.fire_if_it_lasts(policy, now);
        before != (self.phase, self.since)
    }

    fn fire_if_it_lasts(&mut self, policy: &Policy, now: Millis) {
        let lasted = (self.seen.t + MINUTE_MS).min(now) - self.since;
        if self.phase == Phase::Pending && lasted >= policy.for_ms {
            self.phase = Phase::Firing;
        }
    }

    /// It is not anomalous any more. `None`: nobody is to be told of that, it is forgotten.
    fn end(&mut self, policy: &Policy, now: Millis) -> Option<Phase> {
        match self.phase {
            Phase::Pending => return None,
            Phase::Firing => self.until = Some((self.seen.t + MINUTE_MS).min(now)),
            Phase::Ended => {}
        }
        let over_with = self.told_end.is_some() && self.until.is_none_or(|until| until + policy.ends_again_ms <= now);
        (!over_with).then_some(Phase::Ended)
    }

    /// `almost`: a tenth of the time before it is due, too.
    fn is_due(&self, policy: &Policy, news: News, now: Millis, almost: bool) -> bool {
        let every = if almost { policy.again_ms - policy.again_ms / 10 } else { policy.again_ms };
        match (news, self.phase) {
            (News::Began, Phase::Firing) => self.told.is_none(),
            (News::Lasts, Phase::Firing) => self.told.is_some_and(|told| told + every <= now),
            (News::Ended, Phase::Ended) => self.told_end.is_none_or(|told| told + every <= now),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
