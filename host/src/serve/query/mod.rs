//! One evaluator for queries, live topics and replays: what a metric's points are.
//!
//! The way of a question: `request` (URL → question) → `bind` (names → aggregates to read) → `leaf` (states → windows) →
//! `combine` (windows → points) → `answer` (points → JSON).

pub mod answer;
pub mod bind;
mod cache;
pub mod combine;
pub mod complete;
mod funnel;
pub mod leaf;
pub mod replay;
pub mod request;
pub mod view;
pub mod watch;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use answer::{Head, write_answer};
use bind::{Bound, Leaf, bind, find_metric};
use cache::LeafCache;
use combine::Progress;
use leaf::{Grid, LeafAnswer};
use request::Question;
use view::{View, rules_of, span_of, view};

use crate::anomaly::VerdictMemo;
use crate::catalog::definitions::{Active, AnomalyRule};
use crate::store::StateReader;
use crate::time::Millis;
use crate::web::ApiError;

/// Reads of a composite's parts are repeated so often at most to see all of them at one point in time.
const READS_MAX: usize = 3;

/// Answers questions, and remembers what answering them cost.
pub struct Evaluator {
    pub reader: Arc<dyn StateReader>,
    pub memo: VerdictMemo,
    cache: LeafCache,
}

impl Evaluator {
    pub fn new(reader: Arc<dyn StateReader>) -> Self {
        Self { reader, memo: VerdictMemo::default(), cache: LeafCache::default() }
    }

    pub fn progress(&self, now: Millis) -> Progress {
        Progress { now, closed_until: self.reader.provisional_from().start() }
    }

    /// The windows of a question's aggregates; remembered where they are of now.
    pub fn read(&self, bound: &Bound, grid: Grid, now: Millis) -> Result<Vec<Arc<LeafAnswer>>, ApiError> {
        read_together(bound, |leaf| self.cache.read(self.reader.as_ref(), leaf, grid, now))
    }

    pub fn answer(&self, active: &Active, question: &Question, now: Millis) -> Result<View, ApiError> {
        let bound = bind(active, &question.subject)?;
        let ahead_ms = active.definitions.plan.event.ahead_ms;
        let asked = grid_of(question.from, question.to, question.step_ms, now, &bound, ahead_ms);
        let rules = rules_of(active, &question.subject, question.step_ms);
        self.view(&bound, asked, &rules, now)
    }

    /// The points of a bound question at `asked`, judged by `rules`.
    pub fn view(&self, bound: &Bound, asked: Grid, rules: &[AnomalyRule], now: Millis) -> Result<View, ApiError> {
        let span = span_of(asked, rules, now);
        // Asked before the states are read: what closes or is filled in between is still shown as open, never the other way
        // round.
        let coverage = complete::coverage(self.reader.as_ref(), bound, asked.step_ms);
        let complete_from = coverage.map(|coverage| coverage.complete_from);
        let mut progress = self.progress(now);
        progress.closed_until -= bound.lookahead_ms();
        let answers = self.read(bound, span.grid, now)?;
        let leaves: Vec<&LeafAnswer> = answers.iter().map(Arc::as_ref).collect();
        Ok(View { complete_from, ..view(bound, &leaves, span, progress, rules, &self.memo)? })
    }

    /// The body of an answer to `GET /v1/query`.
    pub fn answer_json(&self, active: &Active, question: &Question, now: Millis) -> Result<Vec<u8>, ApiError> {
        let view = self.answer(active, question, now)?;
        let (_, metric) = find_metric(&active.definitions, &question.subject.metric)?;
        let Question { step_ms, from, to, .. } = *question;
        let unit = metric.unit.as_deref();
        let head = Head { metric: &metric.name, unit, step_ms, from, to, revision: active.revision };
        Ok(write_answer(&head, &view))
    }
}

/// The windows of every aggregate of a question, read by `read`; at one point in time where that can be had.
fn read_together<A: std::borrow::Borrow<LeafAnswer>>(
    bound: &Bound,
    read: impl Fn(&Leaf) -> Result<A, ApiError>,
) -> Result<Vec<A>, ApiError> {
    let mut answers = Vec::new();
    for _ in 0..READS_MAX {
        answers = bound.leaves.iter().map(&read).collect::<Result<Vec<A>, _>>()?;
        if answers.windows(2).all(|pair| pair[0].borrow().seq == pair[1].borrow().seq) {
            break;
        }
    }
    Ok(answers)
}

/// The part of `[from, to)` where points can be: nothing is kept from before, and no event is accepted from after.
pub fn grid_of(from: Millis, to: Millis, step_ms: Millis, now: Millis, bound: &Bound, ahead_ms: Millis) -> Grid {
    let round = |ms: Millis| ms - ms.rem_euclid(step_ms);
    let reach = bound.leaves.iter().map(|leaf| leaf.span_ms(step_ms)).max().unwrap_or(step_ms);
    let earliest = round((now - leaf::HOURS_KEPT_MS - crate::time::DAY_MS).max(0));
    let latest = round(now + ahead_ms + reach) + step_ms;
    let from = from.max(earliest);
    Grid::new(from, to.min(latest).max(from), step_ms)
}
