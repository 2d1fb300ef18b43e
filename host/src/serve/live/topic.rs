//! A topic: what equal subscriptions share. One computation, one encoding, one numbering of series.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::frame::{Body, snapshot};
use super::model::Model;
use super::request::{Resume, TopicKey};
use crate::catalog::definitions::{Active, AnomalyRule, RuleKind};
use crate::serve::query::bind::bind;
use crate::serve::query::view::rules_of;
use crate::serve::query::{Evaluator, grid_of};
use crate::time::Millis;
use crate::web::ApiError;

/// So many changes, and so much of them, are kept for those who are a little behind; who is further behind gets a snapshot.
const CHANGES_MAX: usize = 8;
const CHANGES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Answers to different resumes of one version that are kept to be sent again.
const RESUMED_MAX: usize = 16;
pub struct Topic {
    pub key: TopicKey,
    /// Held while the topic is computed. `None` before the first time.
    model: Mutex<Option<Model>>,
    published: ArcSwapOption<Published>,
    /// Woken whenever there is something new to show, one for each subscription.
    listeners: Mutex<Vec<Arc<Notify>>>,
    /// Nobody listens since then; 0: somebody does.
    alone_since: AtomicI64,
    /// Not brought up to date, since nobody listens.
    resting: AtomicBool,
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
    /// What leads here, for those who have asked already; `None`: only a snapshot does.
    resumed: Mutex<HashMap<Resume, Option<Arc<[Body]>>>>,
}

/// What is computed when it is first asked for, off the async threads.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    Snapshot,
    Resumed(Resume),
}

pub struct Change {
    pub bodies: Vec<Body>,
    bytes: usize,
}

impl Topic {
    pub fn new(key: TopicKey) -> Self {
        Self {
            key,
            model: Mutex::default(),
            published: ArcSwapOption::empty(),
            listeners: Mutex::default(),
            alone_since: AtomicI64::new(0),
            resting: AtomicBool::new(false),
        }
    }

    pub fn published(&self) -> Option<Arc<Published>> {
        self.published.load_full()
    }

    /// Nobody listens: nothing is shown until somebody does and it was brought up to date again. For how long it has been so.
    pub fn rest(&self, now: Millis) -> Millis {
        if !self.resting.swap(true, Relaxed) {
            self.alone_since.store(now, Relaxed);
            self.published.store(None);
        }
        now - self.alone_since.load(Relaxed)
    }

    /// Somebody listens again. True for the first: it has to be brought up to date.
    pub fn awake(&self) -> bool {
        self.resting.swap(false, Relaxed)
    }

    /// Wakes `who` from now on, whenever there is something new; there may be something already.
    pub fn listen(&self, who: Arc<Notify>) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(who);
    }

    /// One subscription less for which `who` is woken.
    pub fn leave(&self, who: &Arc<Notify>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = listeners.iter().position(|listener| Arc::ptr_eq(listener, who)) {
            listeners.remove(at);
        }
    }

    fn publish(&self, published: Published) {
        self.published.store(Some(Arc::new(published)));
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|who| who.notify_one());
    }

    /// It is over, whoever listens: nothing is shown any more but this.
    pub fn fail(&self, error: ApiError) {
        self.publish(Published::Failed(error));
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.published.load().as_deref(), Some(Published::Failed(_)))
    }

    /// Whether the newest version has what is wanted.
    pub fn has(&self, wanted: Wanted) -> bool {
        match self.published().as_deref() {
            Some(Published::Version(version)) => match wanted {
                Wanted::Snapshot => version.encoded().is_some(),
                Wanted::Resumed(asked) => version.resumed(&asked).is_some(),
            },
            _ => false,
        }
    }

    /// Computes what is wanted of the newest version, unless somebody has. False: the topic is about to change. May block.
    pub fn encode(&self, wanted: Wanted) -> bool {
        let model = self.lock();
        let Some(published) = self.published() else { return false };
        let Published::Version(version) = &*published else { return false };
        let Some(model) = model.as_ref().filter(|model| model.number == version.number) else { return false };
        match wanted {
            Wanted::Snapshot => drop(version.snapshot.get_or_init(|| snapshot(model))),
            Wanted::Resumed(asked) if version.resumed(&asked).is_some() => {}
            Wanted::Resumed(asked) => {
                let lead = model.history.find(asked).map(|mark| {
                    let verdicts = model.history.verdicts_from(mark.number).cloned();
                    std::iter::once(model.since(mark)).chain(verdicts).collect()
                });
                let mut resumed = version.resumed.lock().unwrap_or_else(PoisonError::into_inner);
                if resumed.len() >= RESUMED_MAX {
                    resumed.clear();
                }
                resumed.insert(asked, lead);
            }
        }
        true
    }

    /// Brings the topic up to date and wakes who listens, if there is something new. `untold`: change numbers from here on
    /// were told by no other topic, nor other host; `None`: any may have been. Blocking.
    pub fn refresh(&self, evaluator: &Evaluator, active: &Active, untold: Option<u64>, now: Millis) {
        let mut model = self.lock();
        // Another topic has taken its place, or will.
        if self.has_failed() {
            return;
        }
        let number = model.as_ref().map_or(0, |model| model.number);
        let outcome = self.bring_up_to_date(&mut model, evaluator, active, untold, now);
        let shown = self.published.load().is_some();
        let published = match outcome {
            Ok(None) if shown => return,
            Ok(bodies) => {
                self.version(number, model.as_ref().map_or(0, |model| model.number), bodies.unwrap_or_default())
            }
            // The store may be well again next time: what is shown stays until then.
            Err(error) if error.status.is_server_error() && model.is_some() => {
                if shown {
                    return;
                }
                self.version(number, number, Vec::new())
            }
            Err(error) => {
                let removed = error.code == "unknown_metric" && model.take().is_some();
                Published::Failed(if removed { metric_removed(&self.key) } else { error })
            }
        };
        self.publish(published);
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
        untold: Option<u64>,
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
        let (number, untold_here) = model.as_ref().map_or((0, 0), |model| (model.number, model.view.seq + 1));
        if let (None, Some(model)) = (&begin_anew, &mut *model)
            && model.goes_on_with(&view)
        {
            return Ok(model.advance(view));
        }
        let meaning = match (begin_anew, model.take()) {
            (Some(fresh), _) => fresh,
            (None, Some(model)) => (model.bound, model.rules),
            (None, None) => return Err(ApiError::internal("a topic without a model")),
        };
        let own_from = untold.map(|from| from.max(untold_here));
        *model = Some(Model::new(meaning, active.revision, number + 1, view, own_from));
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
        Published::Version(Version { number, changes, snapshot: OnceLock::new(), resumed: Mutex::default() })
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

    /// What leads here from where a client was, if somebody has asked already; in it `None`: only a snapshot does.
    pub fn resumed(&self, asked: &Resume) -> Option<Option<Arc<[Body]>>> {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner).get(asked).cloned()
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
