//! What a topic shows, version after version. Every point knows which version changed it last, so that whoever knows an earlier
//! version is told what changed since, once. Does not know who listens.

use std::collections::HashMap;
use std::sync::Arc;

use super::frame::{Body, DeltaWriter, anomaly};
use super::history::{History, Mark};
use crate::anomaly::Judged;
use crate::catalog::definitions::AnomalyRule;
use crate::serve::query::bind::Bound;
use crate::serve::query::view::{JudgedSeries, RuleJudgement, Span, View};
use crate::time::Millis;

/// Series that were shown once keep their index. With so many more than there are now, numbering begins anew.
const GONE_SERIES_MAX: usize = 10_000;

pub struct Model {
    pub bound: Bound,
    pub rules: Vec<AnomalyRule>,
    pub revision: u64,
    /// Of the version: from 1, without gaps, going on where the model before it ended.
    pub number: u64,
    /// Series in the order of their indexes.
    pub view: View,
    pub history: History,
    /// The version it began with.
    first: u64,
    indexes: HashMap<Vec<Arc<str>>, usize>,
    /// For each series.
    changed: Vec<Changed>,
}

/// The version that changed each point last, and each verdict of the first rule; counted from the model's first.
#[derive(Default)]
struct Changed {
    points: Vec<u32>,
    band: Vec<u32>,
    /// Points of the range that are no more, by time: steps without events where those before have left the range.
    gone: Vec<(Millis, u32)>,
}

/// A version and what it changed.
struct Comparison<'a> {
    by: &'a [String],
    version: u32,
    old: &'a Span,
    new: &'a Span,
    /// To be told besides the points.
    verdicts: Vec<Body>,
    any: bool,
}

impl Model {
    /// `number`: its first version's. `own_from`: change numbers from here on are told by it alone.
    pub fn new(
        (bound, rules): (Bound, Vec<AnomalyRule>),
        revision: u64,
        number: u64,
        view: View,
        own_from: Option<u64>,
    ) -> Self {
        let indexes = view.series.iter().enumerate().map(|(at, series)| (series.points.labels.clone(), at)).collect();
        let first = Mark { number, seq: view.seq, series: view.series.len() };
        let history = History::new(first, own_from);
        let band = |series: &JudgedSeries| series.rules.first().map_or(0, |rule| rule.judged.len());
        let of = |series: &JudgedSeries| Changed {
            points: vec![0; series.points.steps.len()],
            band: vec![0; band(series)],
            gone: Vec::new(),
        };
        let changed = view.series.iter().map(of).collect();
        Self { bound, rules, revision, number, view, history, first: number, indexes, changed }
    }

    pub fn step_ms(&self) -> Millis {
        self.view.span.grid.step_ms
    }

    /// Whether this view goes on where the model is; else numbering begins anew.
    pub fn goes_on_with(&self, view: &View) -> bool {
        // A store that has gone back may not have all that was shown.
        let forward = view.seq >= self.view.seq;
        let versions_left = self.number - self.first < u64::from(u32::MAX);
        forward && versions_left && view.series.len() + GONE_SERIES_MAX > self.indexes.len()
    }

    /// Takes the newer view over, keeping indexes. Gives what is to be told: `None` where nothing changed.
    pub fn advance(&mut self, mut new: View) -> Option<Vec<Body>> {
        let (seq, old_span, provisional) = (self.view.seq, self.view.span.clone(), self.view.provisional_from());
        let number = self.number + 1;
        let known = self.view.series.len();
        let series = self.arrange(std::mem::take(&mut new.series));
        let mut comparison = Comparison {
            by: &new.by,
            version: (number - self.first) as u32,
            old: &old_span,
            new: &new.span,
            verdicts: Vec::new(),
            any: series.len() > known || new.complete_from != self.view.complete_from,
        };
        let nothing = (JudgedSeries::default(), Changed::default());
        let compare = |(index, series): (usize, &JudgedSeries)| {
            let old = self.view.series.get(index).unwrap_or(&nothing.0);
            comparison.compare(old, self.changed.get(index).unwrap_or(&nothing.1), series)
        };
        self.changed = series.iter().enumerate().map(compare).collect();
        let Comparison { verdicts, any, .. } = comparison;
        self.view = View { series, ..new };
        let delta = any || self.shows_point_between(provisional, self.view.provisional_from());
        if !delta {
            // The last state that was told is what the next delta follows.
            self.view.seq = seq;
        }
        if !delta && verdicts.is_empty() {
            return None;
        }
        let before = Mark { number: self.number, seq, series: known };
        self.number = number;
        self.history.push(Mark { number, seq: self.view.seq, series: self.view.series.len() }, &verdicts);
        Some(delta.then(|| self.since(before)).into_iter().chain(verdicts).collect())
    }

    /// All that changed after a version that is known: one delta.
    pub fn since(&self, mark: Mark) -> Body {
        let after = (mark.number - self.first) as u32;
        let mut delta = DeltaWriter::default();
        let grid = self.view.span.grid;
        for series in &self.view.series[mark.series..] {
            delta.new_series(&self.view.by, &series.points);
        }
        for (index, (series, changed)) in self.view.series.iter().zip(&self.changed).enumerate() {
            let points = series.points.points().zip(&changed.points).enumerate();
            for (at, ((step, value), _)) in points.filter(|(_, (_, changed))| **changed > after) {
                delta.point(index, grid.time(step), value, series.points.list(at));
            }
            for (t, _) in changed.gone.iter().filter(|(_, gone)| *gone > after) {
                delta.point(index, *t, f64::NAN, None);
            }
            let judged = series.rules.first().into_iter().flat_map(|rule| &rule.judged).zip(&changed.band);
            for (judged, _) in judged.filter(|(_, changed)| **changed > after) {
                delta.band(index, grid.time(judged.step as usize), judged);
            }
        }
        delta.finish(mark.seq, self.view.seq, self.view.provisional_from(), self.view.complete_from)
    }

    /// The found series in the order of their indexes; new ones get the next.
    fn arrange(&mut self, found: Vec<JudgedSeries>) -> Vec<JudgedSeries> {
        let mut fresh = Vec::new();
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
            self.indexes.insert(judged.points.labels.clone(), series.len());
            series.push(judged);
        }
        series
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

impl Comparison<'_> {
    fn compare(&mut self, old: &JudgedSeries, changed: &Changed, new: &JudgedSeries) -> Changed {
        let points = self.points(old, &changed.points, new);
        let mut band = Vec::new();
        for (number, rule) in new.rules.iter().enumerate() {
            let before = old.rules.get(number).map_or(&[][..], |rule| rule.judged.as_slice());
            if number == 0 {
                band = self.band(before, &changed.band, rule);
            }
            self.judge(before, rule, new);
        }
        let gone = self.gone(old, &changed.gone, new);
        let gone_now = gone.iter().any(|(_, version)| *version == self.version);
        self.any |= points.contains(&self.version) || band.contains(&self.version) || gone_now;
        Changed { points, band, gone }
    }

    /// What clients hold inside the range that is not there any more, until it leaves the range or is there again.
    fn gone(&self, old: &JudgedSeries, gone: &[(Millis, u32)], new: &JudgedSeries) -> Vec<(Millis, u32)> {
        let (grid, first) = (self.new.grid, self.new.grid.time(self.new.range.start));
        let is_there = |t: Millis| {
            let step = u32::try_from((t - grid.from).div_euclid(grid.step_ms));
            step.is_ok_and(|step| new.points.steps.binary_search(&step).is_ok())
        };
        let still = gone.iter().copied().filter(|&(t, _)| t >= first && !is_there(t));
        // Both ascend.
        let mut there = new.points.steps.iter().map(|&step| grid.time(step as usize)).peekable();
        let known = old.points.steps.iter().map(|&step| self.old.grid.time(step as usize));
        let fresh = known.skip_while(|t| *t < first).filter(|t| {
            while there.next_if(|new| new < t).is_some() {}
            there.peek() != Some(t)
        });
        still.chain(fresh.map(|t| (t, self.version))).collect()
    }

    /// A step of the new grid is so many more in the old one.
    fn shift(&self) -> i64 {
        (self.new.grid.from - self.old.grid.from) / self.new.grid.step_ms
    }

    fn points(&self, old: &JudgedSeries, changed: &[u32], new: &JudgedSeries) -> Vec<u32> {
        let shift = self.shift();
        let known = old.points.points().zip(changed).enumerate();
        let known = known.map(|(at, ((step, value), &since))| (step as i64 - shift, value, at, since));
        let mut known = known.peekable();
        let since = |(at, (step, value)): (usize, (usize, f64))| {
            while known.next_if(|(before, ..)| *before < step as i64).is_some() {}
            let same = known.peek().filter(|(before, was, old_at, _)| {
                *before == step as i64
                    && was.to_bits() == value.to_bits()
                    && old.points.list(*old_at) == new.points.list(at)
            });
            same.map_or(self.version, |(.., since)| *since)
        };
        new.points.points().enumerate().map(since).collect()
    }

    fn band(&self, before: &[Judged], changed: &[u32], rule: &RuleJudgement) -> Vec<u32> {
        let shift = self.shift();
        let since = |judged: &Judged| {
            let at = find(before, i64::from(judged.step) + shift)?;
            (before[at].value.to_bits() == judged.value.to_bits()).then(|| changed[at])
        };
        rule.judged.iter().map(|judged| since(judged).unwrap_or(self.version)).collect()
    }

    /// Which points have become anomalies, and which are none any more.
    fn judge(&mut self, before: &[Judged], rule: &RuleJudgement, new: &JudgedSeries) {
        let (grid, shift) = (self.new.grid, self.shift());
        for judged in rule.judged.iter().filter(|judged| judged.verdict.anomalous) {
            let known = find(before, i64::from(judged.step) + shift).map(|at| &before[at]);
            let known = known.filter(|known| known.value.to_bits() == judged.value.to_bits());
            if known.is_none_or(|known| !known.verdict.anomalous) {
                self.verdicts.push(anomaly(self.by, &new.points, grid, judged, &rule.label, false));
            }
        }
        for known in before.iter().filter(|known| known.verdict.anomalous) {
            let step = i64::from(known.step) - shift;
            let Some(step) = u32::try_from(step).ok().filter(|step| self.new.range.contains(&(*step as usize))) else {
                continue;
            };
            let now = find(&rule.judged, i64::from(step)).map(|at| rule.judged[at]);
            let unasked = now.is_none() && rule.partial;
            if !unasked && now.is_none_or(|now| !now.verdict.anomalous) {
                let cleared = now.unwrap_or(Judged { step, ..*known });
                self.verdicts.push(anomaly(self.by, &new.points, grid, &cleared, &rule.label, true));
            }
        }
    }
}

fn find(judged: &[Judged], step: i64) -> Option<usize> {
    let step = u32::try_from(step).ok()?;
    judged.binary_search_by_key(&step, |judged| judged.step).ok()
}
