//! How many sample standard deviations a point lies from the mean of the closed points before it.

use std::ops::Range;

use super::{Judged, Points};
use crate::engine::extension::Verdict;
use crate::engine::slide::slide;
use crate::time::Millis;

/// Fewer points before it give no verdict.
pub const BASELINE_POINTS_MIN: u32 = 60;

/// Merges without loss of precision. Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm (1979).
#[derive(Clone, Copy)]
struct Moments {
    count: u32,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
    /// Equal to `max`: the deviation is 0, whatever rounding says.
    min: f64,
    max: f64,
}

const NOTHING: Moments = Moments { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

impl Moments {
    fn one(value: f64) -> Self {
        Self { count: 1, mean: value, squares: 0.0, min: value, max: value }
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (mine, theirs) = (f64::from(self.count), f64::from(other.count));
        let both = mine + theirs;
        let distance = other.mean - self.mean;
        self.mean += distance * theirs / both;
        self.squares += other.squares + distance * distance * mine * theirs / both;
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    fn verdict(&self, value: f64, threshold: f64) -> Option<Verdict> {
        if self.count < BASELINE_POINTS_MIN || self.min == self.max {
            return None;
        }
        let deviation = (self.squares / f64::from(self.count - 1)).sqrt();
        let (expected, reach) = (self.mean, threshold * deviation);
        let score = (value - expected) / deviation;
        let anomalous = score.abs() > threshold;
        let verdict = Verdict { expected, lower: expected - reach, upper: expected + reach, score, anomalous };
        (score.is_finite() && reach.is_finite()).then_some(verdict)
    }
}

pub fn judge(points: &Points, range: Range<usize>, threshold: f64, baseline_ms: Millis) -> Vec<Judged> {
    let Some(&last) = points.steps.last() else { return Vec::new() };
    let width = (baseline_ms / points.step_ms).max(1) as usize;
    // Step `i` stands at `width + i`, so that its baseline is the window that begins at `i`.
    let mut panes = vec![NOTHING; width + last as usize + 1];
    points.iter().filter(|(step, _)| *step < points.closed).for_each(|(step, v)| panes[width + step] = Moments::one(v));
    let mut judged = Vec::new();
    let mut to_judge = points.iter().filter(|(step, _)| range.contains(step)).peekable();
    slide(&panes, width, 1, last as usize + 1, Moments::merge, |step, baseline| {
        if let Some((_, value)) = to_judge.next_if(|(next, _)| *next == step)
            && let Some(verdict) = baseline.verdict(value, threshold)
        {
            judged.push(Judged { step: step as u32, value, verdict });
        }
    });
    judged
}
