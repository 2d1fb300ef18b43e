//! A topic: what equal subscriptions share. One computation, one encoding, one numbering of series.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::frame::{Body, DeltaWriter, snapshot};
use super::request::TopicKey;
use crate::anomaly::Judged;
use crate::catalog::definitions::{Active, AnomalyRule, RuleKind};
use crate::serve::query::answer::has_band;
use crate::serve::query::bind::{Bound, bind};
use crate::serve::query::view::{JudgedSeries, Span, View, rules_of};
use crate::serve::query::{Evaluator, grid_of};
use crate::time::Millis;
use crate::web::ApiError;

/// So many changes, and so much of them, are kept for those who are a little behind; who is further behind gets a snapshot.
const CHANGES_MAX: usize = 8;
const CHANGES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Series that were shown once keep their index. With so many more than there are now, numbering begins anew.
const GONE_SERIES_MAX: usize = 10_000;

pub struct Topic {
    pub key: TopicKey,
    /// Held while the topic is computed. `None` before the first time.
    model: Mutex<Option<Model>>,
    published: ArcSwapOption<Published>,
    /// To be woken once there is something.
    waiting: Mutex<Vec<Arc<Notify>>>,
}

pub enum Published {
    Version(Version),
    Failed(ApiError),
}

/// The topic's state after a refresh that changed something. Clients are brought from one to a later one.
pub struct Version {
    /// From 1, without gaps.
    pub number: u64,
    /// What led here from the versions before, newest last.
    changes: VecDeque<Arc<Change>>,
    snapshot: OnceLock<Body>,
}

pub struct Change {
    pub bodies: Vec<Body>,
    bytes: usize,
}

/// What the topic shows.
pub struct Model {
    bound: Bound,
    rules: Vec<AnomalyRule>,
    pub revision: u64,
    number: u64,
    /// Series in the order of their indexes.
    pub view: View,
    indexes: HashMap<Vec<Arc<str>>, usize>,
}

impl Model {
    pub fn step_ms(&self) -> Millis {
        self.view.span.grid.step_ms
    }
}

impl Topic {
    pub fn new(key: TopicKey) -> Self {
        let (model, published, waiting) = (Mutex::default(), ArcSwapOption::empty(), Mutex::default());
        Self { key, model, published, waiting }
    }

    pub fn published(&self) -> Option<Arc<Published>> {
        self.published.load_full()
    }

    /// Wakes `who` once, when there is something to show.
    pub fn wake_when_ready(&self, who: Arc<Notify>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(who);
    }

    /// The snapshot of the newest version and that version's number. Encoded by whoever asks first; may block.
    pub fn snapshot(&self) -> Option<(u64, Body)> {
        let model = self.lock();
        let published = self.published()?;
        let Published::Version(version) = &*published else { return None };
        let model = model.as_ref().filter(|model| model.number == version.number)?;
        Some((version.number, version.snapshot.get_or_init(|| snapshot(model)).clone()))
    }

    /// Brings the topic up to date; true if there is something new to send. Blocking.
    pub fn refresh(&self, evaluator: &Evaluator, active: &Active, now: Millis) -> bool {
        let mut model = self.lock();
        let number = model.as_ref().map_or(0, |model| model.number);
        let published = match self.bring_up_to_date(&mut model, evaluator, active, now) {
            Ok(None) => return false,
            Ok(Some(bodies)) => self.version(number, model.as_ref().map_or(0, |model| model.number), bodies),
            // The store may be well again next time: what is shown stays until then.
            Err(error) if error.status.is_server_error() && model.is_some() => return false,
            Err(error) => {
                let removed = error.code == "unknown_metric" && model.take().is_some();
                Published::Failed(if removed { metric_removed(&self.key) } else { error })
            }
        };
        self.published.store(Some(Arc::new(published)));
        drop(model);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|who| who.notify_one());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<Model>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: nothing changed. Some: what leads from the version before to the new one; empty: only a snapshot does.
    fn bring_up_to_date(
        &self,
        model: &mut Option<Model>,
        evaluator: &Evaluator,
        active: &Active,
        now: Millis,
    ) -> Result<Option<Vec<Body>>, ApiError> {
        let TopicKey { subject, step_ms, range_ms } = &self.key;
        let mut begin_anew = None;
        if model.as_ref().is_none_or(|model| model.revision != active.revision) {
            let (bound, rules) = (bind(active, subject)?, rules_of(active, subject, *step_ms));
            match model {
                Some(model) if model.bound == bound && same_rules(&model.rules, &rules) => {
                    model.revision = active.revision
                }
                _ => begin_anew = Some((bound, rules)),
            }
        }
        let (bound, rules) = match (&begin_anew, &*model) {
            (Some((bound, rules)), _) => (bound, rules),
            (None, Some(model)) => (&model.bound, &model.rules),
            (None, None) => return Err(ApiError::internal("a topic without a model")),
        };
        let to = now - now.rem_euclid(*step_ms) + step_ms;
        let asked = grid_of(to - range_ms, to, *step_ms, now, bound, 0);
        let view = evaluator.view(bound, asked, rules, now)?;
        let number = model.as_ref().map_or(0, |model| model.number);
        if let (None, Some(model)) = (&begin_anew, &mut *model)
            && view.series.len() + GONE_SERIES_MAX > model.indexes.len()
        {
            return Ok(model.advance(view));
        }
        let (bound, rules) = match (begin_anew, model.take()) {
            (Some(fresh), _) => fresh,
            (None, Some(model)) => (model.bound, model.rules),
            (None, None) => return Err(ApiError::internal("a topic without a model")),
        };
        let indexes = view.series.iter().enumerate().map(|(at, series)| (series.points.labels.clone(), at)).collect();
        *model = Some(Model { bound, rules, revision: active.revision, number: number + 1, view, indexes });
        Ok(Some(Vec::new()))
    }

    fn version(&self, before: u64, number: u64, bodies: Vec<Body>) -> Published {
        let mut changes = VecDeque::new();
        if !bodies.is_empty()
            && let Some(published) = self.published()
            && let Published::Version(version) = &*published
            && version.number == before
        {
            changes = version.changes.clone();
            let bytes = bodies.iter().map(|body| body.bytes.len()).sum();
            changes.push_back(Arc::new(Change { bodies, bytes }));
        }
        while changes.len() > CHANGES_MAX
            || changes.iter().map(|change| change.bytes).sum::<usize>() > CHANGES_BYTES_MAX
        {
            changes.pop_front();
        }
        Published::Version(Version { number, changes, snapshot: OnceLock::new() })
    }
}

impl Version {
    /// The changes that lead here from version `number`, oldest first; `None` where they are not kept.
    pub fn since(&self, number: u64) -> Option<impl Iterator<Item = &Arc<Change>>> {
        let missing = usize::try_from(self.number.checked_sub(number)?).ok()?;
        let from = self.changes.len().checked_sub(missing)?;
        Some(self.changes.range(from..))
    }

    /// The snapshot, if somebody has encoded it already.
    pub fn encoded(&self) -> Option<&Body> {
        self.snapshot.get()
    }
}

fn metric_removed(key: &TopicKey) -> ApiError {
    let message = format!("metric `{}` is no longer defined", key.subject.metric);
    ApiError::bad_request(
        "metric_removed",
        message,
        "Its state is kept until retention ends: define it again to see it.",
    )
}

fn same_rules(a: &[AnomalyRule], b: &[AnomalyRule]) -> bool {
    let same = |(a, b): (&AnomalyRule, &AnomalyRule)| match (&a.kind, &b.kind) {
        (RuleKind::Zscore { threshold: a, baseline_ms: x }, RuleKind::Zscore { threshold: b, baseline_ms: y }) => {
            a == b && x == y
        }
        (RuleKind::Threshold { above: a, below: x }, RuleKind::Threshold { above: b, below: y }) => a == b && x == y,
        (RuleKind::Absent { for_ms: a, baseline_ms: x }, RuleKind::Absent { for_ms: b, baseline_ms: y }) => {
            a == b && x == y
        }
        (RuleKind::Plugin { detector: a, plugin: x }, RuleKind::Plugin { detector: b, plugin: y }) => {
            Arc::ptr_eq(a, b) && x == y
        }
        _ => false,
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

impl Model {
    /// Takes the newer view over, keeping indexes. Gives what changed: `None` where nothing did.
    fn advance(&mut self, mut new: View) -> Option<Vec<Body>> {
        let mut delta = DeltaWriter::default();
        let before = (self.view.seq, self.view.span.clone(), self.view.provisional_from());
        let mut fresh = Vec::new();
        let found = std::mem::take(&mut new.series);
        let by = std::mem::take(&mut new.by);
        let mut series: Vec<JudgedSeries> = (0..self.view.series.len()).map(|_| JudgedSeries::default()).collect();
        for judged in found {
            match self.indexes.get(&judged.points.labels) {
                Some(&index) => series[index] = judged,
                None => fresh.push(judged),
            }
        }
        // A series that is not in the range any more keeps its place, without points.
        for (old, new) in self.view.series.iter().zip(&mut series) {
            if new.points.steps.is_empty() {
                new.points.labels = old.points.labels.clone();
            }
        }
        for judged in fresh {
            delta.new_series(&by, &judged.points);
            self.indexes.insert(judged.points.labels.clone(), series.len());
            series.push(judged);
        }
        if new.complete_from != self.view.complete_from {
            delta.complete_from(new.complete_from);
        }
        let nothing = JudgedSeries::default();
        for (index, new_series) in series.iter().enumerate() {
            let old_series = self.view.series.get(index).unwrap_or(&nothing);
            write_changes(&mut delta, index, &by, old_series, &before.1, new_series, &new.span);
        }
        self.view = View { by, series, ..new };
        let provisional_from = self.view.provisional_from();
        let closed = self.shows_point_between(before.2, provisional_from);
        let bodies = delta.finish(before.0, self.view.seq, provisional_from, closed);
        if bodies.is_empty() {
            // The last state that was told is what the next delta follows.
            self.view.seq = before.0;
            return None;
        }
        if bodies.iter().all(|body| body.op != "delta") {
            self.view.seq = before.0;
        }
        self.number += 1;
        Some(bodies)
    }

    /// Whether a point that was provisional has become final.
    fn shows_point_between(&self, from: Option<Millis>, to: Option<Millis>) -> bool {
        let Some(from) = from else { return false };
        let span = &self.view.span;
        let to = to.unwrap_or(span.grid.to());
        let times = |series: &JudgedSeries| {
            let newest_first = series.points.steps.iter().rev().map(|&step| span.grid.time(step as usize));
            newest_first.take_while(|t| *t >= from).any(|t| t < to)
        };
        self.view.series.iter().any(times)
    }
}

fn write_changes(
    delta: &mut DeltaWriter,
    index: usize,
    by: &[String],
    old: &JudgedSeries,
    old_span: &Span,
    new: &JudgedSeries,
    new_span: &Span,
) {
    let grid = new_span.grid;
    // A step of the new grid is so many more in the old one.
    let shift = (grid.from - old_span.grid.from) / grid.step_ms;
    let known = old.points.points().enumerate();
    let mut known = known.map(|(at, (step, value))| (step as i64 - shift, value, old.points.list(at))).peekable();
    for (at, (step, value)) in new.points.points().enumerate() {
        let list = new.points.list(at);
        while known.next_if(|(before, ..)| *before < step as i64).is_some() {}
        let is_it = |known: &(i64, f64, Option<&Arc<str>>)| {
            known.0 == step as i64 && known.1.to_bits() == value.to_bits() && known.2 == list
        };
        if known.peek().is_some_and(is_it) {
            continue;
        }
        delta.point(index, grid.time(step), value, list);
    }
    for (number, rule) in new.rules.iter().enumerate() {
        let before = old.rules.get(number).map_or(&[][..], |rule| rule.judged.as_slice());
        let find = |step: i64| {
            let step = u32::try_from(step).ok()?;
            before.binary_search_by_key(&step, |judged| judged.step).ok().map(|at| &before[at])
        };
        for judged in &rule.judged {
            let known = find(i64::from(judged.step) + shift);
            let known = known.filter(|known| known.value.to_bits() == judged.value.to_bits());
            if known.is_none() && number == 0 && has_band(judged) {
                delta.band(index, grid.time(judged.step as usize), judged);
            }
            if judged.verdict.anomalous && known.is_none_or(|known| !known.verdict.anomalous) {
                delta.anomaly(by, &new.points, grid, judged, &rule.label, false);
            }
        }
        for known in before.iter().filter(|known| known.verdict.anomalous) {
            let step = i64::from(known.step) - shift;
            let Some(step) = u32::try_from(step).ok().filter(|step| new_span.range.contains(&(*step as usize))) else {
                continue;
            };
            let now = rule.judged.binary_search_by_key(&step, |judged| judged.step).ok().map(|at| rule.judged[at]);
            let unasked = now.is_none() && rule.partial;
            if !unasked && now.is_none_or(|now| !now.verdict.anomalous) {
                let cleared = now.unwrap_or(Judged { step, ..*known });
                delta.anomaly(by, &new.points, grid, &cleared, &rule.label, true);
            }
        }
    }
}
